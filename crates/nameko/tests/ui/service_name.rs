//! The name of a service is one word of a routing key.

use nameko::prelude::*;

const NAME: &str = "constant";

#[derive(Dependencies)]
struct Missing;

#[service]
impl Missing {}

#[derive(Dependencies)]
struct MissingInParentheses;

#[service()]
impl MissingInParentheses {}

#[derive(Dependencies)]
struct Empty;

#[service("")]
impl Empty {}

#[derive(Dependencies)]
struct Constant;

#[service(NAME)]
impl Constant {}

#[derive(Dependencies)]
struct Number;

#[service(1)]
impl Number {}

#[derive(Dependencies)]
struct Named;

#[service(name = "named")]
impl Named {}

#[derive(Dependencies)]
struct More;

#[service("more", version = 2)]
impl More {}

#[derive(Dependencies)]
struct Dot;

#[service("orders.v2")]
impl Dot {}

#[derive(Dependencies)]
struct Star;

#[service("*")]
impl Star {}

#[derive(Dependencies)]
struct Hash;

#[service("c#")]
impl Hash {}

#[derive(Dependencies)]
struct Space;

#[service("order service")]
impl Space {}

#[derive(Dependencies)]
struct Long;

#[service("a_name_that_goes_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on_and_on")]
impl Long {}

fn main() {
    // None of these is an error of its own.
    let _ = services![Missing, Empty, Constant, Named, Dot, Long];
}
