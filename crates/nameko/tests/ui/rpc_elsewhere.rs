//! A marker outside a service is never silently ignored.

use nameko::prelude::*;

struct Plain;

impl Plain {
    #[rpc]
    async fn hello(&self) -> Result<()> {
        Ok(())
    }
}

#[rpc]
async fn hello() {}

#[rpc]
struct Service;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter")]
impl Greeter {
    #[rpc]
    const GREETING: &'static str = "Hello";
}

fn main() {
    // The methods are still there.
    let _ = Plain.hello();
    let _ = hello();
    let _ = Greeter::GREETING;
}
