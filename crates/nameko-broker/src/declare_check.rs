//! Comparison of a redeclaration with the existing queue or exchange.

use amq_protocol::types::FieldTable;

use crate::{
    error::{AmqpError, Result},
    field_values::{describe_value, display_value, values_equal},
};

/// Checks that two argument tables agree on `keys`. Integers of different widths are compared by
/// value.
pub(crate) fn check_arguments(
    current: &FieldTable,
    received: &FieldTable,
    keys: &[&str],
    name: &str,
) -> Result<()> {
    for key in keys {
        let old = current.inner().get(*key);
        let new = received.inner().get(*key);
        let agree = match (old, new) {
            (None, None) => true,
            (Some(old), Some(new)) => values_equal(old, new),
            _ => false,
        };
        if !agree {
            let (received, current) = match (old, new) {
                (Some(old), Some(new)) => (
                    format!("'{}'", display_value(new)),
                    format!("'{}'", display_value(old)),
                ),
                _ => (describe_value(new), describe_value(old)),
            };
            return Err(inequivalent(key, name, &received, &current));
        }
    }
    Ok(())
}

/// Checks that a flag or type agrees with the existing declaration.
pub(crate) fn check_property<T: PartialEq + std::fmt::Display>(
    key: &str,
    name: &str,
    current: T,
    received: T,
) -> Result<()> {
    if current == received {
        return Ok(());
    }
    Err(inequivalent(
        key,
        name,
        &format!("'{received}'"),
        &format!("'{current}'"),
    ))
}

fn inequivalent(key: &str, name: &str, received: &str, current: &str) -> AmqpError {
    AmqpError::precondition_failed(format!(
        "inequivalent arg '{key}' for {name}: received {received} but current is {current}"
    ))
}

#[cfg(test)]
mod tests {
    use amq_protocol::types::AMQPValue;

    use super::*;

    fn table(entries: &[(&str, AMQPValue)]) -> FieldTable {
        let mut table = FieldTable::default();
        for (key, value) in entries {
            table.insert((*key).into(), value.clone());
        }
        table
    }

    #[test]
    fn integers_of_any_width_agree_by_value() {
        let check = |old: &[(&str, AMQPValue)], new: &[(&str, AMQPValue)]| {
            let keys = ["x-message-ttl", "x-queue-type"];
            check_arguments(&table(old), &table(new), &keys, "queue 'q' in vhost '/'")
                .map_err(|e| e.text)
        };
        let ttl = |n| ("x-message-ttl", AMQPValue::LongInt(n));
        let kind = |kind: &str| ("x-queue-type", AMQPValue::LongString(kind.into()));
        assert_eq!(
            check(&[ttl(5)], &[("x-message-ttl", AMQPValue::LongLongInt(5))]),
            Ok(())
        );
        assert_eq!(check(&[], &[("x-mine", AMQPValue::Void)]), Ok(()));
        assert_eq!(
            check(&[ttl(5)], &[ttl(6)]).unwrap_err(),
            "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received '6' but current is '5'"
        );
        assert_eq!(
            check(&[ttl(5)], &[]).unwrap_err(),
            "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but current is the value '5' of type 'signedint'"
        );
        assert_eq!(
            check(&[kind("quorum")], &[kind("classic")]).unwrap_err(),
            "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received 'classic' but current is 'quorum'"
        );
    }
}
