//! Deserialization of queries and forms, such as `a=1&b=two`.

use std::{borrow::Cow, collections::HashMap, fmt};

use percent_encoding::percent_decode_str;
use serde::{
    de::{
        DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess,
        Unexpected, VariantAccess, Visitor,
    },
    forward_to_deserialize_any,
};

/// Decodes the pairs of a query or form, with invalid UTF-8 replaced. Source: URL standard,
/// `application/x-www-form-urlencoded` parsing.
pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let text = match text.contains('+') {
        true => Cow::Owned(text.replace('+', " ")),
        false => Cow::Borrowed(text),
    };
    percent_decode_str(&text).decode_utf8_lossy().into_owned()
}

/// Deserializes all pairs into a struct or a map.
pub(super) fn read<T: DeserializeOwned>(pairs: &[(String, String)]) -> Result<T, Wrong> {
    let mut fields: Vec<(&str, Vec<&str>)> = Vec::new();
    // Index of each field by name.
    let mut places = HashMap::new();
    for (name, value) in pairs {
        let place = *places.entry(name.as_str()).or_insert(fields.len());
        match fields.get_mut(place) {
            Some((_, values)) => values.push(value),
            None => fields.push((name, vec![value])),
        }
    }
    T::deserialize(Fields {
        fields: fields.into_iter(),
        values: Vec::new(),
    })
}

/// Deserializes the values of a parameter: one for most types, any number for a list, none for an
/// `Option`.
pub(super) fn read_values<T: DeserializeOwned>(values: &[&str]) -> Result<T, Wrong> {
    T::deserialize(Values(values))
}

/// A deserialization error.
#[derive(Debug, PartialEq)]
pub(super) enum Wrong {
    /// A required value is missing.
    Missing,
    /// The value is invalid; continues a sentence that begins with the name of the value.
    Value(String),
    /// A field of a struct is invalid; a whole sentence.
    Field(String),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("is missing"),
            Self::Value(text) | Self::Field(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Wrong {}

impl serde::de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Value(format!("is wrong: {message}"))
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn serde::de::Expected) -> Self {
        Self::Value(format!("must be {expected}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Field(format!("`{field}` is missing"))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let expected: Vec<_> = expected.iter().map(|name| format!("`{name}`")).collect();
        Self::Field(format!(
            "`{}` is unknown; expected one of {}",
            short(field),
            expected.join(", ")
        ))
    }
}

/// A `MapAccess` over the pairs.
struct Fields<'a> {
    fields: std::vec::IntoIter<(&'a str, Vec<&'a str>)>,
    /// Values of the current field.
    values: Vec<&'a str>,
}

impl<'de> Deserializer<'de> for Fields<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_map(Pending {
            fields: self,
            name: String::new(),
        })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit_struct seq tuple
        tuple_struct map struct enum identifier ignored_any
    }
}

struct Pending<'a> {
    fields: Fields<'a>,
    /// Name of the current field.
    name: String,
}

impl<'de> MapAccess<'de> for Pending<'_> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        let Some((name, values)) = self.fields.fields.next() else {
            return Ok(None);
        };
        name.clone_into(&mut self.name);
        self.fields.values = values;
        seed.deserialize(Values(&[name])).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Wrong> {
        seed.deserialize(Values(&self.fields.values))
            .map_err(|wrong| match wrong {
                Wrong::Field(_) => wrong,
                _ => Wrong::Field(format!("`{}` {wrong}", short(&self.name))),
            })
    }
}

/// A deserializer of the values of one parameter.
#[derive(Clone, Copy)]
struct Values<'a>(&'a [&'a str]);

impl<'a> Values<'a> {
    fn one(self) -> Result<&'a str, Wrong> {
        self.0.first().copied().ok_or(Wrong::Missing)
    }

    fn parse<T: std::str::FromStr>(self, expected: fmt::Arguments<'_>) -> Result<T, Wrong> {
        let text = self.one()?;
        text.parse()
            .map_err(|_| Wrong::Value(format!("must be {expected}, not `{}`", short(text))))
    }
}

/// Truncates a client's text for error messages.
fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(60) {
        Some((at, _)) => Cow::Owned(format!("{}...", text.get(..at).unwrap_or_default())),
        None => Cow::Borrowed(text),
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $type:ty),* $(,)?) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
            let expected = format_args!("a whole number from {} to {}", <$type>::MIN, <$type>::MAX);
            visitor.$visit(self.parse::<$type>(expected)?)
        }
    )* };
}

