//! Environment variables in configuration text: `${NAME}`, `${NAME:default}`, nested defaults.

use std::ffi::OsString;

/// Source of environment variables: the process, or a table in a test.
pub(super) type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The text after a substitution.
#[derive(Debug, PartialEq)]
pub(super) struct Substituted {
    pub(super) text: String,
    /// Names of variables that are not set and have no default. They are empty.
    pub(super) unset: Vec<String>,
}

/// The value of this variable is not UTF-8.
#[derive(Debug, PartialEq)]
pub(super) struct NotText(pub(super) String);

/// Returns `true` if a plain scalar may hold a reference: `${` followed by a `}`.
pub(super) fn may_hold_reference(text: &str) -> bool {
    text.split_once("${")
        .is_some_and(|(_, rest)| rest.contains('}'))
}

/// Substitutes environment variables. One that is not set and has no default is empty, as in
/// Python.
///
/// Defaults are substituted recursively, values of variables are not. Malformed references (`${}`,
/// `${A B}`, no closing brace) are left unchanged.
pub(super) fn substitute(text: &str, lookup: Lookup<'_>) -> Result<Substituted, NotText> {
    let mut out = String::with_capacity(text.len());
    let mut unset = Vec::new();
    // The remaining pieces in reverse order. A default is parsed like the text around it.
    let mut pieces = vec![text];
    while let Some(piece) = pieces.pop() {
        let Some(start) = piece.find("${") else {
            out.push_str(piece);
            continue;
        };
        let (before, reference) = piece.split_at(start);
        out.push_str(before);
        match parse(reference) {
            None => {
                out.push_str("${");
                pieces.push(&reference[2..]);
            }
            Some(Reference {
                name,
                default,
                after,
            }) => {
                pieces.push(after);
                match (lookup(name), default) {
                    (Some(value), _) => {
                        let value = value.into_string().map_err(|_| NotText(name.into()))?;
                        out.push_str(&value);
                    }
                    (None, Some(default)) => pieces.push(default),
                    (None, None) => unset.push(name.into()),
                }
            }
        }
    }
    Ok(Substituted { text: out, unset })
}

struct Reference<'a> {
    name: &'a str,
    default: Option<&'a str>,
    after: &'a str,
}

/// Parses the reference at the start of `text`, which begins with `${`.
fn parse(text: &str) -> Option<Reference<'_>> {
    let body = text.strip_prefix("${")?;
    let end = body.find(|c: char| matches!(c, '{' | '}' | ':') || c.is_whitespace())?;
    let (name, rest) = body.split_at(end);
    if name.is_empty() {
        return None;
    }
    if let Some(after) = rest.strip_prefix('}') {
        return Some(Reference {
            name,
            default: None,
            after,
        });
    }
    let rest = rest.strip_prefix(':')?;
    let mut open = 0usize;
    for (at, c) in rest.char_indices() {
        match c {
            '{' => open += 1,
            '}' if open == 0 => {
                return Some(Reference {
                    name,
                    default: Some(&rest[..at]),
                    after: &rest[at + 1..],
                });
            }
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    type Variables<'a> = &'a [(&'a str, &'a str)];

    fn with(vars: Variables<'_>, text: &str) -> Substituted {
        substitute(text, &|name| {
            vars.iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| OsString::from(v))
        })
        .expect("all variables are text")
    }

    #[test]
    fn references_are_replaced() {
        let table: &[(Variables<'_>, &str, &str)] = &[
            (&[], "raw", "raw"),
            (&[], "$bar", "$bar"),
            (&[("A", "x")], "${A}", "x"),
            (&[], "${A:d}", "d"),
            (&[], "${A:}", ""),
            (&[("A", "")], "${A:d}", ""),
            (&[("A", "1"), ("B", "2")], "${A:x}_${B:y}", "1_2"),
            (&[], "${A:my-{template}-x}", "my-{template}-x"),
            (&[], "${A:my-${B:1}-x}", "my-1-x"),
            (&[("B", "b")], "${A:my-${B}-x}", "my-b-x"),
            (&[], "${A:${B:${C:3}}}", "3"),
            (&[("A", "${A}")], "${A}", "${A}"),
            (&[("A", "x")], "${A:${MISSING}}", "x"),
            (&[], "${}", "${}"),
            (&[], "${A B}", "${A B}"),
            (&[], "${A", "${A"),
            (&[], "${A:{}", "${A:{}"),
            (&[("B", "b")], "${A:x${B}", "${A:xb"),
            (&[("É", "é")], "<${É}>", "<é>"),
        ];
        for (vars, text, expected) in table {
            assert_eq!(with(vars, text).text, *expected, "{text}");
        }
    }

    #[test]
    fn a_variable_without_value_and_default_is_empty_and_named() {
        for (text, expected, name) in [("<${A}>", "<>", "A"), ("${A:x_${B}}", "x_", "B")] {
            let Substituted { text, unset } = with(&[], text);
            assert_eq!((text.as_str(), unset), (expected, vec![name.to_owned()]));
        }
        assert_eq!(with(&[], "${A:}").unset, [""; 0]);
    }
}
