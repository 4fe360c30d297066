//! Deserialization of the arguments of exceptions from Python's text form.
//!
//! Nameko sends the leaves of the arguments as text: `17` as `"17"`, `None` as `"None"`. The target
//! type decides what a text means.

use serde::{
    Deserializer,
    de::{
        DeserializeOwned, Error as _, IntoDeserializer, Visitor,
        value::{MapAccessDeserializer, MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};
use serde_json::{Error, Map, Value};

/// Deserializes an argument whose leaves are text.
pub(crate) fn read<T: DeserializeOwned>(argument: &Value) -> Result<T, Error> {
    T::deserialize(Argument::from(argument))
}

/// An argument, or a part of it.
#[derive(Clone, Copy)]
enum Argument<'a> {
    Text(&'a str),
    List(&'a [Value]),
    Map(&'a Map<String, Value>),
    /// A value that is not in the text form.
    Other(&'a Value),
}

impl<'a> From<&'a Value> for Argument<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::String(text) => Self::Text(text),
            Value::Array(items) => Self::List(items),
            Value::Object(entries) => Self::Map(entries),
            other => Self::Other(other),
        }
    }
}

impl<'a> Argument<'a> {
    fn is_none(self) -> bool {
        matches!(self, Self::Text("None") | Self::Other(Value::Null))
    }

    fn entries(
        entries: &'a Map<String, Value>,
    ) -> MapDeserializer<'a, impl Iterator<Item = (Self, Self)>, Error> {
        MapDeserializer::new(
            entries
                .iter()
                .map(|(key, value)| (Self::Text(key), Self::from(value))),
        )
    }
}

impl<'a> IntoDeserializer<'a, Error> for Argument<'a> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Parses text as a number of the target's kind.
macro_rules! numbers {
    ($($method:ident: $number:ty => $visit:ident;)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self {
                Self::Text(text) => match text.parse::<$number>() {
                    Ok(number) => visitor.$visit(number),
                    Err(_) => visitor.visit_str(text),
                },
                other => other.deserialize_any(visitor),
            }
        }
    )* };
}

impl<'de> Deserializer<'de> for Argument<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Text(text) => visitor.visit_borrowed_str(text),
            Self::List(items) => {
                let mut items = SeqDeserializer::new(items.iter().map(Self::from));
                let value = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(value)
            }
            Self::Map(entries) => {
                let mut entries = Self::entries(entries);
                let value = visitor.visit_map(&mut entries)?;
                entries.end()?;
                Ok(value)
            }
            Self::Other(value) => value.deserialize_any(visitor),
        }
    }

    numbers! {
        deserialize_i8: i64 => visit_i64;
        deserialize_i16: i64 => visit_i64;
        deserialize_i32: i64 => visit_i64;
        deserialize_i64: i64 => visit_i64;
        deserialize_i128: i128 => visit_i128;
        deserialize_u8: u64 => visit_u64;
        deserialize_u16: u64 => visit_u64;
        deserialize_u32: u64 => visit_u64;
        deserialize_u64: u64 => visit_u64;
        deserialize_u128: u128 => visit_u128;
        deserialize_f32: f64 => visit_f64;
        deserialize_f64: f64 => visit_f64;
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Text("True") => visitor.visit_bool(true),
            Self::Text("False") => visitor.visit_bool(false),
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.is_none() {
            true => visitor.visit_none(),
            false => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.is_none() {
            true => visitor.visit_unit(),
            false => self.deserialize_any(visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_unit(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Self::Text(name) => visitor.visit_enum(name.into_deserializer()),
            Self::Map(entries) => {
                visitor.visit_enum(MapAccessDeserializer::new(Self::entries(entries)))
            }
            _ => Err(Error::custom(
                "expected the name of a variant, or a map with it",
            )),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf seq tuple tuple_struct map struct identifier
    }
}
