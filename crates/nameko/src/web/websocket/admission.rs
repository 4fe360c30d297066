//! The authentication of a handshake, before the connection is upgraded.

use serde_json::Value as Json;
use tokio::sync::oneshot;

use super::{
    super::{error::Error, request::Request, response::Response},
    shared::{Occasion, Shared},
    socket::{hook_arguments, opened_with},
};
use crate::{
    amqp::{Table, Value},
    container::MethodHandle,
    protocol::Fault,
    reply::Outcome,
};

/// Runs the handshake methods. Returns the context data of the socket's workers.
///
/// # Errors
/// The response of the first method that refuses the handshake.
pub(super) async fn admit(shared: &Shared, request: &Request) -> Result<Table, Response> {
    let mut context = Table::new();
    for method in shared.hooks(Occasion::Handshake) {
        let admitted = run(shared, &method, request, context.clone()).await;
        let admitted = admitted.ok_or_else(|| Error::stopping().into_response())?;
        let refused = match admitted.and_then(|value| entries(&value)) {
            Ok(entries) => {
                for (name, value) in entries {
                    context.insert(name, value);
                }
                continue;
            }
            Err(fault) => fault,
        };
        let reason = &refused.exc_type;
        tracing::debug!("{} refused a handshake: {reason}: {refused}", method.name());
        return Err(Response::of_fault(&refused, method.expects(&refused)));
    }
    Ok(context)
}

/// Runs a handshake method. Returns its result; `None` if the container is stopping.
async fn run(
    shared: &Shared,
    method: &MethodHandle,
    request: &Request,
    context: Table,
) -> Option<Result<Json, Fault>> {
    let arguments = match hook_arguments(method, None, |name| opened_with(request, name)) {
        Ok(arguments) => arguments,
        Err(error) => return Some(Err(Fault::of(&error))),
    };
    let (sender, result) = oneshot::channel();
    let container = shared.container.upgrade()?;
    container.spawn_worker(method, arguments, context, |outcome| {
        // Fails if the client has disconnected.
        let _ = sender.send(json(&outcome));
        std::future::ready(outcome)
    });
    drop(container);
    result.await.ok()
}

fn json(outcome: &Outcome) -> Result<Json, Fault> {
    let value = outcome.as_ref().map_err(Clone::clone)?;
    let json = value.to_json().map_err(|error| Fault::of(&error))?;
    serde_json::from_slice(&json).map_err(|error| Fault::unserializable(&error.to_string()))
}

/// Returns the result of a handshake method as context data.
fn entries(result: &Json) -> Result<Vec<(String, Value)>, Fault> {
    let wrong = |what: &str| {
        let text = format!(
            "a handshake method returns nothing or a map of context data with texts, numbers and booleans, not {what}"
        );
        Fault::python("TypeError", text)
    };
    match result {
        Json::Null => Ok(Vec::new()),
        Json::Object(map) => map
            .iter()
            .map(|(name, value)| Ok((name.clone(), entry(value).ok_or_else(|| wrong(name))?)))
            .collect(),
        _ => Err(wrong("another value")),
    }
}

fn entry(value: &Json) -> Option<Value> {
    Some(match value {
        Json::String(text) => text.as_str().into(),
        Json::Bool(value) => (*value).into(),
        Json::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64()?.into(),
        },
        Json::Null | Json::Array(_) | Json::Object(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn results_become_context_data() {
        let read = |json: Json| entries(&json).ok();
        assert_eq!(read(json!(null)), Some(Vec::new()));
        assert_eq!(
            read(json!({"user": "ada", "level": 3, "admin": true})),
            Some(vec![
                ("user".to_owned(), "ada".into()),
                ("level".to_owned(), 3_i64.into()),
                ("admin".to_owned(), true.into()),
            ])
        );
        for other in [json!("ada"), json!([1]), json!({"user": null})] {
            assert_eq!(read(other.clone()), None, "{other}");
        }
    }
}
