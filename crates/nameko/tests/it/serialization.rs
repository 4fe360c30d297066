//! JSON exchange with Python peers: same text, same values.

use nameko::serialization::{Error, from_slice, from_str, python, standard, to_raw, to_vec};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A JSON value, including Python's non-finite numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Tree {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    Map(Vec2Map),
}

/// An ordered map.
#[derive(Clone, Debug)]
struct Vec2Map(Vec<(String, Tree)>);

impl Serialize for Vec2Map {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

impl<'de> Deserialize<'de> for Vec2Map {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Vec2Map;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a map")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(
                self,
                mut map: A,
            ) -> Result<Vec2Map, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Vec2Map(entries))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

fn text<T: Serialize + ?Sized>(value: &T) -> String {
    String::from_utf8(to_vec(value).expect("has a JSON form")).expect("JSON is UTF-8")
}

/// `python_json.txt` holds one value per line, output of `json.dumps`, Python 3.11.
#[test]
fn output_of_python_round_trips() {
    for line in include_str!("../data/python_json.txt").lines() {
        let tree: Tree = from_str(line).expect(line);
        assert_eq!(text(&tree), line);
        let raw: Box<RawValue> = to_raw(&tree).expect(line);
        assert_eq!(python(raw.get()), line);
        let again: Tree = from_str(raw.get()).expect(line);
        assert_eq!(text(&again), line);
        if !line.contains("NaN") && !line.contains("Infinity") {
            let value: Value = from_str(line).expect(line);
            assert_eq!(text(&value), line);
        }
    }
}

#[test]
fn typed_values_are_written_as_by_python() {
    #[derive(Serialize)]
    enum Shape {
        Unit,
        New(f64),
        Pair(u8, f32),
        Named { x: f64 },
    }
    #[derive(Serialize)]
    struct Wrapper(f64);
    #[derive(Serialize)]
    struct Unit;
    let nan = f64::NAN;
    assert_eq!(
        text(&(1u8, -1i64, 'é', Some(1.0), None::<u8>, ())),
        r#"[1, -1, "\u00e9", 1.0, null, null]"#
    );
    assert_eq!(
        text(&[Shape::Unit, Shape::New(nan)]),
        r#"["Unit", {"New": NaN}]"#
    );
    assert_eq!(
        text(&Shape::Pair(1, f32::INFINITY)),
        r#"{"Pair": [1, Infinity]}"#
    );
    assert_eq!(
        text(&Shape::Named { x: -f64::INFINITY }),
        r#"{"Named": {"x": -Infinity}}"#
    );
    assert_eq!(text(&(Wrapper(nan), Unit, Some(nan))), "[NaN, null, NaN]");
    assert_eq!(text(&0.1f32), "0.1");
    assert_eq!(
        text(&std::collections::BTreeMap::from([(1, 1.5), (2, nan)])),
        r#"{"1": 1.5, "2": NaN}"#
    );
    assert_eq!(
        text(&(u128::MAX, i128::MIN)),
        format!("[{}, {}]", u128::MAX, i128::MIN)
    );
    assert_eq!(
        text(&json!({"b": 1, "a": "NaN"})),
        r#"{"b": 1, "a": "NaN"}"#
    );
}

