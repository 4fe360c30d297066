//! A shop of six services: HTTP gateway, orders, stock, notifications, reports, WebSocket feed.
//! `make shop` starts them with a PostgreSQL of their own. The same services in Python are in the
//! files beside these, and any of them can replace one of these.

#[cfg(test)]
mod database;
mod errors;
mod feed;
mod gateway;
mod notifications;
mod orders;
mod reports;
mod stock;

use nameko::{exceptions, prelude::*, web::ProblemDetails};

fn main() -> ExitCode {
    exceptions::register::<errors::ShopError>();
    let services = services![
        gateway::Gateway,
        orders::Orders,
        stock::Stock,
        notifications::Notifications,
        reports::Reports,
        feed::Feed,
    ];
    nameko::main(
        services
            .http_layer_with(gateway::cors)
            .http_layer_with(gateway::identify)
            .http_errors(ProblemDetails::new()),
    )
}
