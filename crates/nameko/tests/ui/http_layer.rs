//! A layer around the web server is a `tower::Layer`.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Shop;

#[service("shop")]
impl Shop {}

fn main() {
    let _ = Container::builder::<Shop>(Config::new()).http_layer("cors");
}
