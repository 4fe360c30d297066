//! Tests of configuration texts, with a table of environment variables.

use proptest::prelude::*;
use serde_json::json;

use std::ffi::OsString;

use serde_json::Value;

use super::ConfigError;
use super::yaml::load;

type Variables<'a> = &'a [(&'a str, &'a str)];

fn read(text: &str, vars: Variables<'_>) -> Result<Value, ConfigError> {
    let lookup = |name: &str| {
        vars.iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| OsString::from(value))
    };
    load(text, "config.yaml", &lookup).map(|document| Value::Object(document.entries))
}

#[test]
fn environment_variables_are_substituted_as_by_upstream() {
    let ints = [("INT_1", "1"), ("INT_2", "2")];
    let list = json!({"FOO": [1, 2, 3]});
    let table: &[(&str, Variables<'_>, Value)] = &[
        ("FOO: ${BAR:}", &[], json!({"FOO": null})),
        ("FOO: ${BAR:foo}", &[], json!({"FOO": "foo"})),
        ("FOO: ${BAR}", &[("BAR", "bar")], json!({"FOO": "bar"})),
        ("FOO: ${BAR:foo}", &[("BAR", "bar")], json!({"FOO": "bar"})),
        (
            "FOO: \"${BAR:foo}\"",
            &[("BAR", "bar")],
            json!({"FOO": "${BAR:foo}"}),
        ),
        ("FOO: '${BAR:foo}'", &[], json!({"FOO": "${BAR:foo}"})),
        (
            "FOO: !env_var \"${BAR:foo}\"",
            &[("BAR", "bar")],
            json!({"FOO": "bar"}),
        ),
        (
            "FOO: !raw_env_var \"${BAR}\"",
            &[("BAR", "123.0")],
            json!({"FOO": "123.0"}),
        ),
        (
            "FOO: !raw_env_var ${BAR}",
            &[("BAR", "a: b # c")],
            json!({"FOO": "a: b # c"}),
        ),
        ("FOO: $bar", &[], json!({"FOO": "$bar"})),
        (
            "FOO: http://${BAR:foo}/${FOO:bar}",
            &[("BAR", "bar"), ("FOO", "foo")],
            json!({"FOO": "http://bar/foo"}),
        ),
        (
            "FOO:\n  - BAR: ${INT:1}\n  - BAR: ${FLOAT:1.1}\n  - BAR: ${BOOL:True}",
            &[],
            json!({"FOO": [{"BAR": 1}, {"BAR": 1.1}, {"BAR": true}]}),
        ),
        (
            "FOO: [\"a\", 1]\nBAR: ${INT} \nBAZ: ${QUOTED}",
            &[("INT", "5672"), ("QUOTED", "\"1\"")],
            json!({"FOO": ["a", 1], "BAR": 5672, "BAZ": "1"}),
        ),
        ("FOO: ${INT:\"1\"}", &[], json!({"FOO": "1"})),
        (
            "FOO: !env_var \"'${INT}'\"",
            &[("INT", "1")],
            json!({"FOO": "1"}),
        ),
        ("FOO: !env_var 12", &[], json!({"FOO": "12"})),
        (
            "FOO:\n - ${INT_1}\n - ${INT_2}",
            &ints,
            json!({"FOO": [1, 2]}),
        ),
        ("FOO: ${LIST}", &[("LIST", "[1,2,3]")], list.clone()),
        ("FOO: ${LIST}", &[("LIST", "- 1\n- 2\n- 3")], list.clone()),
        (
            "FOO: !env_var \"${LIST}\"",
            &[("LIST", "[1,2,3]")],
            list.clone(),
        ),
        ("FOO: ${LIST:[1,2,3]}", &[], list),
        (
            "FOO: ${LIST}",
            &[("LIST", "[1, ['a', 'b']]")],
            json!({"FOO": [1, ["a", "b"]]}),
        ),
        (
            "FOO: ${DICT}",
            &[("DICT", "{'one': 1, 'two': 2}")],
            json!({"FOO": {"one": 1, "two": 2}}),
        ),
        (
            "FOO: ${DICT}",
            &[("DICT", "one: 1\ntwo: 2")],
            json!({"FOO": {"one": 1, "two": 2}}),
        ),
        (
            "FOO: ${VAR1}",
            &[("VAR1", "${VAR1}")],
            json!({"FOO": "${VAR1}"}),
        ),
        ("FOO: ${A}", &[("A", "${B}"), ("B", "3")], json!({"FOO": 3})),
        (
            "FOO: ${FOO:val_${INDICE:1}}",
            &[("FOO", "val_a")],
            json!({"FOO": "val_a"}),
        ),
        (
            "FOO: ${FOO:val_${INDICE:1}}",
            &[("INDICE", "b")],
            json!({"FOO": "val_b"}),
        ),
        (
            "FOO: ${FOO:val_${INDICE}}",
            &[("INDICE", "b")],
            json!({"FOO": "val_b"}),
        ),
        (
            "FOO: ${FOO:\"{name} {age}\"}",
            &[],
            json!({"FOO": "{name} {age}"}),
        ),
        (
            "FOO: ${FOO:\"{name} {age}\"}",
            &[("FOO", "\"{surname}\"")],
            json!({"FOO": "{surname}"}),
        ),
        ("${KEY}: 1", &[("KEY", "foo")], json!({"foo": 1})),
    ];
    for (text, vars, expected) in table {
        match read(text, vars) {
            Ok(value) => assert_eq!(value, *expected, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn yaml_is_parsed_as_by_pyyaml() {
    let table = [
        ("", json!({})),
        ("# nothing\n", json!({})),
        ("---\na: 1\n...\n", json!({"a": 1})),
        ("a: |\n  x\n  y\n", json!({"a": "x\ny\n"})),
        ("a: >\n  x\n  y\n", json!({"a": "x y\n"})),
        ("a: x\n  y", json!({"a": "x y"})),
        (
            "a: &it {x: 1}\nb: *it",
            json!({"a": {"x": 1}, "b": {"x": 1}}),
        ),
        (
            "base: &base {x: 1, y: 2}\nmine:\n  <<: *base\n  y: 3",
            json!({"base": {"x": 1, "y": 2}, "mine": {"y": 3, "x": 1}}),
        ),
        (
            "a:\n  <<: [{x: 1}, {x: 2, y: 2}]",
            json!({"a": {"x": 1, "y": 2}}),
        ),
        (
            "1: a\ntrue: b\n~: c",
            json!({"1": "a", "true": "b", "null": "c"}),
        ),
        (
            "a: !!str 1\nb: !!int 2\nc: !!float 3\nd: ! 4",
            json!({"a": "1", "b": 2, "c": 3.0, "d": "4"}),
        ),
        ("a:\nb: ''\nc: \"\"", json!({"a": null, "b": "", "c": ""})),
    ];
    for (text, expected) in table {
        match read(text, &[]) {
            Ok(value) => assert_eq!(value, expected, "{text}"),
            Err(error) => panic!("{text}: {error}"),
        }
    }
}

#[test]
fn errors_have_a_position_and_a_reason() {
    let deep = "[".repeat(100);
    let table: &[(&str, Variables<'_>, &str)] = &[
        (
            "a: 1\nb: ${MISSING}",
            &[],
            "config.yaml:2:4: the environment variable MISSING is not set",
        ),
        ("a: [1, 2", &[], "config.yaml:2:1: this is not YAML: "),
        ("a: b: c", &[], "config.yaml:1:"),
        (
            "- 1\n- 2",
            &[],
            "config.yaml:1:1: the file must hold `KEY: value` lines, not a list",
        ),
        (
            "just text",
            &[],
            "config.yaml:1:1: the file must hold `KEY: value` lines",
        ),
        (
            "a: 1\na: 2",
            &[],
            "config.yaml:2:1: the key `a` is duplicated here",
        ),
        (
            "a: 1\n---\nb: 1",
            &[],
            "config.yaml:2:1: a second document begins here",
        ),
        (
            "a: !!python/object:os.system x",
            &[],
            "config.yaml:1:4: unknown tag `tag:yaml.org",
        ),
        (
            "a: !thing {b: 1}",
            &[],
            "config.yaml:1:4: unknown tag `!thing`",
        ),
        (
            "a: 99999999999999999999",
            &[],
            "config.yaml:1:4: the number 99999999999999999999 does not fit",
        ),
        ("[1]: 2", &[], "config.yaml:1:1: a key must be text"),
        ("a: {<<: 3}", &[], "config.yaml:1:9: `<<` takes a mapping"),
        (
            "\na: ${A}",
            &[("A", "[1")],
            "config.yaml:2:4: this is not YAML",
        ),
        (
            "\na: ${A}",
            &[("A", "x${A}")],
            "config.yaml:2:4: the environment variables here refer to each other",
        ),
        (
            &deep,
            &[],
            "config.yaml:1:65: collections are nested more than 64 levels",
        ),
        ("a: &x [*x]", &[], "config.yaml:1:8: "),
    ];
    for (text, vars, expected) in table {
        match read(text, vars) {
            Ok(value) => panic!("{text} was read as {value}"),
            Err(error) => assert!(error.to_string().starts_with(expected), "{text}: {error}"),
        }
    }
}

#[test]
fn nested_aliases_are_limited() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let before = format!("*a{}, ", level - 1).repeat(10);
        text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    assert!(read(&text, &[]).is_err());
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*", value in "\\PC*") {
        let _ = read(&text, &[("A", &value)]);
    }

    #[test]
    fn arbitrary_yaml_like_text_never_panics(text in "[-a1:{}\\[\\]\"'&*!|>#%@`,?$~<. \n\t\\\\]{0,60}", value in "[-a1:{}\\[\\]\"'&*!${A} \n]{0,20}") {
        let _ = read(&text, &[("a", &value), ("A", &value)]);
        let _ = read(&format!("a: {text}"), &[("a", &value), ("A", &value)]);
    }
}
