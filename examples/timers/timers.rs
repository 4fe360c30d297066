//! A timer and a cron schedule: `cargo run --bin timers -- run`, in any number of terminals.
//!
//! Every instance prints its heartbeat. One instance, elected by the broker, prints the report;
//! when it stops, another takes over. Several instances need a shared broker: start one with
//! `nameko broker`.

use std::io::{Write, stdout};

use nameko::prelude::*;

#[derive(Dependencies)]
struct Reports;

#[service("reports")]
impl Reports {
    #[timer(interval = 5, eager = true)]
    async fn heartbeat(&self) -> Result<()> {
        writeln!(stdout(), "{} is alive", std::process::id())?;
        Ok(())
    }

    /// `time` is the scheduled time. A repetition after a failure gets the same one.
    #[cron("*/10 * * * * *", tz = "Europe/London", once = "fleet")]
    async fn report(&self, time: String) -> Result<()> {
        writeln!(stdout(), "{} reports for {time}", std::process::id())?;
        Ok(())
    }
}

fn main() -> ExitCode {
    nameko::main(services![Reports])
}
