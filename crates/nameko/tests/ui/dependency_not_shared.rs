//! Dependencies must be `Send` and `Sync`.

use std::rc::Rc;

use nameko::prelude::*;

struct Local;

impl DependencyProvider for Local {
    type Dependency = Rc<u8>;

    async fn get_dependency(&self, _: &WorkerContext) -> Result<Rc<u8>> {
        Ok(Rc::new(1))
    }
}

#[derive(Dependencies)]
struct Greeter {
    #[dependency(Local)]
    local: Rc<u8>,
}

fn main() {}
