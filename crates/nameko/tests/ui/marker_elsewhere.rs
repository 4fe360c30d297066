//! A marker outside a service is an error that names its place.

use nameko::prelude::*;

#[event_handler("shop", "paid")]
async fn paid(_: u64) {}

#[consume(QUEUE)]
async fn message(_: u64) {}

#[timer(5)]
async fn tick() {}

#[cron("* * * * *")]
async fn nightly() {}

#[http(GET, "/")]
async fn index() {}

#[websocket_rpc]
async fn subscribe(_: String) {}

#[entrypoint(QUEUE)]
async fn custom() {}

fn main() {}
