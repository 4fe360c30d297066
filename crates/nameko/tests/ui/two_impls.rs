//! A service has one name.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Greeter;

#[service("greeter")]
impl Greeter {}

#[service("other")]
impl Greeter {}

fn main() {}
