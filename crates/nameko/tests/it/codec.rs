//! Message bodies in every format, without a broker.

use std::collections::BTreeMap;

use nameko::{
    Config,
    amqp::{Properties, Table},
    serialization::{self, Codec, Compression, Payload},
};
use proptest::prelude::*;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_bytes::ByteBuf;
use serde_json::{Value as Json, json};

#[test]
fn an_unregistered_format_is_a_configuration_error() {
    let config = |key: &str, value: Json| Config::default().with(key, value);
    for (config, text) in [
        (
            config("serializer", json!("yaml")),
            "serializer is not known: Please register a serializer for \"yaml\" format",
        ),
        (
            config("ACCEPT", json!(["json", "pickle"])),
            "ACCEPT is not known: Please register a serializer for \"pickle\" format",
        ),
        (
            config("SERIALIZERS", json!({"mine": {"encoder": "mine.dumps"}})),
            "SERIALIZERS is not known: Please register a serializer for \"mine\" format",
        ),
        (config("serializer", json!(1)), "serializer must be text"),
        (config("ACCEPT", json!("json")), "ACCEPT must be a list"),
        (config("ACCEPT", json!([1])), "ACCEPT lists 1"),
        (
            config("max_decompressed_size", json!(-1)),
            "max_decompressed_size must be",
        ),
    ] {
        let error = Codec::of(&config).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[test]
fn an_empty_body_is_reported_as_empty() {
    for name in ["json", "msgpack"] {
        let codec = Codec::named(name).unwrap();
        let mut encoded = codec.encode(&1).unwrap();
        encoded.body.clear();
        let properties = Properties {
            content_type: Some(encoded.content_type),
            ..Properties::default()
        };
        let error = codec.decode(&properties, &encoded.body.into());
        let error = error.unwrap_err();
        assert!(error.is_unreadable());
        assert!(error.to_string().contains("empty"), "{error}");
    }
}

/// Messages without a serializer, as kombu reads them.
#[test]
fn text_and_bytes_are_passed_unchanged() {
    let codec = Codec::of(&Config::default()).unwrap();
    let read = |content_type: Option<&'static str>, encoding: Option<&'static str>, body: &[u8]| {
        let properties = Properties {
            content_type: content_type.map(Into::into),
            content_encoding: encoding.map(Into::into),
            ..Properties::default()
        };
        codec.decode(&properties, &body.to_vec().into())
    };
    let text = |payload: Payload| payload.read::<String>().unwrap();
    for content_type in [None, Some("application/data"), Some("application/text")] {
        let latin = Some("iso-8859-1");
        assert_eq!(
            text(read(content_type, None, "grün".as_bytes()).unwrap()),
            "grün"
        );
        assert_eq!(text(read(content_type, Some("UTF-8"), b"x").unwrap()), "x");
        assert_eq!(text(read(content_type, latin, b"gr\xfcn").unwrap()), "grün");
        let bytes = read(content_type, Some("binary"), b"\xff\x00").unwrap();
        assert_eq!(bytes.read::<Vec<u8>>().unwrap(), [255, 0]);
        assert!(
            read(content_type, None, b"\xff")
                .unwrap_err()
                .is_unreadable()
        );
        assert!(
            read(content_type, Some("cp850"), b"x")
                .unwrap_err()
                .is_unreadable()
        );
    }

    let raw = Codec::named("raw").unwrap();
    let encoded = raw.encode("grün").unwrap();
    assert_eq!(encoded.body, "grün".as_bytes());
    assert_eq!(
        (&*encoded.content_type, &*encoded.content_encoding),
        ("application/data", "utf-8")
    );
    let encoded = raw.encode(&ByteBuf::from([255])).unwrap();
    assert_eq!(
        (&*encoded.body, &*encoded.content_encoding),
        (&[255][..], "binary")
    );
    assert!(raw.encode(&1).unwrap_err().is_write());
}

/// JSON published by other programs. The bodies are those of Python's `str.encode`.
#[test]
fn json_is_read_in_its_content_encoding() {
    let codec = Codec::of(&Config::default()).unwrap();
    let read = |encoding: &'static str, body: &[u8]| {
        let properties = Properties {
            content_type: Some("application/json".into()),
            content_encoding: Some(encoding.into()),
            ..Properties::default()
        };
        codec.decode(&properties, &body.to_vec().into())
    };
    for (encoding, body) in [
        ("latin-1", &b"\"caf\xe9\""[..]),
        ("ISO-8859-1", b"\"caf\xe9\""),
        ("iso_8859_15", b"\"caf\xe9\""),
        ("cp1252", b"\"caf\xe9\""),
        ("utf-16", b"\xff\xfe\"\0c\0a\0f\0\xe9\0\"\0"),
        ("utf-16", b"\xfe\xff\0\"\0c\0a\0f\0\xe9\0\""),
        ("utf-16", b"\"\0c\0a\0f\0\xe9\0\"\0"),
        ("utf-16-le", b"\"\0c\0a\0f\0\xe9\0\"\0"),
        ("UTF-16BE", b"\0\"\0c\0a\0f\0\xe9\0\""),
        ("utf-8-sig", b"\xef\xbb\xbf\"caf\xc3\xa9\""),
        ("utf-8-sig", b"\"caf\xc3\xa9\""),
        ("utf8", b"\"caf\xc3\xa9\""),
        ("binary", b"\"caf\xc3\xa9\""),
        ("", b"\"caf\xc3\xa9\""),
    ] {
        let text: String = read(encoding, body).unwrap().read().unwrap();
        assert_eq!(text, "café", "{encoding}");
    }
    for (encoding, body) in [("iso-8859-15", b"\"\xa4\""), ("cp1252", b"\"\x80\"")] {
        let text: String = read(encoding, body).unwrap().read().unwrap();
        assert_eq!(text, "€", "{encoding}");
    }
    for (encoding, body, problem) in [
        (
            "cp850",
            &b"\"\""[..],
            "`cp850` is not supported: send utf-8",
        ),
        ("utf-7", b"\"\"", "`utf-7` is not supported"),
        ("cp1252", b"\"\x81\"", "its body is not cp1252 text"),
        ("utf-16", b"\"\0\"", "its body is not utf-16 text"),
        ("utf-16-le", b"\0\xd8", "its body is not utf-16-le text"),
    ] {
        let error = read(encoding, body).unwrap_err();
        assert!(error.is_unreadable());
        assert!(error.to_string().contains(problem), "{error}");
    }
}

/// Output of the gzip tool is accepted too.
#[test]
fn gzip_files_and_zlib_streams_are_decompressed() {
    // Python: gzip.compress(b'"hello"', mtime=0), zlib.compress(b'"hello"')
    let file = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03S\xcaH\xcd\xc9\xc9W\x02\0\xb2\xce\x03w\x07\0\0\0";
    let stream = b"x\x9cS\xcaH\xcd\xc9\xc9W\x02\0\x09R\x02Y";
    let codec = Codec::of(&Config::default()).unwrap();
    let mut properties = Properties {
        content_type: Some("application/json".into()),
        ..Properties::default()
    };
    properties
        .headers
        .insert("compression", "application/x-gzip");
    for body in [&file[..], stream] {
        let payload = codec.decode(&properties, &body.to_vec().into()).unwrap();
        assert_eq!(payload.read::<String>().unwrap(), "hello");
    }
    let cut = codec.decode(&properties, &stream[..9].to_vec().into());
    assert!(cut.unwrap_err().is_unreadable());
}

#[test]
fn a_payload_reports_a_type_mismatch() {
    let payload: Payload = serialization::from_str("[1, 2]").unwrap();
    let error = payload.read::<Vec<bool>>().unwrap_err();
    assert!(error.to_string().contains("expected a boolean"), "{error}");
    assert!(!error.is_unreadable());
    let error = payload.read::<bool>().unwrap_err().to_string();
    assert!(error.contains("a list"), "{error}");

    let huge = Payload::of(&10_u128.pow(30)).unwrap();
    assert_eq!(
        huge.to_json().unwrap().get(),
        format!("1{}", "0".repeat(30))
    );
    let packed = Codec::named("msgpack").unwrap().encode(&huge);
    assert!(
        packed
            .unwrap_err()
            .to_string()
            .contains("more than 64 bits")
    );
}

/// A value of any serde type, including those that MessagePack has and JSON lacks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Mixed {
    bytes: ByteBuf,
    by_number: BTreeMap<i64, Option<bool>>,
    float: f64,
    text: Vec<String>,
    size: Option<u64>,
}

