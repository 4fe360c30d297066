//! The command `nameko`: a shell, single calls and an embedded broker, without services.

use std::process::ExitCode;

fn main() -> ExitCode {
    nameko::cli::tool()
}
