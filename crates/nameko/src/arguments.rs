//! The arguments of a call: as received, and bound to the parameters of a method.
//!
//! Binding follows the rules of Python's `inspect.getcallargs` and has its error messages, which
//! callers expect.

use std::{any::Any, fmt, vec};

use serde::{
    Serialize,
    de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    error::{Error, Result},
    extractor::Origin,
    serialization::{self, Payload},
};

/// Maximum number of positional, and of named, arguments that are kept. No method has more
/// parameters, and a small message can contain very many arguments.
const MAX_ARGUMENTS: usize = 256;

/// A parameter of an entrypoint method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Param {
    /// Name for callers: parameter names are part of the wire protocol.
    pub name: &'static str,
    /// Whether callers may omit the argument. True for parameters of type `Option`.
    pub optional: bool,
}

impl Param {
    /// Creates a required parameter.
    pub const fn required(name: &'static str) -> Self {
        Self {
            name,
            optional: false,
        }
    }

    /// Creates an optional parameter.
    pub const fn optional(name: &'static str) -> Self {
        Self {
            name,
            optional: true,
        }
    }
}

/// The unbound arguments of a call: positional and named ones, not deserialized.
#[derive(Debug, Default)]
pub struct Arguments {
    positional: Vec<Payload>,
    /// Number of positional arguments in excess of [`MAX_ARGUMENTS`].
    more: usize,
    /// Of duplicate names the last one counts, as in Python. Not deduplicated before binding, since
    /// a peer may send very many.
    named: Vec<(String, Payload)>,
    /// The value that parameters are extracted from instead, by type.
    origin: Option<Box<dyn Any + Send>>,
}

impl Arguments {
    /// Creates an empty list of arguments.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates arguments that are extracted from a value by the types of the parameters, such as an
    /// HTTP request. [`Args::origin`] returns the value.
    pub fn from_origin(origin: impl Any + Send) -> Self {
        Self {
            origin: Some(Box::new(origin)),
            ..Self::default()
        }
    }

    /// Adds a positional argument.
    ///
    /// # Errors
    /// [`Error::Serialization`] if JSON cannot represent the value.
    pub fn arg(mut self, value: impl Serialize) -> Result<Self> {
        self.positional.push(Payload::of(&value)?);
        Ok(self)
    }

    /// Adds a positional argument from a message.
    #[must_use]
    pub fn payload(mut self, payload: Payload) -> Self {
        self.positional.push(payload);
        self
    }

    /// Adds a named argument.
    ///
    /// # Errors
    /// [`Error::Serialization`] if JSON cannot represent the value.
    pub fn kwarg(mut self, name: impl Into<String>, value: impl Serialize) -> Result<Self> {
        self.named.push((name.into(), Payload::of(&value)?));
        Ok(self)
    }

    /// Parses the `args` and `kwargs` of a JSON request. As in Python, `args` may be a string or an
    /// object, which is iterated by characters or keys.
    pub(crate) fn from_json(args: &str, kwargs: &str) -> Result<Self> {
        let (positional, more) = match args.as_bytes().first() {
            Some(b'[') => {
                let list: List = serde_json::from_str(args).map_err(not_json)?;
                (list.kept, list.more)
            }
            Some(b'"') => {
                let text: String = serde_json::from_str(args).map_err(not_json)?;
                payloads(text.chars())?
            }
            Some(b'{') => {
                let object: Named = serde_json::from_str(args).map_err(not_json)?;
                payloads(object.0.iter().map(|(key, _)| key))?
            }
            _ => {
                return Err(Error::IncorrectSignature(format!(
                    "`args` must be a list, not {}",
                    serialization::json_kind(args)
                )));
            }
        };
        let named: Named = match kwargs.as_bytes().first() {
            Some(b'{') => serde_json::from_str(kwargs).map_err(not_json)?,
            _ => {
                return Err(Error::IncorrectSignature(format!(
                    "`kwargs` must be a mapping, not {}",
                    serialization::json_kind(kwargs)
                )));
            }
        };
        Ok(Self {
            positional,
            more,
            named: named.0,
            origin: None,
        })
    }

    /// Returns `true` if the parameters are extracted from an origin, so that there are no
    /// arguments to show.
    pub(crate) fn has_origin(&self) -> bool {
        self.origin.is_some()
    }

    /// Returns the value passed to [`from_origin`](Self::from_origin).
    pub(crate) fn origin_mut(&mut self) -> Option<&mut Origin> {
        self.origin.as_deref_mut()
    }

    /// Returns the argument of the parameter at `index`.
    pub(crate) fn get(&self, index: usize, name: &str) -> Option<&Payload> {
        let named = || self.named.iter().rfind(|pair| pair.0 == name);
        self.positional
            .get(index)
            .or_else(|| named().map(|pair| &pair.1))
    }

