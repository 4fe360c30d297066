//! Work that nobody calls for: `cargo run --bin timers -- run`, in as many terminals as you like.
//!
//! The heartbeat is every instance's own. The report is one instance's, which the broker chooses: end it, and another goes on.
//! Several instances need a broker that all of them reach: start one with `nameko broker`.

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

    /// `time` is the same for whoever runs it, now or after a failure: it names the work.
    #[cron("*/10 * * * * *", tz = "Europe/London", once = "fleet")]
    async fn report(&self, time: String) -> Result<()> {
        writeln!(stdout(), "{} reports for {time}", std::process::id())?;
        Ok(())
    }
}

fn main() -> ExitCode {
    nameko::main(services![Reports])
}
