//! User items may have the names that generated code uses.

use ::nameko::{CurrentWorker, WorkerContext};

#[allow(dead_code)]
struct Ok;
#[allow(dead_code)]
struct Some;
#[allow(dead_code)]
struct Box;
#[allow(dead_code)]
struct String;
#[allow(dead_code)]
struct Result;
#[allow(dead_code)]
struct Option;
#[allow(dead_code)]
trait Clone {}
#[allow(dead_code)]
trait Service {}
#[allow(dead_code)]
trait Dependencies {}
#[allow(dead_code)]
mod core {}
#[allow(dead_code)]
mod std {}
#[allow(dead_code)]
mod nameko {}

#[derive(::nameko::Dependencies)]
struct Shadowed {
    #[dependency({
        // No variable of the macro is seen here, and none of these is seen by the macro.
        let (bindings, ctx, provider0, value0) = ((), (), (), ());
        let _ = (bindings, ctx, provider0, value0);
        CurrentWorker
    })]
    provider0: WorkerContext,
    #[dependency(CurrentWorker)]
    ctx: WorkerContext,
}

#[::nameko::service("shadowed")]
impl Shadowed {
    #[::nameko::rpc]
    async fn call(&self, args: u8, service: u8, entrypoints: u8) -> ::nameko::Result<u8> {
        let _ = (&self.provider0, &self.ctx);
        ::std::result::Result::Ok(args + service + entrypoints)
    }
}

#[test]
fn a_service_among_shadowed_names_is_a_service() {
    assert_eq!(<Shadowed as ::nameko::Service>::NAME, "shadowed");
}
