//! The guide: a chapter for each thing to learn. Every sample in it is compiled and run by the tests.
//!
//! Start with [install] and [hello]; [concepts] explains the words. [testing], [extensions] and [serialization] come when
//! you need them, and [production] when others do.

pub mod install {
    #![doc = include_str!("../docs/install.md")]
}

pub mod hello {
    #![doc = include_str!("../docs/hello.md")]
}

pub mod concepts {
    #![doc = include_str!("../docs/concepts.md")]
}

pub mod rpc {
    #![doc = include_str!("../docs/rpc.md")]
}

pub mod context {
    #![doc = include_str!("../docs/context.md")]
}

pub mod events {
    #![doc = include_str!("../docs/events.md")]
}

pub mod messaging {
    #![doc = include_str!("../docs/messaging.md")]
}

pub mod http {
    #![doc = include_str!("../docs/http.md")]
}

pub mod websocket {
    #![doc = include_str!("../docs/websocket.md")]
}

pub mod timers {
    #![doc = include_str!("../docs/timers.md")]
}

pub mod extensions {
    #![doc = include_str!("../docs/extensions.md")]
}

pub mod testing {
    #![doc = include_str!("../docs/testing.md")]
}

pub mod serialization {
    #![doc = include_str!("../docs/serialization.md")]
}

pub mod production {
    #![doc = include_str!("../docs/production.md")]
}