impl<'de> Deserializer<'de> for Values<'_> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let text = self.one()?;
        visitor.visit_str(text).map_err(|wrong| match wrong {
            Wrong::Value(why) if !why.contains(text) => {
                Wrong::Value(format!("{why}, not `{}`", short(text)))
            }
            wrong => wrong,
        })
    }

    whole_numbers! {
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32,
        deserialize_i64 visit_i64 i64, deserialize_i128 visit_i128 i128,
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_u128 visit_u128 u128,
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let text = self.one()?;
        let value = match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => true,
            "false" | "0" | "no" | "off" => false,
            _ => {
                return Err(Wrong::Value(format!(
                    "must be `true` or `false`, not `{}`",
                    short(text)
                )));
            }
        };
        visitor.visit_bool(value)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_f32(self.parse(format_args!("a number"))?)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_f64(self.parse(format_args!("a number"))?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_char(self.parse(format_args!("one character"))?)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.0 {
            [] => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_seq(Elements(self.0.iter()))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_seq(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        self.one()?;
        visitor.visit_enum(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        str string bytes byte_buf unit unit_struct tuple_struct map struct identifier
    }
}

struct Elements<'a>(std::slice::Iter<'a, &'a str>);

impl<'de> SeqAccess<'de> for Elements<'_> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        match self.0.next() {
            Some(text) => seed.deserialize(Values(&[text])).map(Some),
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// An enum is deserialized from the name of its variant.
impl<'de> EnumAccess<'de> for Values<'_> {
    type Error = Wrong;
    type Variant = Self;

    fn variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<(T::Value, Self), Wrong> {
        Ok((seed.deserialize(self)?, self))
    }
}

impl<'de> VariantAccess<'de> for Values<'_> {
    type Error = Wrong;

    fn unit_variant(self) -> Result<(), Wrong> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Wrong> {
        Err(no_data())
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Wrong> {
        Err(no_data())
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Wrong> {
        Err(no_data())
    }
}

fn no_data() -> Wrong {
    Wrong::Value("must be the name of a variant without data".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Order {
        Newest,
        Oldest,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Search {
        q: String,
        limit: Option<u8>,
        #[serde(default)]
        tag: Vec<String>,
        order: Option<Order>,
    }

    fn search(text: &str) -> Result<Search, String> {
        read(&pairs(text)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_query_becomes_a_struct() {
        assert_eq!(
            search("q=a+b%20c&tag=x&tag=%C3%A9&order=newest&other=1"),
            Ok(Search {
                q: "a b c".to_owned(),
                limit: None,
                tag: vec!["x".to_owned(), "\u{e9}".to_owned()],
                order: Some(Order::Newest),
            })
        );
    }

    #[test]
    fn errors_name_the_field() {
        for (text, expected) in [
            ("", "`q` is missing"),
            (
                "q=1&limit=300",
                "`limit` must be a whole number from 0 to 255, not `300`",
            ),
            (
                "q=1&order=best",
                "`order` is wrong: unknown variant `best`, expected `newest` or `oldest`",
            ),
        ] {
            assert_eq!(search(text), Err(expected.to_owned()));
        }
    }

    #[test]
    fn one_parameter_is_read_by_its_type() {
        assert_eq!(read_values::<u64>(&["7"]), Ok(7));
        assert_eq!(read_values::<Option<u64>>(&[]), Ok(None));
        assert_eq!(read_values::<Option<bool>>(&["yes"]), Ok(Some(true)));
        assert_eq!(read_values::<f64>(&["1.5"]), Ok(1.5));
        assert_eq!(read_values::<Vec<u8>>(&["1", "2"]), Ok(vec![1, 2]));
        assert_eq!(read_values::<Order>(&["oldest"]), Ok(Order::Oldest));
        assert_eq!(read_values::<String>(&[]), Err(Wrong::Missing));
        assert_eq!(
            read_values::<BTreeMap<String, u8>>(&["x"])
                .unwrap_err()
                .to_string(),
            "must be a map, not `x`"
        );
        assert_eq!(
            read_values::<char>(&["xy"]).unwrap_err().to_string(),
            "must be one character, not `xy`"
        );
    }

    /// The maximum body size allows this many names: the lookup must not be quadratic.
    #[test]
    fn a_form_with_many_names_is_parsed_quickly() {
        let text: Vec<_> = (0..300_000).map(|name| format!("{name}=")).collect();
        let map: BTreeMap<String, String> = read(&pairs(&text.join("&"))).unwrap();
        assert_eq!(map.len(), 300_000);
    }

    proptest! {
        #[test]
        fn pairs_round_trip(list in prop::collection::vec((".+", ".*"), 0..5)) {
            let encode = |it: &str| percent_encoding::utf8_percent_encode(it, percent_encoding::NON_ALPHANUMERIC).to_string();
            let text: Vec<_> = list.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect();
            prop_assert_eq!(pairs(&text.join("&")), list);
        }

        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = search(&text);
            let _ = read::<BTreeMap<String, f64>>(&pairs(&text));
            let _ = read_values::<Vec<i8>>(&[&text]);
        }
    }
}
