//! Invalid literals are compile errors.

use nameko::prelude::*;

#[derive(Dependencies)]
struct Nightly;

#[service("nightly")]
impl Nightly {
    #[cron("0 25 * * *")]
    async fn hour(&self) -> Result<()> {
        Ok(())
    }

    #[cron("0 3 31 4 *")]
    async fn day(&self) -> Result<()> {
        Ok(())
    }

    #[cron("0 3 * * *", tz = "Europe/Londn", once = "city")]
    async fn zone(&self) -> Result<()> {
        Ok(())
    }

    #[timer(interval = 0)]
    async fn hasty(&self) -> Result<()> {
        Ok(())
    }
}

fn main() {
    let _ = services![Nightly];
}
