//! Entrypoints are plain `async` methods.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter")]
impl Greeter {
    #[rpc]
    fn blocking(&self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async unsafe fn not_safe(&self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async extern "C" fn foreign(&self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn generic<T: Send>(&self, value: T) -> Result<()> {
        let _ = value;
        Ok(())
    }

    #[rpc]
    async fn lifetime<'a>(&self) -> Result<()> {
        Ok(())
    }

    #[rpc]
    async fn a_method_with_a_name_that_goes_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on(
        &self,
    ) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = services![Greeter];
}
