//! A deserializer adapter that converts stand-ins to non-finite floats, and refuses numbers that
//! the target would silently change.

use std::{any::type_name, fmt};

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::serialization::{Error, transcode::Transcode};
use serde::{Serialize, Serializer};

use super::non_finite::{Special, huge_integer};

/// Deserializes a standard text, with or without stand-ins.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    read_as(text, Source::Json(text))
}

/// Like [`read`], for logs: a [`serde_json::Value`] has null in place of non-finite numbers, and
/// floats in place of integers that take more than 64 bits.
pub(super) fn read_approximately<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    read_as(text, Source::Approximate)
}

fn read_as<T: DeserializeOwned>(text: &str, source: Source<'_>) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Floats(&mut deserializer, source)).map_err(Error::of_json)?;
    deserializer.end().map_err(Error::of_json)?;
    Ok(value)
}

/// Transcodes a standard text to another serde format.
pub(super) fn transcode<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Transcode::new(Floats(&mut deserializer, Source::Json(text))).serialize(serializer)
}

/// Deserializes from a format other than JSON that can hold non-finite floats.
#[cfg(feature = "msgpack")]
pub(in crate::serialization) fn read_checked<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: serde::Deserialize<'de>,
    D: Deserializer<'de>,
{
    T::deserialize(Floats(deserializer, Source::Other))
}

/// The origin of the numbers.
#[derive(Clone, Copy)]
enum Source<'t> {
    /// A standard text.
    Json(&'t str),
    /// A standard text, to be read without checks.
    Approximate,
    /// A format without stand-ins and without integers of more than 64 bits.
    #[cfg(feature = "msgpack")]
    Other,
}

impl Source<'_> {
    /// Returns the number for a received float.
    fn number(self, value: f64) -> f64 {
        match self {
            Self::Json(_) | Self::Approximate => {
                Special::of_stand_in(value).map_or(value, Special::value)
            }
            #[cfg(feature = "msgpack")]
            Self::Other => value,
        }
    }

    /// Refuses a number that a [`serde_json::Value`] cannot hold.
    fn check<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        /// 2^63, the least magnitude of integers that do not fit into 64 bits.
        const HUGE: f64 = 9_223_372_036_854_775_808.0;

        let text = match self {
            Self::Approximate => return Ok(()),
            Self::Json(text) => text,
            #[cfg(feature = "msgpack")]
            Self::Other => "",
        };
        if let Some(special) = Special::of(value) {
            return Err(E::custom(format_args!(
                "a `serde_json::Value` cannot hold {}: use an `f64`, or a `Payload` for any value",
                special.token()
            )));
        }
        match huge_integer(text).filter(|_| value.abs() >= HUGE) {
            None => Ok(()),
            Some(digits) => Err(E::custom(format_args!(
                "a `serde_json::Value` cannot hold the integer {digits}, which takes more than 64 \
                 bits: use an `i128`, `u128` or `f64`, or a `Payload` for any value"
            ))),
        }
    }
}

/// Returns `true` if `T` is [`serde_json::Value`], whose visitor has no way to refuse a number. The
/// type of a visitor's value may borrow, so that only its name can be compared.
fn is_json_value<T>() -> bool {
    type_name::<T>() == type_name::<serde_json::Value>()
}

/// Wraps a deserializer, and the visitors, seeds and accesses inside it.
struct Floats<'t, T>(T, Source<'t>);

macro_rules! wrap_visitor {
    ($($method:ident($($argument:ident: $kind:ty),*) $(=> $instead:ident)?;)*) => { $(
        #[allow(unused_variables)]
        fn $method<V: Visitor<'de>>(self, $($argument: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            wrap_visitor!(@call self, $method, ($($argument),*), visitor $(, $instead)?)
        }
    )* };
    (@call $floats:expr, $method:ident, ($($argument:ident),*), $visitor:ident) => {
        $floats.0.$method($($argument,)* Floats($visitor, $floats.1))
    };
    // Numbers: dispatch on the number in the text, so that the visitor's error names its type.
    (@call $floats:expr, $method:ident, (), $visitor:ident, $instead:ident) => {
        $floats.0.$instead(Floats($visitor, $floats.1))
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Floats<'_, D> {
    type Error = D::Error;

    wrap_visitor! {
        deserialize_any();
        deserialize_bool();
        deserialize_i8() => deserialize_any;
        deserialize_i16() => deserialize_any;
        deserialize_i32() => deserialize_any;
        deserialize_i64() => deserialize_any;
        deserialize_i128();
        deserialize_u8() => deserialize_any;
        deserialize_u16() => deserialize_any;
        deserialize_u32() => deserialize_any;
        deserialize_u64() => deserialize_any;
        deserialize_u128();
        deserialize_f32() => deserialize_any;
        deserialize_f64() => deserialize_any;
        deserialize_char();
        deserialize_str();
        deserialize_string();
        deserialize_bytes();
        deserialize_byte_buf();
        deserialize_option();
        deserialize_unit();
        deserialize_unit_struct(name: &'static str);
        // Includes raw text, which keeps its stand-ins.
        deserialize_newtype_struct(name: &'static str);
        deserialize_seq();
        deserialize_tuple(len: usize);
        deserialize_tuple_struct(name: &'static str, len: usize);
        deserialize_map();
        deserialize_struct(name: &'static str, fields: &'static [&'static str]);
        deserialize_enum(name: &'static str, variants: &'static [&'static str]);
        deserialize_identifier();
        deserialize_ignored_any();
    }
}

macro_rules! visit {
    ($($method:ident($value:ty))*) => { $(
        fn $method<E: serde::de::Error>(self, value: $value) -> Result<V::Value, E> {
            self.0.$method(value)
        }
    )* };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Floats<'_, V> {
    type Value = V::Value;

    visit! {
        visit_bool(bool) visit_char(char) visit_str(&str) visit_borrowed_str(&'de str) visit_string(String)
        visit_i8(i8) visit_i16(i16) visit_i32(i32) visit_i64(i64) visit_i128(i128)
        visit_u8(u8) visit_u16(u16) visit_u32(u32) visit_u64(u64) visit_u128(u128)
        visit_bytes(&[u8]) visit_borrowed_bytes(&'de [u8]) visit_byte_buf(Vec<u8>)
    }

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<V::Value, E> {
        let value = self.1.number(value);
        if is_json_value::<V::Value>() {
            self.1.check(value)?;
        }
        self.0.visit_f64(value)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Floats(deserializer, self.1))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Floats(deserializer, self.1))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Floats(access, self.1))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Floats(access, self.1))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Floats(access, self.1))
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Floats<'_, T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.0.deserialize(Floats(deserializer, self.1))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Floats<'_, A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Floats(seed, self.1))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Floats<'_, A> {
    type Error = A::Error;

    // Keys are text: serde_json parses numeric keys itself.
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Floats(seed, self.1))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, 't, A: EnumAccess<'de>> EnumAccess<'de> for Floats<'t, A> {
    type Error = A::Error;
    type Variant = Floats<'t, A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(seed)?;
        Ok((value, Floats(variant, self.1)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Floats<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.0.newtype_variant_seed(Floats(seed, self.1))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Floats(visitor, self.1))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Floats(visitor, self.1))
    }
}