    /// Like [`from_json`](Self::from_json), for all other formats.
    #[cfg(feature = "msgpack")]
    pub(crate) fn from_message_pack(args: &Payload, kwargs: &Payload) -> Result<Self> {
        use crate::serialization::Parts;

        let (positional, more) = match (args.parts(), args.kind()) {
            (Parts::List(items), _) => first(items),
            (Parts::Map(pairs), _) => first(pairs.map(|(key, _)| key)),
            (Parts::Other, "text") => payloads(args.read::<String>()?.chars())?,
            (Parts::Other, kind) => {
                return Err(Error::IncorrectSignature(format!(
                    "`args` must be a list, not {kind}"
                )));
            }
        };
        let Parts::Map(pairs) = kwargs.parts() else {
            return Err(Error::IncorrectSignature(format!(
                "`kwargs` must be a mapping, not {}",
                kwargs.kind()
            )));
        };
        let mut named = Vec::new();
        for (key, value) in pairs.take(MAX_ARGUMENTS + 1) {
            let Ok(key) = key.read::<String>() else {
                return Err(Error::IncorrectSignature(
                    "keywords must be strings".to_owned(),
                ));
            };
            named.push((key, value));
        }
        Ok(Self {
            positional,
            more,
            named,
            origin: None,
        })
    }

    /// Binds the arguments to the parameters of the method `name`.
    ///
    /// # Errors
    /// [`Error::IncorrectSignature`] with Python's message, in which `self` counts as a parameter.
    pub fn bind(self, name: &'static str, params: &'static [Param]) -> Result<Args> {
        let wrong = |text: String| Err(Error::IncorrectSignature(format!("{name}() {text}")));
        let given = self.positional.len() + self.more;
        let mut values: Vec<Option<Payload>> = self
            .positional
            .into_iter()
            .take(params.len())
            .map(Some)
            .collect();
        values.resize_with(params.len(), || None);
        let named = self.named.len();
        for (key, value) in self.named {
            let Some(index) = params.iter().position(|param| param.name == key) else {
                return wrong(format!("got an unexpected keyword argument '{key}'"));
            };
            if index < given {
                return wrong(format!("got multiple values for argument '{key}'"));
            }
            values[index] = Some(value);
        }
        if named > MAX_ARGUMENTS {
            return wrong(format!("got more than {MAX_ARGUMENTS} keyword arguments"));
        }
        if given > params.len() {
            return wrong(too_many(params, given));
        }
        let missing: Vec<_> = params
            .iter()
            .zip(&values)
            .filter(|(param, value)| !param.optional && value.is_none())
            .map(|(param, _)| param.name)
            .collect();
        if !missing.is_empty() && self.origin.is_none() {
            return wrong(missing_text(&missing));
        }
        Ok(Args {
            method: name,
            params: params.iter(),
            values: values.into_iter(),
            origin: self.origin,
        })
    }
}

fn too_many(params: &[Param], given: usize) -> String {
    let most = params.len() + 1;
    let least = most - params.iter().filter(|param| param.optional).count();
    let takes = if least < most {
        format!("from {least} to {most}")
    } else {
        most.to_string()
    };
    let plural = if takes == "1" { "" } else { "s" };
    format!(
        "takes {takes} positional argument{plural} but {} were given",
        given + 1
    )
}

fn missing_text(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("'{name}'")).collect();
    let plural = if names.len() == 1 { "" } else { "s" };
    let list = match quoted.as_slice() {
        [head @ .., last] if !head.is_empty() => format!("{} and {last}", head.join(", ")),
        _ => quoted.concat(),
    };
    format!(
        "missing {} required positional argument{plural}: {list}",
        names.len()
    )
}

/// Splits off the first [`MAX_ARGUMENTS`] values, and counts the others.
fn first<T>(mut values: impl Iterator<Item = T>) -> (Vec<T>, usize) {
    let kept = values.by_ref().take(MAX_ARGUMENTS).collect();
    (kept, values.count())
}

fn payloads<T: Serialize>(values: impl Iterator<Item = T>) -> Result<(Vec<Payload>, usize)> {
    let (kept, more) = first(values);
    let kept = kept.iter().map(|value| Ok(Payload::of(value)?));
    Ok((kept.collect::<Result<_>>()?, more))
}

fn not_json(error: serde_json::Error) -> Error {
    Error::MalformedRequest(format!("request is not valid JSON: {error}"))
}

/// The bound arguments of a call, taken one by one in the order of the parameters.
#[derive(Debug)]
pub struct Args {
    method: &'static str,
    params: std::slice::Iter<'static, Param>,
    values: vec::IntoIter<Option<Payload>>,
    origin: Option<Box<dyn Any + Send>>,
}

impl Args {
    /// Returns the value passed to [`Arguments::from_origin`], if it is a `T`.
    pub fn origin<T: Any>(&mut self) -> Option<&mut T> {
        self.origin.as_mut()?.downcast_mut()
    }

