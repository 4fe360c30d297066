//! `#[exception]` belongs on a struct or on each variant; the fields are serializable.

use nameko::prelude::*;

#[derive(Debug, Exception)]
struct Nothing;

#[derive(Debug, Exception)]
#[exception(shop.NotFound)]
struct NoText(u64);

#[derive(Debug, Exception)]
enum ShopError {
    NotFound(u64),
    #[exception("shop::Closed")]
    Closed,
    #[exception(transparent)]
    Other(u8, u8),
}

macro_rules! error {
    ($($name:ident),*) => { $(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an error")
            }
        }

        impl std::error::Error for $name {}
    )* };
}

error!(Nothing, NoText, ShopError);

fn main() {}
