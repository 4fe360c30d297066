//! A client that reads calls from standard input, one JSON object per line, and writes one line per
//! result. `caller.py` does the same in Python.
//!
//! Input: `{"service": .., "method": .., "args": [..], "kwargs": {..}}`. Output: `{"result": ..}`,
//! or `{"error": ..}` with the error's class and text and, of a remote error, its type and value.
//! Arguments: the broker's URI, then JSON objects with the context data (strings) and further
//! configuration.

#[path = "fleet_errors.rs"]
mod errors;

use std::{
    env::args,
    io::{Write, stdin, stdout},
};

use nameko::{
    amqp::{self, Table},
    exceptions,
    prelude::*,
};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::errors::NotFound;

#[derive(Deserialize)]
struct Call {
    service: String,
    method: String,
    #[serde(default)]
    args: Vec<Value>,
    #[serde(default)]
    kwargs: Map<String, Value>,
}

#[tokio::main]
async fn main() -> Result<()> {
    exceptions::register::<NotFound>();
    let mut arguments = args().skip(1);
    let mut config = Config::new().with("AMQP_URI", arguments.next().unwrap_or_default());
    let mut object = || arguments.next().unwrap_or_else(|| "{}".to_owned());
    let context: Map<String, Value> = serde_json::from_str(&object())?;
    let settings: Map<String, Value> = serde_json::from_str(&object())?;
    for (key, value) in settings {
        config.set(key, value);
    }
    let context: Table = context
        .into_iter()
        .map(|(key, value)| (key, text(&value)))
        .collect();
    let cluster = Cluster::connect_with(&config, context).await?;
    for line in stdin().lines() {
        let call: Call = serde_json::from_str(&line?)?;
        let answer = match make(&cluster, &call).await {
            Ok(result) => json!({"result": result}),
            Err(error) => json!({"error": describe(&error)}),
        };
        writeln!(stdout(), "{answer}")?;
    }
    cluster.stop().await;
    Ok(())
}

fn text(value: &Value) -> amqp::Value {
    value.as_str().unwrap_or_default().into()
}

async fn make(cluster: &Cluster, call: &Call) -> Result<Box<RawValue>> {
    let service = cluster.service(call.service.as_str());
    let result = service
        .call_unread(&call.method, &call.args, &call.kwargs)
        .await?;
    Ok(result.to_json()?)
}

fn describe(error: &Error) -> Value {
    let class = match error {
        Error::Remote(_) => "RemoteError",
        Error::UnknownService(_) => "UnknownService",
        Error::MethodNotFound(_) => "MethodNotFound",
        Error::IncorrectSignature(_) => "IncorrectSignature",
        Error::MalformedRequest(_) => "MalformedRequest",
        error if error.is::<NotFound>() => "NotFound",
        _ => "Error",
    };
    let remote = error.as_remote();
    json!({
        "class": class,
        "text": error.to_string(),
        "exc_type": remote.map(|error| error.exc_type.as_str()),
        "value": remote.map(|error| error.value.as_str()),
    })
}