#[test]
fn non_finite_numbers_deserialize_into_floats_only() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Point {
        x: f64,
        y: Option<f32>,
        z: Vec<f64>,
    }
    #[derive(Debug, Deserialize, PartialEq)]
    enum Shape {
        Unit,
        New(f64),
        Named { x: f64 },
    }
    let point: Point =
        from_slice(br#"{"x": -Infinity, "y": Infinity, "z": [1, NaN, 2.5]}"#).expect("a point");
    assert_eq!((point.x, point.y), (f64::NEG_INFINITY, Some(f32::INFINITY)));
    assert!(point.z[1].is_nan() && point.z[0] == 1.0 && point.z[2] == 2.5);
    let shapes: Vec<Shape> =
        from_str(r#"["Unit", {"New": Infinity}, {"Named": {"x": -Infinity}}]"#).expect("shapes");
    assert_eq!(
        shapes,
        [
            Shape::Unit,
            Shape::New(f64::INFINITY),
            Shape::Named {
                x: f64::NEG_INFINITY
            }
        ]
    );
    let map: std::collections::BTreeMap<i32, f64> = from_str(r#"{"1": Infinity}"#).expect("a map");
    assert_eq!(map[&1], f64::INFINITY);
    assert_eq!(
        from_str::<(String, u8, bool)>(r#"["NaN", 1, true]"#).expect("no token"),
        ("NaN".into(), 1, true)
    );
    let error = from_str::<Vec<i64>>("[1, NaN]")
        .expect_err("no integer")
        .to_string();
    assert!(
        error.contains("floating point `NaN`, expected i64"),
        "{error}"
    );
    let error = from_str::<(String, f64)>("[NaN, NaN]")
        .expect_err("no text")
        .to_string();
    assert!(error.contains("expected a string"), "{error}");
}

/// A value of any type, beside others.
#[derive(Debug, Deserialize)]
struct Mixed {
    #[allow(dead_code, reason = "only its deserialization matters")]
    value: Value,
    wide: u128,
    float: f64,
}

#[test]
fn a_value_never_silently_changes_a_number() {
    let huge = u128::MAX;
    for (text, named) in [
        ("NaN".to_owned(), "NaN"),
        ("[1, {\"a\": -Infinity}]".to_owned(), "-Infinity"),
        (
            "340282366920938463463374607431768211456".to_owned(),
            "340282366920938463463374607431768211456",
        ),
        (
            "[[-9223372036854775809]]".to_owned(),
            "-9223372036854775809",
        ),
        (
            "{\"a\": 18446744073709551616}".to_owned(),
            "18446744073709551616",
        ),
        (
            format!("[\"{}\", {huge}]", "x".repeat(40)),
            "340282366920938463463374607431768211455",
        ),
    ] {
        let error = from_str::<Value>(&text).expect_err(&text).to_string();
        assert!(
            error.contains(named) && error.contains("Payload"),
            "{error}"
        );
        let error = from_str::<Vec<Option<Value>>>(&format!("[null, {text}]")).expect_err(&text);
        assert!(error.to_string().contains(named), "{error}");
        let fields = format!("{{\"value\": {text}, \"wide\": {huge}, \"float\": NaN}}");
        let error = from_str::<Mixed>(&fields).expect_err(&text);
        assert!(error.to_string().contains("cannot hold"), "{error}");
    }
    // Other fields may hold such numbers.
    let fields = format!("{{\"value\": [1.5, 1], \"wide\": {huge}, \"float\": NaN}}");
    let mixed: Mixed = from_str(&fields).expect("fields");
    assert!(mixed.wide == huge && mixed.float.is_nan());
    for text in [
        "18446744073709551615",
        "-9223372036854775808",
        "1e300",
        "1.8446744073709552e19",
        "0.1234567890123456789012345",
        "\"340282366920938463463374607431768211456\"",
    ] {
        let value: Value = from_str(text).expect(text);
        assert_eq!(value, serde_json::from_str::<Value>(text).expect(text));
    }
}

#[cfg(feature = "msgpack")]
#[test]
fn a_value_of_messagepack_never_silently_changes_a_number() {
    use nameko::{amqp::Properties, prelude::Config, serialization::Codec};

    let codec = Codec::of(&Config::default().with("serializer", "msgpack")).expect("a codec");
    for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let encoded = codec.encode(&(1, [float])).expect("a body");
        let properties = Properties {
            content_type: Some(encoded.content_type),
            content_encoding: Some(encoded.content_encoding),
            ..Properties::default()
        };
        let payload = codec
            .decode(&properties, &encoded.body.into())
            .expect("a payload");
        let error = payload.read::<Value>().expect_err("no JSON").to_string();
        assert!(
            error.contains("cannot hold") && error.contains("Payload"),
            "{error}"
        );
        let (_, [read]): (u8, [f64; 1]) = payload.read().expect("floats");
        assert_eq!(read.to_bits(), float.to_bits());
    }
}

#[test]
fn raw_parts_of_a_message_keep_non_finite_numbers() {
    #[derive(Deserialize)]
    struct Request<'a> {
        #[serde(borrow)]
        args: Vec<&'a RawValue>,
    }
    let text = standard(r#"{"args": [[NaN], "x"], "kwargs": {}}"#).expect("JSON");
    let request: Request<'_> = serde_json::from_str(&text).expect("a request");
    let first: Vec<f64> = from_str(request.args[0].get()).expect("floats");
    assert!(first[0].is_nan());
    assert_eq!(request.args[1].get(), "\"x\"");
}

#[test]
fn serialization_errors_are_descriptive() {
    let read = |text: &[u8]| from_slice::<Value>(text).map_err(|error| error.to_string());
    let table: &[(&[u8], &str)] = &[
        (
            b"",
            "the JSON can't be read: EOF while parsing a value at line 1 column 0",
        ),
        (b"{\"a\": 1", "the JSON can't be read: EOF"),
        (b"\"\\ud800\"", "lone surrogate"),
        (b"\"\\udc00x\"", "lone surrogate"),
        (b"\xff", "it is not UTF-8 text"),
        (b"nan", "the JSON can't be read"),
        (b"[NaNa]", "the JSON can't be read"),
        (
            b"[NaN, 1.797693134862303e308]",
            "too close to the largest one",
        ),
        (
            b"[NaN, 17976931348623030e292]",
            "too close to the largest one",
        ),
    ];
    for (text, expected) in table {
        match read(text) {
            Ok(value) => panic!("read as {value}"),
            Err(error) => assert!(error.contains(expected), "{error}"),
        }
    }
    let deep = "[".repeat(100_000);
    assert!(read(deep.as_bytes()).is_err());
    assert!(from_str::<i64>("1180591620717411303424").is_err());
    let error: Error =
        to_vec(&std::collections::BTreeMap::from([((1, 2), 3)])).expect_err("no key");
    assert!(
        error.is_write() && error.to_string().contains("key must be a string"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn values_round_trip(
        floats in prop::collection::vec(any::<f64>(), 0..4),
        words in prop::collection::vec(any::<String>(), 0..4),
        numbers in any::<(i64, u64, f32, bool, Option<char>)>(),
    ) {
        type Values = (Vec<f64>, Vec<String>, (i64, u64, f32, bool, Option<char>));
        let value: Values = (floats, words, numbers);
        let text = text(&value);
        prop_assert!(text.is_ascii());
        let (floats, words, numbers): Values = from_str(&text)?;
        prop_assert_eq!(&words, &value.1);
        let bits = |all: &[f64]| all.iter().map(|number| if number.is_nan() { 0 } else { number.to_bits() }).collect::<Vec<_>>();
        prop_assert_eq!(bits(&floats), bits(&value.0));
        prop_assert_eq!((numbers.0, numbers.1, numbers.3, numbers.4), (value.2.0, value.2.1, value.2.3, value.2.4));
        prop_assert!(numbers.2 == value.2.2 || numbers.2.is_nan() && value.2.2.is_nan());
    }

    #[test]
    fn arbitrary_text_never_panics(text in any::<String>(), like in "[\\[\\]{}\",:NaInfity0-9.eE+\\\\ud-]{0,40}") {
        for text in [text, like] {
            let _ = from_str::<Value>(&text);
            let _ = from_str::<Vec<f64>>(&text);
            if let Ok(inner) = standard(&text) {
                let outer = python(&inner);
                prop_assert_eq!(outer.as_ref(), text.as_str());
            }
        }
    }
}
