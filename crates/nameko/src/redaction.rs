//! Sensitive arguments, blanked out before they are shown.

use std::collections::VecDeque;

use serde_json::{Map, Value};

use crate::arguments::{Arguments, Param};

/// What stands for a value that is not shown.
pub const REDACTED: &str = "********";

/// The arguments of a call by the names of the method's parameters, with those that `patterns` name blanked out.
///
/// A pattern is a parameter's name, and the way from there to a part of its value: `password`, `user.token`,
/// `cards[0].number`. What a pattern does not find is left alone. A parameter that the caller left out is null, and an
/// argument that no parameter takes is not shown at all.
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
    let mut values = Map::new();
    for (index, param) in params.iter().enumerate() {
        let value = arguments.value(index, param.name);
        values.insert(param.name.to_owned(), value);
    }
    let mut values = Value::Object(values);
    for pattern in patterns {
        let mut steps = steps(pattern);
        // The first step is a parameter: one that the method does not have is not made up.
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

/// Blanks out what the steps lead to.
fn blank(value: &mut Value, mut steps: VecDeque<&str>) {
    let Some(step) = steps.pop_front() else {
        *value = REDACTED.into();
        return;
    };
    let part = match value {
        // As in Nameko, the last key is set even where it is absent.
        Value::Object(entries) if steps.is_empty() => {
            entries.insert(step.to_owned(), REDACTED.into());
            return;
        }
        Value::Object(entries) => entries.get_mut(step),
        Value::Array(items) => step.parse().ok().and_then(|it: usize| items.get_mut(it)),
        _ => None,
    };
    if let Some(part) = part {
        blank(part, steps);
    }
}

/// The words of a pattern: `a.b[0]` and `a[b][0]` are `a`, `b`, `0`.
fn steps(pattern: &str) -> VecDeque<&str> {
    pattern
        .split(|it: char| !(it.is_alphanumeric() || it == '_'))
        .filter(|it| !it.is_empty())
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
    fn whole_arguments_as_nameko_does_it() {
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

    /// Source: as above.
    #[test]
    fn however_they_were_passed() {
        for (args, kwargs) in [
            (json!(["A", "B"]), json!({})),
            (json!(["A"]), json!({"b": "B"})),
            (json!([]), json!({"a": "A", "b": "B"})),
        ] {
            let shown = redact(A_B, &call(args, kwargs), &["a"]);
            assert_eq!(json!(shown), json!({"a": REDACTED, "b": "B"}));
        }
    }

    /// Source: as above; the last ones are ours, for what upstream's code does beyond its tests.
    #[test]
    fn parts_of_arguments_as_nameko_does_it() {
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

    /// Nameko stops at an index that is not the pattern's end.
    #[test]
    fn an_index_may_lead_further() {
        let arguments = call(json!([[{"number": 1}, {"number": 2}]]), json!({}));
        let shown = redact(A_B, &arguments, &["a[1].number"]);
        assert_eq!(
            json!(shown),
            json!({"a": [{"number": 1}, {"number": REDACTED}], "b": null})
        );
    }

    #[test]
    fn what_no_parameter_takes_is_not_shown() {
        let arguments = call(json!(["A", "B", "secret"]), json!({"passwort": "secret"}));
        let shown = redact(A_B, &arguments, &["password"]);
        assert_eq!(json!(shown), json!({"a": "A", "b": "B"}));
    }
}
