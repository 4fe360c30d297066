//! A layer must implement `WorkerLayer`.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter", layers = ["a text"])]
impl Greeter {}

fn main() {}
