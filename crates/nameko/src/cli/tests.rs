//! Tests of the parsers, as tables of text and meaning.

use proptest::prelude::*;

use clap::{Args, CommandFactory as _, Parser as _};

use super::arguments::{ConfigArguments, ServicesArguments};
use super::expression::{Call, Event, Line};
use super::literal::Literal;
use crate::runner::Services;
use crate::serialization;

/// Each row: the text, Python's `repr` of its value, the JSON sent to the service.
#[test]
fn literals_have_pythons_syntax() {
    let table = [
        ("None", "None", "null"),
        ("True", "True", "true"),
        (" False ", "False", "false"),
        ("0", "0", "0"),
        ("00", "0", "0"),
        ("-5", "-5", "-5"),
        ("+5", "5", "5"),
        ("- 5", "-5", "-5"),
        ("-0", "0", "0"),
        ("1_000", "1000", "1000"),
        ("0xFF", "255", "255"),
        ("0x_ff", "255", "255"),
        ("-0o17", "-15", "-15"),
        ("0b101", "5", "5"),
        (
            "1180591620717411303424",
            "1180591620717411303424",
            "1180591620717411303424",
        ),
        (
            "0xffffffffffffffffffffffffffffffff",
            "340282366920938463463374607431768211455",
            "340282366920938463463374607431768211455",
        ),
        ("1.5", "1.5", "1.5"),
        ("1.", "1.0", "1.0"),
        (".5", "0.5", "0.5"),
        ("-1e3", "-1000.0", "-1000.0"),
        ("1E+16", "1e+16", "1e+16"),
        ("1_0.2_5e-1_0", "1.025e-09", "1.025e-09"),
        ("1e999", "inf", "Infinity"),
        ("'x'", "'x'", "\"x\""),
        ("\"x\"", "'x'", "\"x\""),
        ("\"it's\"", "\"it's\"", "\"it's\""),
        (
            "'say \"it\\'s\"'",
            "'say \"it\\'s\"'",
            "\"say \\\"it's\\\"\"",
        ),
        ("''", "''", "\"\""),
        ("''''''", "''", "\"\""),
        ("'a' \"b\" '''c'''", "'abc'", "\"abc\""),
        ("'''a\nb'''", "'a\\nb'", "\"a\\nb\""),
        ("\"\"\"a\"b\"\"\"", "'a\"b'", "\"a\\\"b\""),
        ("r'\\d\\n'", "'\\\\d\\\\n'", "\"\\\\d\\\\n\""),
        ("R'\\''", "\"\\\\'\"", "\"\\\\'\""),
        ("u'é'", "'é'", "\"\\u00e9\""),
        ("'\\n\\t\\\\\\''", "\"\\n\\t\\\\'\"", "\"\\n\\t\\\\'\""),
        (
            "'\\x41\\u00e9\\U0001F600\\101\\0'",
            "'Aé😀A\\x00'",
            "\"A\\u00e9\\ud83d\\ude00A\\u0000\"",
        ),
        ("'\\q'", "'\\\\q'", "\"\\\\q\""),
        ("'a\\\nb'", "'ab'", "\"ab\""),
        (
            "'\u{a0}\u{200b}e\u{301}\u{e000}'",
            "'\\xa0\\u200be\u{301}\\ue000'",
            "\"\\u00a0\\u200be\\u0301\\ue000\"",
        ),
        ("[]", "[]", "[]"),
        (
            "[1, 'a', [None],]",
            "[1, 'a', [None]]",
            "[1, \"a\", [null]]",
        ),
        ("()", "()", "[]"),
        ("(1)", "1", "1"),
        ("(1,)", "(1,)", "[1]"),
        ("(1, (2, 3))", "(1, (2, 3))", "[1, [2, 3]]"),
        ("{}", "{}", "{}"),
        (
            "{'b': 1, 'a': {2: 3},}",
            "{'b': 1, 'a': {2: 3}}",
            "{\"b\": 1, \"a\": {\"2\": 3}}",
        ),
        (
            "{True: 1, None: 2, 1.5: 3}",
            "{True: 1, None: 2, 1.5: 3}",
            "{\"true\": 1, \"null\": 2, \"1.5\": 3}",
        ),
        (
            "{'a': 1, 'b': 2, 'a': 3}",
            "{'a': 3, 'b': 2}",
            "{\"a\": 3, \"b\": 2}",
        ),
        ("[1, # one\n 2]", "[1, 2]", "[1, 2]"),
        // JSON.
        (
            "{\"a\": [true, false, null, 1e5]}",
            "{'a': [True, False, None, 100000.0]}",
            "{\"a\": [true, false, null, 100000.0]}",
        ),
        (
            "[NaN, Infinity, -Infinity]",
            "[nan, inf, -inf]",
            "[NaN, Infinity, -Infinity]",
        ),
        (
            "\"\\u00e9\\ud83d\\ude00\\/\"",
            "'é😀/'",
            "\"\\u00e9\\ud83d\\ude00/\"",
        ),
    ];
    for (text, shown, sent) in table {
        let value = Literal::parse(text).unwrap_or_else(|fault| panic!("{}", fault.point_at(text)));
        assert_eq!(value.to_string(), shown, "{text}");
        let json = serialization::to_vec(&value).expect(text);
        assert_eq!(String::from_utf8_lossy(&json), sent, "{text}");
    }
}

