//! A deserializer adapter that converts stand-ins to non-finite floats.

use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};

use crate::serialization::{Error, transcode::Transcode};
use serde::{Serialize, Serializer};

use super::non_finite::Special;

/// Deserializes a standard text, with or without stand-ins.
pub(super) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = T::deserialize(Floats(&mut deserializer)).map_err(Error::of_json)?;
    deserializer.end().map_err(Error::of_json)?;
    Ok(value)
}

/// Transcodes a standard text to another serde format.
pub(super) fn transcode<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Transcode::new(Floats(&mut deserializer)).serialize(serializer)
}

/// Wraps a deserializer, and the visitors, seeds and accesses inside it.
struct Floats<T>(T);

macro_rules! wrap_visitor {
    ($($method:ident($($argument:ident: $kind:ty),*) $(=> $instead:ident)?;)*) => { $(
        #[allow(unused_variables)]
        fn $method<V: Visitor<'de>>(self, $($argument: $kind,)* visitor: V) -> Result<V::Value, D::Error> {
            wrap_visitor!(@call self.0, $method, ($($argument),*), visitor $(, $instead)?)
        }
    )* };
    (@call $inner:expr, $method:ident, ($($argument:ident),*), $visitor:ident) => {
        $inner.$method($($argument,)* Floats($visitor))
    };
    // Numbers: dispatch on the number in the text, so that the visitor's error names its type.
    (@call $inner:expr, $method:ident, (), $visitor:ident, $instead:ident) => {
        $inner.$instead(Floats($visitor))
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Floats<D> {
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

impl<'de, V: Visitor<'de>> Visitor<'de> for Floats<V> {
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
        self.0
            .visit_f64(Special::of_stand_in(value).map_or(value, Special::value))
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(Floats(deserializer))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(Floats(deserializer))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_seq(Floats(access))
    }

    fn visit_map<A: MapAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_map(Floats(access))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, access: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(Floats(access))
    }
}

impl<'de, T: DeserializeSeed<'de>> DeserializeSeed<'de> for Floats<T> {
    type Value = T::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T::Value, D::Error> {
        self.0.deserialize(Floats(deserializer))
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Floats<A> {
    type Error = A::Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, A::Error> {
        self.0.next_element_seed(Floats(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Floats<A> {
    type Error = A::Error;

    // Keys are text: serde_json parses numeric keys itself.
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        self.0.next_key_seed(seed)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, A::Error> {
        self.0.next_value_seed(Floats(seed))
    }

    fn size_hint(&self) -> Option<usize> {
        self.0.size_hint()
    }
}

impl<'de, A: EnumAccess<'de>> EnumAccess<'de> for Floats<A> {
    type Error = A::Error;
    type Variant = Floats<A::Variant>;

    fn variant_seed<T: DeserializeSeed<'de>>(
        self,
        seed: T,
    ) -> Result<(T::Value, Self::Variant), A::Error> {
        let (value, variant) = self.0.variant_seed(seed)?;
        Ok((value, Floats(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Floats<A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.0.unit_variant()
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, A::Error> {
        self.0.newtype_variant_seed(Floats(seed))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        self.0.tuple_variant(len, Floats(visitor))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.0.struct_variant(fields, Floats(visitor))
    }
}
