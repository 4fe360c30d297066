//! Redaction of sensitive arguments for logs.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use crate::{
    arguments::{Arguments, Param},
    serialization::{self, Payload},
};

/// Replacement for a redacted value.
pub const REDACTED: &str = "********";

/// Returns the arguments of a call by parameter name, with those that match `patterns` redacted.
///
/// A pattern is the name of a parameter or a path to a part of its value: `password`, `user.token`,
/// `cards[0].number`. A pattern without a match has no effect. Omitted parameters are null, and
/// arguments without a parameter are not included.
///
/// ```
/// use nameko::{Arguments, Param, redact};
/// use serde_json::json;
///
/// const LOGIN: &[Param] = &[Param::required("user"), Param::required("password")];
/// let arguments = Arguments::new().arg("ada")?.kwarg("password", "secret")?;
/// let shown = redact(LOGIN, &arguments, &["password"]);
/// assert_eq!(json!(shown), json!({"user": "ada", "password": "********"}));
/// # Ok::<(), nameko::Error>(())
/// ```
pub fn redact(params: &[Param], arguments: &Arguments, patterns: &[&str]) -> Map<String, Value> {
    redact_bound(&BoundValues::new(params, arguments), patterns)
}

/// Copies of the arguments of a call, by parameter name.
#[derive(Default)]
pub(crate) struct BoundValues(Vec<(&'static str, Option<Payload>)>);

impl BoundValues {
    pub(crate) fn new(params: &[Param], arguments: &Arguments) -> Self {
        let params = params.iter().enumerate();
        let value = |(index, param): (usize, &Param)| {
            (param.name, arguments.get(index, param.name).cloned())
        };
        Self(params.map(value).collect())
    }
}

/// Returns the values by parameter name, with those that match `patterns` redacted.
pub(crate) fn redact_bound(values: &BoundValues, patterns: &[&str]) -> Map<String, Value> {
    let values = values.0.iter();
    let values = values.map(|(name, value)| ((*name).to_owned(), json(value.as_ref())));
    let mut values = Value::Object(values.collect());
    for pattern in patterns {
        let mut steps = steps(pattern);
        // The first step is a parameter. A missing one is not added.
        if let Some(first) = steps.pop_front()
            && let Some(value) = values.get_mut(first)
        {
            blank(value, steps);
        }
    }
    match values {
        Value::Object(values) => values,
        _ => Map::new(),
    }
}

/// Returns an argument for logs; an omitted one is null.
fn json(value: Option<&Payload>) -> Value {
    let json = value.and_then(|value| value.to_json().ok());
    json.and_then(|json| serialization::approximate_value(json.get()))
        .unwrap_or_default()
}

/// Redacts the value at the path `steps`.
fn blank(value: &mut Value, mut steps: VecDeque<&str>) {
    let Some(step) = steps.pop_front() else {
        *value = REDACTED.into();
        return;
    };
    let part = match value {
        // As in Nameko, the last key is set even if it is absent.
        Value::Object(entries) if steps.is_empty() => {
            entries.insert(step.to_owned(), REDACTED.into());
            return;
        }
        Value::Object(entries) => entries.get_mut(step),
        Value::Array(items) => step
            .parse()
            .ok()
            .and_then(|index: usize| items.get_mut(index)),
        _ => None,
    };
    if let Some(part) = part {
        blank(part, steps);
    }
}

/// Splits a pattern into steps: `a.b[0]` and `a[b][0]` are `a`, `b`, `0`.
fn steps(pattern: &str) -> VecDeque<&str> {
    pattern
        .split(|character: char| !(character.is_alphanumeric() || character == '_'))
        .filter(|step| !step.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const A_B: &[Param] = &[Param::required("a"), Param::optional("b")];

    fn call(args: Value, kwargs: Value) -> Arguments {
        Arguments::from_json(&args.to_string(), &kwargs.to_string()).unwrap()
    }

    /// Source: `TestGetRedactedArgs` of Nameko 2.14.1.
    #[test]
    fn whole_arguments_are_redacted_as_in_nameko() {
        let cases: [(&[&str], Value); 4] = [
            (&[], json!({"a": "A", "b": "B"})),
            (&["a"], json!({"a": REDACTED, "b": "B"})),
            (&["a", "b"], json!({"a": REDACTED, "b": REDACTED})),
            (&["c"], json!({"a": "A", "b": "B"})),
        ];
        for (patterns, expected) in cases {
            let arguments = call(json!(["A", "B"]), json!({}));
            assert_eq!(json!(redact(A_B, &arguments, patterns)), expected);
        }
    }

    /// Source: `TestGetRedactedArgs` of Nameko 2.14.1.
    #[test]
    fn positional_and_named_arguments_are_redacted() {
        for (args, kwargs) in [
            (json!(["A", "B"]), json!({})),
            (json!(["A"]), json!({"b": "B"})),
            (json!([]), json!({"a": "A", "b": "B"})),
        ] {
            let shown = redact(A_B, &call(args, kwargs), &["a"]);
            assert_eq!(json!(shown), json!({"a": REDACTED, "b": "B"}));
        }
    }

    /// Source: `TestGetRedactedArgs` of Nameko 2.14.1; the last ones cover behaviour of its code
    /// that it does not test.
    #[test]
    fn parts_of_arguments_are_redacted_as_in_nameko() {
        let cases: [(&[&str], Value); 10] = [
            (&["b.foo"], json!({"foo": REDACTED, "bar": "BAR"})),
            (
                &["b.foo[0]"],
                json!({"foo": [REDACTED, 2, 3], "bar": "BAR"}),
            ),
            (&["b.not_a_key[0]"], json!({"foo": [1, 2, 3], "bar": "BAR"})),
            (&["b.foo[999]"], json!({"foo": [1, 2, 3], "bar": "BAR"})),
            (
                &["a.not_a_dictionary"],
                json!({"foo": [1, 2, 3], "bar": "BAR"}),
            ),
            (
                &["b.foo[0]", "b.foo[2]", "b.bar"],
                json!({"foo": [REDACTED, 2, REDACTED], "bar": REDACTED}),
            ),
            (
                &["b[foo][1]"],
                json!({"foo": [1, REDACTED, 3], "bar": "BAR"}),
            ),
            (
                &["b.new"],
                json!({"foo": [1, 2, 3], "bar": "BAR", "new": REDACTED}),
            ),
            (&["b.foo.bar"], json!({"foo": [1, 2, 3], "bar": "BAR"})),
            (&["", ".", "[]"], json!({"foo": [1, 2, 3], "bar": "BAR"})),
        ];
        for (patterns, expected) in cases {
            let arguments = call(json!(["A", {"foo": [1, 2, 3], "bar": "BAR"}]), json!({}));
            let shown = redact(A_B, &arguments, patterns);
            assert_eq!(
                json!(shown),
                json!({"a": "A", "b": expected}),
                "{patterns:?}"
            );
        }
    }

    /// Unlike in Nameko, which stops at an index before the end of the pattern.
    #[test]
    fn a_pattern_may_continue_after_an_index() {
        let arguments = call(json!([[{"number": 1}, {"number": 2}]]), json!({}));
        let shown = redact(A_B, &arguments, &["a[1].number"]);
        assert_eq!(
            json!(shown),
            json!({"a": [{"number": 1}, {"number": REDACTED}], "b": null})
        );
    }

    #[test]
    fn arguments_without_a_parameter_are_not_shown() {
        let arguments = call(json!(["A", "B", "secret"]), json!({"passwort": "secret"}));
        let shown = redact(A_B, &arguments, &["password"]);
        assert_eq!(json!(shown), json!({"a": "A", "b": "B"}));
    }
}
