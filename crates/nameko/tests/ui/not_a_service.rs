//! A service needs `#[derive(Dependencies)]` and `#[service]`.

use nameko::prelude::*;

struct NoDependencies;

#[service("no_dependencies")]
impl NoDependencies {}

#[derive(Dependencies)]
struct NoService;

fn main() {
    let _ = services![NoService];
}
