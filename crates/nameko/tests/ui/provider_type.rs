//! The expression on a field must be a provider.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter {
    #[dependency("service_y".to_owned())]
    y: String,
}

fn main() {}
