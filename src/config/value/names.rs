//! Names: the keys of a table, the words of an enum, and which of them a wrong one was meant to be.

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::forward_to_deserialize_any;

/// The candidate that `name` was probably meant to be.
pub(in crate::config) fn nearest<'c>(name: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(name, candidate);
    let nearest = candidates.iter().copied().min_by_key(distance)?;
    // A third of the letters may be wrong; more is another word, but for one that goes on (`warning`).
    let is_near = distance(&nearest) <= (name.len() / 3).max(1);
    let begins = |candidate: &&&str| candidate.len() > 3 && name.starts_with(**candidate);
    is_near.then_some(nearest).or_else(|| candidates.iter().find(begins).copied())
}

/// The keys of a table, or the words of an enum: the fields or variants of its mirror, as the derived code states them.
pub(in crate::config) fn keys<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Capture<'k>(&'k mut &'static [&'static str]);
    impl<'de> Deserializer<'de> for Capture<'_> {
        type Error = de::value::Error;

        fn deserialize_struct<V: Visitor<'de>>(
            self,
            _: &'static str,
            fields: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = fields;
            Err(de::Error::custom("the fields are all that was wanted"))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = variants;
            Err(de::Error::custom("the variants are all that was wanted"))
        }

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(de::Error::custom("neither a table nor an enum"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
            unit_struct newtype_struct seq tuple tuple_struct map identifier ignored_any
        }
    }
    let mut fields: &'static [&'static str] = &[];
    // It always fails: what counts is what it was asked for.
    let _ = T::deserialize(Capture(&mut fields));
    fields
}
