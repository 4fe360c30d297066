//! The option `--context`: context data of the calls and events of `shell` and `call`.

use super::expression::word_or_literal;
use super::failure::Failure;
use super::literal::Literal;
use crate::amqp::{Table, Value};
use crate::error::Error;

/// Parses `KEY=VALUE` definitions, with values as in `call`.
pub(super) fn parse(definitions: &[String]) -> Result<Table, Failure> {
    let mut context = Table::new();
    for definition in definitions {
        let Some((key, text)) = definition
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
        else {
            return Err(Failure::new(
                "Error",
                format!("`{definition}` is not context data; write KEY=VALUE, such as tenant=acme"),
            ));
        };
        let literal =
            word_or_literal(text).map_err(|(fault, text)| Failure::in_text(&fault, &text))?;
        let value = header(&literal).map_err(|reason| Error::InvalidContext {
            key: key.to_owned(),
            reason,
        })?;
        context.insert(key, value);
    }
    Ok(context)
}

/// Converts a literal to a header value.
fn header(literal: &Literal) -> Result<Value, String> {
    Ok(match literal {
        Literal::None => Value::Null,
        Literal::Bool(value) => Value::Bool(*value),
        Literal::Int(digits) => Value::Int(digits.parse().map_err(|_| {
            format!("a header cannot hold the integer {digits}, which does not fit in 64 bits")
        })?),
        Literal::Float(value) => Value::Double(*value),
        Literal::Text(text) => Value::String(text.clone()),
        Literal::List(items) | Literal::Tuple(items) => {
            Value::List(items.iter().map(header).collect::<Result<_, _>>()?)
        }
        Literal::Dict(entries) => {
            let mut table = Table::new();
            for (key, value) in entries {
                table.insert(key.as_json_key(), header(value)?);
            }
            Value::Table(table)
        }
    })
}
