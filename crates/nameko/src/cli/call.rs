//! `call`: one call from the command line.

use super::arguments::CallArguments;
use super::client::{Client, Failure};
use super::expression::Call;
use super::terminal::say;
use crate::config::Config;

/// Makes the call and prints its result as Python's `repr`; `None` prints nothing.
pub(super) async fn run(arguments: &CallArguments, config: &Config) -> Result<(), Failure> {
    let call = parse(&arguments.target, &arguments.arguments)?;
    let client = Client::connect(config, arguments.client.timeout).await?;
    let result = client.call(&call).await;
    client.close().await;
    match result? {
        super::literal::Literal::None => Ok(()),
        value => Ok(say(value)?),
    }
}

fn parse(target: &str, arguments: &[String]) -> Result<Call, Failure> {
    if target.contains(['(', '[']) {
        if !arguments.is_empty() {
            return Err(Failure::new(
                "Error",
                "arguments stand in the brackets of the call, or behind it, not in both places",
            ));
        }
        return Call::parse(target).map_err(|fault| Failure::in_text(&fault, target));
    }
    let target = target.strip_prefix("n.rpc.").unwrap_or(target);
    let (service, method) = target.rsplit_once('.').unwrap_or((target, ""));
    if service.is_empty() || method.is_empty() {
        let example = "call hello_service.hello name=you";
        return Err(Failure::new(
            "Error",
            format!("`{target}` does not name a method; write service.method, as in: {example}"),
        ));
    }
    let mut call = Call {
        service: service.into(),
        method: method.into(),
        ..Call::default()
    };
    for argument in arguments {
        call.argument(argument).map_err(|(fault, text)| {
            Failure::in_text(&fault, &text).hint("text that looks like something else needs quotes, twice for the shell you type in: \"'text'\"")
        })?;
    }
    Ok(call)
}