    /// Returns the argument of the next parameter. An omitted one is deserialized from `null`.
    ///
    /// # Errors
    /// [`Error::IncorrectSignature`] if it is not a `T`, with the method, the parameter and the
    /// value found.
    pub fn take<T: Argument>(&mut self) -> Result<T> {
        let name = self.params.next().map_or("", |param| param.name);
        let value = self.values.next().flatten().unwrap_or_else(Payload::null);
        T::from_payload(value).map_err(|error| {
            let mut text = format!("{}() argument '{name}': {error}", self.method);
            // The message quotes the value, which may be long.
            shorten(&mut text);
            Error::IncorrectSignature(text)
        })
    }
}

/// A parameter type of entrypoint methods: any owned type that implements `serde::Deserialize`.
///
/// A `serde_json::Value` accepts any value except those that it cannot hold: NaN and infinities of
/// Python's JSON, and integers that take more than 64 bits. A [`Payload`] is any value, not
/// deserialized.
#[diagnostic::on_unimplemented(
    message = "an entrypoint cannot take `{Self}` as an argument",
    label = "this type cannot be read from a message",
    note = "an argument is an owned type that implements `serde::Deserialize`: derive it on your own types",
    note = "a `RawMessage` must be the only argument of a `#[consume]` or `#[event_handler]` method"
)]
pub trait Argument: Sized + Send + 'static {
    /// Deserializes the value.
    ///
    /// # Errors
    /// [`Error::Serialization`] if the value is not of this type.
    fn from_payload(payload: Payload) -> Result<Self>;
}

impl<T: serde::de::DeserializeOwned + Send + 'static> Argument for T {
    fn from_payload(payload: Payload) -> Result<Self> {
        // A parameter of type `Payload` receives it unchanged.
        let mut payload = Some(payload);
        if let Some(unread) = (&mut payload as &mut dyn Any).downcast_mut::<Option<T>>()
            && let Some(unread) = unread.take()
        {
            return Ok(unread);
        }
        let payload = payload.unwrap_or_else(Payload::null);
        payload.read().map_err(Error::from)
    }
}

/// The first items of a JSON array, and the number of further ones.
#[derive(Default)]
struct List {
    kept: Vec<Payload>,
    more: usize,
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Items;

        impl<'de> Visitor<'de> for Items {
            type Value = List;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(
                self,
                mut items: A,
            ) -> std::result::Result<List, A::Error> {
                let mut list = List::default();
                while list.kept.len() < MAX_ARGUMENTS
                    && let Some(item) = items.next_element::<Box<RawValue>>()?
                {
                    list.kept.push(Payload::json(item));
                }
                while items.next_element::<IgnoredAny>()?.is_some() {
                    list.more += 1;
                }
                Ok(list)
            }
        }

        deserializer.deserialize_seq(Items)
    }
}

/// A JSON object as a list of pairs, in the order of the text.
struct Named(Vec<(String, Payload)>);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut map: A,
            ) -> std::result::Result<Named, A::Error> {
                let mut pairs = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    // One more than the maximum, to detect an excess.
                    if pairs.len() <= MAX_ARGUMENTS {
                        pairs.push((key, Payload::json(value)));
                    }
                }
                Ok(Named(pairs))
            }
        }

        deserializer.deserialize_map(Pairs)
    }
}

/// Maximum size in bytes of a text with arguments in logs and errors.
const MAX_SHOWN_BYTES: usize = 1024;

