//! The arguments of an exception are serializable.

use nameko::prelude::*;

#[derive(Debug)]
struct Secret;

#[derive(Debug, Exception)]
#[exception("shop.Private")]
struct Private(Secret);

impl std::fmt::Display for Private {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an error")
    }
}

impl std::error::Error for Private {}

#[derive(Debug)]
struct Unnamed;

fn main() {
    nameko::exceptions::register::<Unnamed>();
}
