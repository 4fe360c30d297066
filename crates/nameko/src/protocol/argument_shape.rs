//! The shape of the arguments of a call: a list, a map, or a single value.

use std::fmt;

use serde::{
    Serialize, Serializer,
    ser::{Error, Impossible},
};

/// Returns `true` if `arguments` is a single value: neither a list or tuple, nor a map or struct,
/// nor `()`. Serializes no items, so a list costs nothing.
pub(super) fn is_single<T: Serialize + ?Sized>(arguments: &T) -> bool {
    match arguments.serialize(Probe) {
        Ok(Answer(single)) | Err(Answer(single)) => single,
    }
}

/// Whether a value is single. As an error, it ends the serialization at once.
#[derive(Debug)]
struct Answer(bool);

const SINGLE: Answer = Answer(true);
const COMPOUND: Answer = Answer(false);

struct Probe;

macro_rules! single {
    ($($method:ident($($argument:ty),*);)*) => { $(
        fn $method(self, $(_: $argument),*) -> Result<Answer, Answer> {
            Ok(SINGLE)
        }
    )* };
}

type Never = Impossible<Answer, Answer>;

impl Serializer for Probe {
    type Ok = Answer;
    type Error = Answer;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    single! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_i128(i128);
        serialize_u8(u8);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_u128(u128);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_none();
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Answer, Answer> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Answer, Answer> {
        Ok(COMPOUND)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Answer, Answer> {
        Ok(COMPOUND)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Answer, Answer> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Answer, Answer> {
        Ok(SINGLE)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Never, Answer> {
        Err(COMPOUND)
    }

    fn serialize_tuple(self, _: usize) -> Result<Never, Answer> {
        Err(COMPOUND)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Never, Answer> {
        Err(COMPOUND)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never, Answer> {
        Err(SINGLE)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Never, Answer> {
        Err(COMPOUND)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Never, Answer> {
        Err(COMPOUND)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never, Answer> {
        Err(SINGLE)
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0 { "single" } else { "compound" })
    }
}

impl std::error::Error for Answer {}

/// An error of the value itself, which its serialization will report.
impl Error for Answer {
    fn custom<T: fmt::Display>(_: T) -> Self {
        COMPOUND
    }
}