/// Truncates a text with arguments for a log or an error.
pub(crate) fn shorten(text: &mut String) {
    let end = text.floor_char_boundary(MAX_SHOWN_BYTES);
    if end < text.len() {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[Param] = &[Param::required("name")];
    const TWO: &[Param] = &[Param::required("a"), Param::required("b")];
    const THREE: &[Param] = &[
        Param::required("a"),
        Param::required("b"),
        Param::required("c"),
    ];
    const DEFAULT: &[Param] = &[Param::required("a"), Param::optional("b")];
    const NONE: &[Param] = &[];

    /// Source of the messages: `inspect.getcallargs(f, None, *args, **kwargs)` of CPython 3.11.
    #[test]
    fn binding_errors_have_the_messages_of_python() {
        for (params, args, kwargs, expected) in [
            (
                NAME,
                "[]",
                "{}",
                "f() missing 1 required positional argument: 'name'",
            ),
            (
                TWO,
                "[]",
                "{}",
                "f() missing 2 required positional arguments: 'a' and 'b'",
            ),
            (
                THREE,
                "[]",
                "{}",
                "f() missing 3 required positional arguments: 'a', 'b' and 'c'",
            ),
            (
                NAME,
                "[1, 2]",
                "{}",
                "f() takes 2 positional arguments but 3 were given",
            ),
            (
                NONE,
                "[1]",
                "{}",
                "f() takes 1 positional argument but 2 were given",
            ),
            (
                DEFAULT,
                "[1, 2, 3]",
                "{}",
                "f() takes from 2 to 3 positional arguments but 4 were given",
            ),
            (
                NAME,
                "[]",
                r#"{"nome": 1}"#,
                "f() got an unexpected keyword argument 'nome'",
            ),
            (
                NAME,
                "[1]",
                r#"{"name": 1}"#,
                "f() got multiple values for argument 'name'",
            ),
            (NAME, "null", "{}", "`args` must be a list, not null"),
            // The value is not quoted: it may be long or secret.
            (NAME, "2", "{}", "`args` must be a list, not a number"),
            (
                NAME,
                "[]",
                r#"["hunter2"]"#,
                "`kwargs` must be a mapping, not a list",
            ),
            (
                NAME,
                "[]",
                r#""hunter2""#,
                "`kwargs` must be a mapping, not text",
            ),
            (
                NAME,
                "[]",
                "true",
                "`kwargs` must be a mapping, not a boolean",
            ),
        ] {
            let error = Arguments::from_json(args, kwargs)
                .and_then(|arguments| arguments.bind("f", params))
                .unwrap_err();
            assert!(matches!(error, Error::IncorrectSignature(_)));
            assert_eq!(error.to_string(), expected);
        }
    }

    /// Peers may send any number of arguments.
    #[test]
    fn an_excess_of_arguments_is_rejected_without_being_stored() {
        let kwargs: Vec<_> = (0..100_000)
            .map(|index| format!("\"k{index}\": 1"))
            .collect();
        let kwargs = format!("{{{}}}", kwargs.join(", "));
        let args = format!("[{}1]", "1, ".repeat(100_000));
        let many = "f() takes 3 positional arguments but 100002 were given";
        let unexpected = "f() got an unexpected keyword argument 'k0'";
        let same = format!("{{{}\"a\": 1}}", "\"a\": 1, ".repeat(100_000));
        for (args, kwargs, expected) in [
            ("[]", &*kwargs, unexpected),
            ("[]", &*same, "f() got more than 256 keyword arguments"),
            (&*args, "{}", many),
        ] {
            #[cfg_attr(not(feature = "msgpack"), expect(unused_mut))]
            let mut read = vec![Arguments::from_json(args, kwargs)];
            #[cfg(feature = "msgpack")]
            // A map of `serde_json` has unique keys.
            if kwargs != same {
                let packed = |text: &str| {
                    let json: serde_json::Value = serde_json::from_str(text).unwrap();
                    Payload::packed(&json).unwrap()
                };
                read.push(Arguments::from_message_pack(&packed(args), &packed(kwargs)));
            }
            for arguments in read {
                let arguments = arguments.unwrap();
                assert!(
                    arguments.positional.len() <= MAX_ARGUMENTS
                        && arguments.named.len() <= MAX_ARGUMENTS + 1
                );
                assert_eq!(arguments.bind("f", TWO).unwrap_err().to_string(), expected);
            }
        }
    }

    #[test]
    fn arguments_bind_by_position_and_by_name() {
        let mut args = Arguments::from_json("[1]", r#"{"b": "two"}"#)
            .and_then(|arguments| arguments.bind("f", TWO))
            .unwrap();
        assert_eq!(
            (args.take::<i64>().unwrap(), args.take::<String>().unwrap()),
            (1, "two".to_owned())
        );

        let mut args = Arguments::from_json(r#""z""#, "{}")
            .and_then(|arguments| arguments.bind("f", DEFAULT))
            .unwrap();
        assert_eq!(
            (
                args.take::<String>().unwrap(),
                args.take::<Option<i64>>().unwrap()
            ),
            ("z".to_owned(), None)
        );
    }

    #[test]
    fn an_error_about_a_wrong_type_names_the_argument() {
        let mut args = Arguments::from_json("[1]", "{}")
            .and_then(|arguments| arguments.bind("hello", NAME))
            .unwrap();
        let error = args.take::<String>().unwrap_err().to_string();
        assert!(error.starts_with("hello() argument 'name': "), "{error}");
        assert!(error.contains("expected a string"), "{error}");
    }

    #[test]
    fn an_error_about_a_long_argument_is_short() {
        let long = format!(r#"["{}"]"#, "ü".repeat(1_000_000));
        let mut args = Arguments::from_json(&long, "{}")
            .and_then(|arguments| arguments.bind("hello", NAME))
            .unwrap();
        let error = args.take::<u8>().unwrap_err().to_string();
        assert!(error.starts_with("hello() argument 'name': invalid type: string \"üü"));
        assert!(error.len() < 2000, "{}", error.len());
        assert!(error.ends_with('…'));
    }
}