/// Each row: the text, the column of the caret (starting at 1), the message.
#[test]
fn syntax_errors_have_a_position() {
    let table = [
        ("", 1, "expected a value"),
        ("[1 2]", 4, "expected `,` or `]`, not `2`"),
        ("[1,,2]", 4, "expected a value, not `,`"),
        ("[1", 3, "expected `,` or `]`"),
        ("(1]", 3, "expected `,` or `)`, not `]`"),
        ("{'a' 1}", 6, "expected `:`, not `1`"),
        (
            "{1, 2}",
            1,
            "sets cannot be sent: JSON has lists ([...]) and mappings ({key: value})",
        ),
        (
            "{[1]: 2}",
            2,
            "a key must be a string, a number, True, False or None",
        ),
        (
            "name",
            1,
            "`name` is not a value; text needs quotes: 'name'",
        ),
        ("[zoë]", 2, "`zoë` is not a value; text needs quotes: 'zoë'"),
        ("'abc", 1, "unterminated string: expected '"),
        (
            "'abc\n'",
            1,
            "unterminated string at the end of the line: expected ', or use '''",
        ),
        ("'''abc", 1, "unterminated string: expected '''"),
        ("'é\\x1'", 3, "expected 2 hexadecimal digits after this"),
        ("'\\ud800'", 2, "a lone surrogate is not a character"),
        ("'\\ud800\\u0041'", 2, "a lone surrogate is not a character"),
        ("'\\U00110000'", 2, "invalid character code"),
        (
            "'\\N{BULLET}'",
            2,
            "named characters are not supported here: write the character itself, or \\uXXXX",
        ),
        (
            "b'x'",
            1,
            "bytes cannot be sent: JSON has only text; encode them (for example as base64)",
        ),
        (
            "f'{x}'",
            1,
            "f-strings are not supported here: write the text itself",
        ),
        (
            "12abc",
            1,
            "`12abc` is not a number; text needs quotes: '12abc'",
        ),
        (
            "012",
            1,
            "`012`: leading zeros are not allowed; octal numbers are written 0o12",
        ),
        (
            "1__0",
            1,
            "`1__0` is not a number; text needs quotes: '1__0'",
        ),
        ("0x", 1, "`0x` is not a number"),
        ("2j", 1, "complex numbers cannot be sent: JSON has none"),
        ("-", 1, "expected a number"),
        (
            "*x",
            1,
            "`*` is not supported here: write the arguments out",
        ),
        ("1 2", 3, "expected the end of the line, not `2`"),
    ];
    for (text, column, message) in table {
        let fault = Literal::parse(text).expect_err(text);
        let first_line = text.lines().next().unwrap_or_default();
        let expected = format!(
            "  {first_line}\n  {}^\nSyntaxError: {message}",
            " ".repeat(column - 1)
        );
        assert_eq!(fault.point_at(text), expected);
    }
}

