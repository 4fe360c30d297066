//! A client outside of any service: `cargo run --bin client`, while `chain` runs.
#![allow(clippy::print_stdout, reason = "a program prints its result")]

use nameko::prelude::*;

#[tokio::main]
async fn main() -> Result<()> {
    let cluster = Cluster::connect(&Config::default()).await?;
    let reply: String = cluster
        .service("service_x")
        .call("remote_method", ("hello",))
        .await?;
    println!("{reply}");
    cluster.stop().await;
    Ok(())
}
