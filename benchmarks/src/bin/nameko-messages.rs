//! Handlers of events and messages on Nameko.

#[path = "../reports.rs"]
mod reports;

use std::sync::LazyLock;

use nameko::prelude::*;
use reports::Reports;

static REPORTS: LazyLock<Reports> = LazyLock::new(Reports::new);

#[derive(Dependencies)]
struct Messages;

#[service("bench_messages")]
impl Messages {
    #[event_handler("bench_source", "happened")]
    async fn handle(&self, text: String) -> Result<()> {
        REPORTS.handled(text.len());
        Ok(())
    }

    #[consume("bench_messages")]
    async fn consume(&self, text: String) -> Result<()> {
        REPORTS.handled(text.len());
        Ok(())
    }
}

#[derive(Dependencies)]
struct FanOut;

/// Declares a service with one handler of the same event per name.
macro_rules! fan_out {
    ($($handler:ident)*) => {
        #[service("bench_fan_out")]
        impl FanOut {
            $(
                #[event_handler("bench_source", "happened")]
                async fn $handler(&self, text: String) -> Result<()> {
                    REPORTS.handled(text.len());
                    Ok(())
                }
            )*
        }
    };
}

fan_out!(handle_0 handle_1 handle_2 handle_3 handle_4 handle_5 handle_6 handle_7 handle_8 handle_9);

fn main() -> ExitCode {
    nameko::main(services![Messages, FanOut])
}