#[test]
fn only_open_brackets_and_long_strings_continue_a_line() {
    for text in [
        "n.rpc.s.m(",
        "n.rpc.s.m([1,\n",
        "n.rpc.s.m(x=",
        "n.rpc.s.m('''a\nb",
        "n.rpc.s.m(1, {'a':",
        "n.rpc[",
        "n.rpc.s.m(r'''\\",
    ] {
        assert!(Line::parse(text).expect_err(text).is_incomplete(), "{text}");
    }
    for text in [
        "n.rpc.s",
        "n.rpc.s.m",
        "n.rpc.s.m('a",
        "n.rpc.s.m(1]",
        "n.",
        "x",
        "n.rpc.s.m(1) 2",
        "n.rpc.s.m(x",
    ] {
        let fault = Line::parse(text);
        assert!(
            text == "n.rpc.s.m(x" || !fault.expect_err(text).is_incomplete(),
            "{text}"
        );
    }
}

#[test]
fn lines_are_parsed() {
    let call = |args: &[&str], kwargs: &[(&str, &str)]| {
        let literal = |text: &&str| Literal::parse(text).expect(text);
        Line::Call(Call {
            service: "hello_service".into(),
            method: "hello".into(),
            args: args.iter().map(literal).collect(),
            kwargs: kwargs
                .iter()
                .map(|(key, text)| ((*key).into(), literal(text)))
                .collect(),
        })
    };
    let event = |data: &str| {
        Line::Event(Event {
            service: "shop".into(),
            event_type: "paid".into(),
            data: Literal::parse(data).expect(data),
        })
    };
    let table = [
        ("", Line::Empty),
        (
            "n.dispatch_event('shop', 'paid', {'id': 1})",
            event("{'id': 1}"),
        ),
        (
            " n . dispatch_event (\n 'shop', event_data = None, event_type='paid', ) # told",
            event("None"),
        ),
        ("  # a comment", Line::Empty),
        ("n.rpc.hello_service.hello()", call(&[], &[])),
        (
            "n.rpc.hello_service.hello(name='zq')",
            call(&[], &[("name", "'zq'")]),
        ),
        (
            " n . rpc [ 'hello_service' ] . hello ( 1, 2.5, None, True, 'x', [1], {'a': 1}, (2,), name = 'zq', b=2, ) ",
            call(
                &["1", "2.5", "None", "True", "'x'", "[1]", "{'a': 1}", "(2,)"],
                &[("name", "'zq'"), ("b", "2")],
            ),
        ),
        (
            "n.rpc.hello_service.hello(\n  1,\n  name='zq'  # who\n)",
            call(&["1"], &[("name", "'zq'")]),
        ),
        (
            "n.rpc['hello_service']['hello'](from=1)",
            call(&[], &[("from", "1")]),
        ),
        (
            "print(n.rpc.hello_service.hello(1))",
            match call(&["1"], &[]) {
                Line::Call(call) => Line::Print(call),
                other => other,
            },
        ),
        ("n.config", Line::Config(None)),
        (
            "n.config['AMQP_URI']",
            Line::Config(Some("AMQP_URI".into())),
        ),
        ("n", Line::Help),
        ("help", Line::Help),
        ("help()", Line::Help),
        ("exit()", Line::Exit),
        ("quit", Line::Exit),
    ];
    for (text, expected) in table {
        match Line::parse(text) {
            Ok(line) => assert_eq!(line, expected, "{text}"),
            Err(fault) => panic!("{}", fault.point_at(text)),
        }
    }
}

