//! Runs a broker until Ctrl-C: `cargo run -p nameko-broker --example serve -- 127.0.0.1:5673`

use nameko_broker::Broker;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let addr = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let broker = Broker::start(addr).await?;
    #[allow(clippy::print_stdout)]
    {
        println!("{}", broker.uri());
    }
    tokio::signal::ctrl_c().await?;
    broker.stop().await;
    Ok(())
}
