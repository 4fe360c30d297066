//! The expression on a field is a provider.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter {
    #[dependency("service_y".to_owned())]
    y: String,
}

fn main() {}