#[test]
fn invalid_lines_are_syntax_errors() {
    let table = [
        (
            "n.rpc.hello_service",
            20,
            "expected `.` and a method: hello_service.method(...)",
        ),
        ("n.rpc.hello_service.hello", 26, "expected `(`"),
        ("n.rpc.", 7, "expected a service: n.rpc.service.method(...)"),
        (
            "n.rpc.1x.y()",
            7,
            "expected a service: n.rpc.service.method(...), not `1`",
        ),
        (
            "n.rpc.s.m.call_async()",
            10,
            "expected `(`: methods are called directly",
        ),
        (
            "n.rpc.s.m(name='a', 2)",
            21,
            "expected `name=value`: a positional argument follows a keyword argument",
        ),
        ("n.rpc.s.m(a=1, a=2)", 16, "the argument `a` is given twice"),
        (
            "n.rpc.s.m(*a)",
            11,
            "`*` is not supported here: write the arguments out",
        ),
        (
            "n.rpc.s.m(name=zq)",
            16,
            "`zq` is not a value; text needs quotes: 'zq'",
        ),
        (
            "n.rpc.s.m() + 1",
            13,
            "expected the end of the line, not `+`",
        ),
        ("n.rpc[1].m()", 7, "expected a name in quotes"),
        (
            "n.rcp.s.m()",
            3,
            "`n` has `rpc`, `dispatch_event` and `config`, not `rcp`",
        ),
        (
            "n.dispatch_event('shop', 'paid')",
            32,
            "expected the data of the event: n.dispatch_event('service', 'type', data)",
        ),
        (
            "n.dispatch_event(event_data=1)",
            30,
            "expected the name of a service: n.dispatch_event('service', 'type', data)",
        ),
        (
            "n.dispatch_event('shop', 17, 1)",
            26,
            "expected the type of the event, in quotes",
        ),
        (
            "n.dispatch_event(service_name=shop)",
            31,
            "`shop` is not a value; text needs quotes: 'shop'",
        ),
        (
            "n.dispatch_event('shop', 'paid', 1, 2)",
            37,
            "`dispatch_event` takes only service_name, event_type, event_data",
        ),
        (
            "n.dispatch_event('shop', 'paid', data=1)",
            34,
            "`dispatch_event` takes only service_name, event_type, event_data",
        ),
        (
            "n.dispatch_event('shop', service_name='shop')",
            26,
            "the argument `service_name` is given twice",
        ),
        ("n.dispatch_event", 17, "expected `(`"),
        (
            "print(n.dispatch_event('shop', 'paid', 1))",
            7,
            "expected a call: print(n.rpc.service.method(...))",
        ),
        (
            "print(1)",
            7,
            "expected a call: print(n.rpc.service.method(...))",
        ),
        (
            "x = 1",
            1,
            "this shell makes calls, like n.rpc.service.method('text', 1, key=True); see `help`",
        ),
    ];
    for (text, column, message) in table {
        let fault = Line::parse(text).expect_err(text);
        assert_eq!(
            fault.point_at(text),
            format!(
                "  {text}\n  {}^\nSyntaxError: {message}",
                " ".repeat(column - 1)
            )
        );
    }
    let text = "n.rpc.s.m(1,\n  oops)";
    assert!(
        Line::parse(text)
            .expect_err(text)
            .point_at(text)
            .starts_with("    oops)\n    ^\n")
    );
}

#[test]
fn deep_nesting_is_a_syntax_error() {
    let deep = "[".repeat(100_000);
    assert!(!Literal::parse(&deep).expect_err("too deep").is_incomplete());
}

