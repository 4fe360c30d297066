//! The command `call`: a single call.

use super::arguments::CallArguments;
use super::client::Client;
use super::expression::Call;
use super::failure::Failure;
use super::terminal::echo;
use crate::config::Config;

/// Makes the call and prints the result as Python's `repr`, or nothing for `None`.
pub(super) async fn run(arguments: &CallArguments, config: &Config) -> Result<(), Failure> {
    let call = parse(&arguments.target, &arguments.arguments)?;
    let client = Client::connect(config, &arguments.client).await?;
    let result = client.call(&call).await;
    client.close().await;
    match result? {
        super::literal::Literal::None => Ok(()),
        value => Ok(echo(value)?),
    }
}

fn parse(target: &str, arguments: &[String]) -> Result<Call, Failure> {
    if target.contains(['(', '[']) {
        if !arguments.is_empty() {
            return Err(Failure::new(
                "Error",
                "pass the arguments either inside the brackets of the call or after it, not both",
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
            format!("`{target}` is not a method name; expected service.method, as in: {example}"),
        ));
    }
    let mut call = Call {
        service: service.into(),
        method: method.into(),
        ..Call::default()
    };
    for argument in arguments {
        call.argument(argument).map_err(|(fault, text)| {
            Failure::in_text(&fault, &text).hint("a string that looks like another literal needs two pairs of quotes, one for your shell: \"'text'\"")
        })?;
    }
    Ok(call)
}
