//! The guide: a chapter for each thing to learn. Every sample in it is compiled and run by the tests.
//!
//! Start with [install] and [hello].

pub mod install {
    #![doc = include_str!("../../../docs/install.md")]
}

pub mod hello {
    #![doc = include_str!("../../../docs/hello.md")]
}