#[test]
fn arguments_of_a_command_line_are_literals_or_bare_words() {
    let mut call = Call::parse("hello_service.hello()").expect("a call");
    for argument in [
        "1",
        "zq",
        "hello world",
        "'quoted'",
        "[1, 2]",
        "{\"a\": null}",
        "-1.5",
        "name=zq",
        "n=5",
        "t='x=1'",
        "é=ü",
        "u=amqp://x",
    ] {
        call.argument(argument)
            .unwrap_or_else(|(fault, text)| panic!("{}", fault.point_at(&text)));
    }
    let args: Vec<_> = call.args.iter().map(ToString::to_string).collect();
    assert_eq!(
        args,
        [
            "1",
            "'zq'",
            "'hello world'",
            "'quoted'",
            "[1, 2]",
            "{'a': None}",
            "-1.5"
        ]
    );
    let kwargs: Vec<_> = call
        .kwargs
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    assert_eq!(
        kwargs,
        ["name='zq'", "n=5", "t='x=1'", "é='ü'", "u='amqp://x'"]
    );
    for argument in ["[1, 2", "'open", "1.2.3", "x={'a'", "name=again", "b'x'"] {
        assert!(call.argument(argument).is_err(), "{argument}");
    }
}

#[test]
fn the_command_line_accepts_calls_in_shell_syntax() {
    for text in [
        "hello_service.hello('zq')",
        "n.rpc.hello_service.hello('zq')",
        "n.rpc['hello_service'].hello('zq')",
    ] {
        let call = Call::parse(text).expect(text);
        assert_eq!(
            (call.service.as_str(), call.method.as_str(), call.args.len()),
            ("hello_service", "hello", 1)
        );
    }
}

fn any_literal() -> impl Strategy<Value = Literal> {
    let leaf = prop_oneof![
        Just(Literal::None),
        any::<bool>().prop_map(Literal::Bool),
        any::<i128>().prop_map(|number| Literal::Int(number.to_string())),
        any::<f64>()
            .prop_filter("not a literal in Python", |number| number.is_finite())
            .prop_map(Literal::Float),
        any::<String>().prop_map(Literal::Text),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            items.clone().prop_map(Literal::List),
            items.prop_map(Literal::Tuple),
            prop::collection::btree_map(any::<String>(), inner, 0..4).prop_map(|entries| {
                Literal::Dict(
                    entries
                        .into_iter()
                        .map(|(key, value)| (Literal::Text(key), value))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn printed_values_parse_to_the_same_value(value in any_literal()) {
        let text = value.to_string();
        match Literal::parse(&text) {
            Ok(again) => prop_assert_eq!(&again, &value),
            Err(fault) => prop_assert!(false, "{}", fault.point_at(&text)),
        }
        let json = String::from_utf8(serialization::to_vec(&value)?)?;
        prop_assert!(Literal::parse(&json).is_ok(), "{}", json);
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), like in "[n.rpc(){}\\[\\]'\"=,:*\\\\xuU0-9eE_ \n#ré-]{0,40}") {
        for text in [text, like.clone(), format!("n.rpc.s.m({like}")] {
            for fault in [Literal::parse(&text).err(), Line::parse(&text).err(), Call::parse(&text).err()].into_iter().flatten() {
                prop_assert!(fault.point_at(&text).contains('^'));
            }
            let _ = Call::default().argument(&text);
        }
    }
}

#[tokio::test]
async fn main_in_a_runtime_is_an_error_that_names_its_async_twin() {
    let arguments = ServicesArguments::parse_from(["program", "show-config"]);
    let outcome = arguments.command.run_to_end(&Services::new());
    let error = outcome.expect_err("an error").to_string();
    assert!(error.contains("cannot be called inside one"), "{error}");
    assert!(
        error.contains("nameko::main_async(services).await"),
        "{error}"
    );
}

#[test]
fn flattened_arguments_keep_the_description_of_the_command() {
    /// Migrates
    #[derive(clap::Parser)]
    struct Migrate {
        #[command(flatten)]
        _config: ConfigArguments,
        #[command(flatten)]
        _more: More,
    }

    #[derive(Args)]
    struct More {
        #[arg(long)]
        _more: bool,
    }

    let command = Migrate::command();
    let about = command.get_about().expect("a description").to_string();
    assert_eq!(about, "Migrates");
    assert!(command.get_long_about().is_none());
}
