//! Tests of configuration texts, with a table of environment variables.

use proptest::prelude::*;
use serde_json::json;

use std::collections::HashMap;
use std::ffi::OsString;

use serde::Deserialize;
use serde_json::Value;

use super::yaml::load;
use super::{Config, ConfigError};

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

/// The cases of `python/tests/test_config.py`.
#[test]
fn a_file_has_the_same_meaning_in_python() {
    #[derive(Deserialize)]
    struct Case {
        text: String,
        #[serde(default)]
        environment: HashMap<String, String>,
        /// The value in Rust; `None` for an error.
        value: Option<Value>,
    }

    let cases = include_str!("../../tests/data/configurations.json");
    let cases: Vec<Case> = serde_json::from_str(cases).expect("cases");
    for case in cases {
        let Case {
            text,
            environment,
            value,
        } = &case;
        let lookup = |name: &str| environment.get(name).map(OsString::from);
        match (load(text, "config.yaml", &lookup), value) {
            (Ok(document), Some(value)) => {
                assert_eq!(Value::Object(document.entries), *value, "{text}");
            }
            (Ok(document), None) => panic!("{text} was read as {:?}", document.entries),
            (Err(error), Some(_)) => panic!("{text}: {error}"),
            (Err(_), None) => {}
        }
    }
}

#[test]
fn probable_mistakes_are_warnings_with_a_position() {
    let text = "a: 1\nb: x${NOT_SET_ANYWHERE}\na: 2\nmax_worker: 7\nmine: 1";
    let mut config = Config::from_yaml(text, "config.yaml").expect("a configuration");
    assert_eq!(config.get("a"), Some(&json!(2)));
    let unknown =
        "config.yaml:4:13: the unknown key `max_worker` has no effect; did you mean `max_workers`?";
    assert_eq!(
        config.warnings(),
        [
            "config.yaml:2:4: the environment variable NOT_SET_ANYWHERE is not set and has no default, \
             so it is empty; ${NOT_SET_ANYWHERE:} allows that",
            "config.yaml:3:1: the key `a` is duplicated here; its last value applies",
            unknown,
        ]
    );
    // Layers keep the warnings, and a key that is read belongs to a service.
    config.define("max-workers=8").expect("a definition");
    let layered = Config::new().with("x", 1);
    config.merge(&layered);
    assert_eq!(
        config.warnings()[3..],
        ["the unknown key `max-workers` has no effect; did you mean `max_workers`?"]
    );
    assert_eq!(config.int("max_worker").expect("a number"), Some(7));
    config.get("max-workers");
    assert_eq!(config.warnings().len(), 2);
}

#[test]
fn a_section_of_two_files_has_no_position() {
    let file = |text: &str, origin: &str| Config::from_yaml(text, origin).expect(text);
    let mut config = file("smtp: {port: 25}\nsize: 1", "base.yaml");
    config.merge(&file("smtp: {host: [1]}\nsize: x", "production.yaml"));
    let wrong = config.invalid("smtp", "is wrong").to_string();
    assert_eq!(wrong, "smtp is wrong");
    let wrong = config.int("size").expect_err("a text").to_string();
    assert!(
        wrong.starts_with("production.yaml:2:7: size must"),
        "{wrong}"
    );
}

#[test]
fn numbers_that_are_not_finite_are_read_as_floats() {
    let config = Config::from_yaml("a: .inf\nb: -.inf\nc: .nan\nd: x", "c.yaml").expect("YAML");
    let float = |key: &str| config.float(key).map(Option::unwrap_or_default);
    assert_eq!(float("a").expect("a number"), f64::INFINITY);
    assert_eq!(float("b").expect("a number"), f64::NEG_INFINITY);
    assert!(float("c").expect("a number").is_nan());
    assert!(float("d").is_err());
}

#[test]
fn errors_have_a_position_and_a_reason() {
    let deep = "[".repeat(100);
    let table: &[(&str, Variables<'_>, &str)] = &[
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
