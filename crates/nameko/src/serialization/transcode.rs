//! Transcoding between serde formats without an intermediate type.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, Serialize, SerializeMap, SerializeSeq, Serializer};

/// Serializes the value of a deserializer. Works once: serializing consumes the deserializer.
pub(super) struct Transcode<D>(Cell<Option<D>>);

impl<D> Transcode<D> {
    pub(super) fn new(deserializer: D) -> Self {
        Self(Cell::new(Some(deserializer)))
    }
}

impl<'de, D: Deserializer<'de>> Serialize for Transcode<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(deserializer) = self.0.take() else {
            return Err(S::Error::custom("the value was already serialized"));
        };
        deserializer
            .deserialize_any(To(serializer))
            .map_err(S::Error::custom)
    }
}

/// A visitor that forwards to a serializer.
struct To<S>(S);

macro_rules! visit {
    ($($visit:ident($type:ty) $serialize:ident)*) => { $(
        fn $visit<E: serde::de::Error>(self, value: $type) -> Result<S::Ok, E> {
            self.0.$serialize(value).map_err(E::custom)
        }
    )* };
}

impl<'de, S: Serializer> Visitor<'de> for To<S> {
    type Value = S::Ok;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    visit! {
        visit_bool(bool) serialize_bool
        visit_i64(i64) serialize_i64
        visit_i128(i128) serialize_i128
        visit_u64(u64) serialize_u64
        visit_u128(u128) serialize_u128
        visit_f32(f32) serialize_f32
        visit_f64(f64) serialize_f64
        visit_str(&str) serialize_str
        visit_bytes(&[u8]) serialize_bytes
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<S::Ok, E> {
        self.0.serialize_unit().map_err(E::custom)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<S::Ok, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Ok, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, _: D) -> Result<S::Ok, D::Error> {
        Err(D::Error::custom("extension types are not supported"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<S::Ok, A::Error> {
        let mut list = self
            .0
            .serialize_seq(access.size_hint())
            .map_err(A::Error::custom)?;
        while access.next_element_seed(Element(&mut list))?.is_some() {}
        list.end().map_err(A::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<S::Ok, A::Error> {
        let mut map = self
            .0
            .serialize_map(access.size_hint())
            .map_err(A::Error::custom)?;
        while access.next_key_seed(Key(&mut map))?.is_some() {
            access.next_value_seed(Value(&mut map))?;
        }
        map.end().map_err(A::Error::custom)
    }
}

struct Element<'a, S>(&'a mut S);
struct Key<'a, S>(&'a mut S);
struct Value<'a, S>(&'a mut S);

macro_rules! seed {
    ($($seed:ident: $compound:ident::$method:ident)*) => { $(
        impl<'de, S: $compound> DeserializeSeed<'de> for $seed<'_, S> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                self.0.$method(&Transcode::new(deserializer)).map_err(D::Error::custom)
            }
        }
    )* };
}

seed! {
    Element: SerializeSeq::serialize_element
    Key: SerializeMap::serialize_key
    Value: SerializeMap::serialize_value
}