fn mixed() -> impl Strategy<Value = Mixed> {
    (
        prop::collection::vec(any::<u8>(), 0..40),
        prop::collection::btree_map(any::<i64>(), any::<Option<bool>>(), 0..4),
        any::<f64>().prop_filter("NaN is not itself", |number| !number.is_nan()),
        prop::collection::vec("\\PC{0,8}", 0..3),
        any::<Option<u64>>(),
    )
        .prop_map(|(bytes, by_number, float, text, size)| Mixed {
            bytes: bytes.into(),
            by_number,
            float,
            text,
            size,
        })
}

fn through<T: Serialize + DeserializeOwned>(codec: &Codec, value: &T) -> T {
    let encoded = codec.encode(value).unwrap();
    let properties = Properties {
        content_type: Some(encoded.content_type),
        ..Properties::default()
    };
    let payload = codec.decode(&properties, &encoded.body.into()).unwrap();
    payload.read().unwrap()
}

proptest! {
    #[test]
    fn packed_values_round_trip(value in mixed()) {
        let codec = Codec::named("msgpack").unwrap();
        prop_assert_eq!(&through(&codec, &value), &value);
        // Also through an undecoded payload.
        let payload = through::<Payload>(&codec, &serialization_of(&value));
        prop_assert_eq!(&payload.read::<Mixed>().unwrap(), &value);
    }

    #[test]
    fn arbitrary_bodies_never_panic(
        body in prop_oneof![any::<Vec<u8>>(), mixed().prop_map(|value| Codec::named("msgpack").unwrap().encode(&value).unwrap().body)],
        cut in any::<prop::sample::Index>(),
        flip in any::<(prop::sample::Index, u8)>(),
        content_type in prop::sample::select(&["application/json", "application/x-msgpack", "application/data"][..]),
        compression in prop::sample::select(&["", "gzip", "bzip2"][..]),
    ) {
        let codec = Codec::of(&Config::default().with("ACCEPT", vec!["json", "msgpack"])).unwrap();
        let mut body = body;
        if !body.is_empty() {
            let at = flip.0.index(body.len());
            body[at] ^= flip.1;
            body.truncate(cut.index(body.len()) + 1);
        }
        let mut headers = Table::new();
        headers.insert("compression", compression);
        let properties = Properties { content_type: Some(content_type.into()), headers, ..Properties::default() };
        if let Ok(payload) = codec.decode(&properties, &body.into()) {
            let _ = payload.read::<Mixed>();
            let _ = payload.read::<Json>();
            let _ = payload.to_json();
            let _ = codec.encode(&payload);
        }
    }

    #[test]
    fn truncated_bodies_are_rejected(value in mixed(), cut in any::<prop::sample::Index>()) {
        let codec = Codec::named("msgpack").unwrap();
        let mut encoded = codec.encode(&value).unwrap();
        encoded.body.truncate(cut.index(encoded.body.len()));
        let properties = Properties { content_type: Some(encoded.content_type), ..Properties::default() };
        prop_assert!(codec.decode(&properties, &encoded.body.into()).unwrap_err().is_unreadable());
    }

    #[test]
    fn compressed_bodies_round_trip(body in any::<Vec<u8>>(), compression in prop::sample::select(&[Compression::Gzip, Compression::Bzip2][..])) {
        let codec = Codec::named("raw").unwrap();
        let encoded = codec.encode(&ByteBuf::from(body.clone())).unwrap().compress(compression).unwrap();
        let mut headers = Table::new();
        headers.insert("compression", compression.content_type());
        let properties = Properties { content_encoding: Some("binary".into()), headers, ..Properties::default() };
        let payload = codec.decode(&properties, &encoded.body.into()).unwrap();
        prop_assert_eq!(payload.read::<Vec<u8>>().unwrap(), body);
    }
}

fn serialization_of(value: &Mixed) -> Payload {
    let codec = Codec::named("msgpack").unwrap();
    let encoded = codec.encode(value).unwrap();
    let properties = Properties {
        content_type: Some(encoded.content_type),
        ..Properties::default()
    };
    codec.decode(&properties, &encoded.body.into()).unwrap()
}
