//! Values as people write them: durations, sizes, numbers with bounds, addresses.
//!
//! Each is checked as it is deserialised, so that an error points at the very value, and serialises to what
//! it would be read back from.

mod account;
mod address;
mod hosts;
pub(in crate::config) mod names;
mod network;
mod permissions;
#[cfg(feature = "_schema")]
pub(in crate::config) mod schema;
mod texts;

pub(in crate::config) use account::Account;
pub(in crate::config) use address::Addresses;
pub use address::ListenAddress;
pub use hosts::HOST_BYTES_MAX;
pub(in crate::config) use hosts::HostNames;
pub use network::Networks;
pub(in crate::config) use permissions::Permissions;
pub(in crate::config) use texts::{ByPattern, Texts};

use std::ffi::OsStr;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{
    self, DeserializeOwned, Deserializer, Error, IntoDeserializer, Unexpected, Visitor,
};
use serde::{Deserialize, Serialize, Serializer};

use names::{keys, nearest};

/// Longest duration that a setting may have.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Most lanes.
pub const LANES_MAX: usize = 1024;

/// For `#[serde(with = "As::<V>")]`: a setting is written and checked as a `V`, and is of the field's own type, so
/// that a key stands in one struct alone.
pub(in crate::config) struct As<V>(PhantomData<V>);

impl<V> As<V> {
    pub(in crate::config) fn deserialize<'de, T: From<V>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error>
    where
        V: Deserialize<'de>,
    {
        V::deserialize(deserializer).map(T::from)
    }

    pub(in crate::config) fn serialize<T: Clone, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error>
    where
        V: Serialize + From<T>,
    {
        V::from(value.clone()).serialize(serializer)
    }
}

/// `From` in both directions, between how a setting is written and what it is.
macro_rules! as_plain {
    ($written:ident<$($name:ident: $bound:ty),*>($inner:ty) = $plain:ty) => {
        impl<$(const $name: $bound),*> From<$written<$($name),*>> for $plain {
            fn from(written: $written<$($name),*>) -> $plain {
                written.0 as $plain
            }
        }
        impl<$(const $name: $bound),*> From<$plain> for $written<$($name),*> {
            fn from(plain: $plain) -> Self {
                $written(plain as $inner)
            }
        }
    };
}

as_plain!(Number<MIN: u32, MAX: u32>(u32) = u32);
as_plain!(Number<MIN: u32, MAX: u32>(u32) = usize);
as_plain!(Size<MIN: u64, MAX: u64>(u64) = u64);
as_plain!(Size<MIN: u64, MAX: u64>(u64) = usize);

impl<const MIN_MS: u64, const OFF: bool> From<Time<MIN_MS, OFF>> for Duration {
    fn from(written: Time<MIN_MS, OFF>) -> Duration {
        written.0
    }
}

impl<const MIN_MS: u64, const OFF: bool> From<Duration> for Time<MIN_MS, OFF> {
    fn from(duration: Duration) -> Self {
        Time(duration)
    }
}

/// A text that may be empty, which states nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub(in crate::config) struct Perhaps<T>(T);

impl<T: AsRef<OsStr>> From<Perhaps<T>> for Option<T> {
    fn from(written: Perhaps<T>) -> Option<T> {
        Some(written.0).filter(|text| !text.as_ref().is_empty())
    }
}

impl<T: Default> From<Option<T>> for Perhaps<T> {
    fn from(text: Option<T>) -> Self {
        Perhaps(text.unwrap_or_default())
    }
}

/// `"250ms"`, `"30s"`, `"1h 30m"`: whole milliseconds, from `MIN_MS`; with `OFF`, zero as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Time<const MIN_MS: u64, const OFF: bool = false>(
    pub(in crate::config) Duration,
);

impl<'de, const MIN_MS: u64, const OFF: bool> Deserialize<'de> for Time<MIN_MS, OFF> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<const MIN_MS: u64, const OFF: bool>;
        impl<const MIN_MS: u64, const OFF: bool> Visitor<'_> for V<MIN_MS, OFF> {
            type Value = Time<MIN_MS, OFF>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration")?;
                if MIN_MS > 0 {
                    write!(f, " of at least {MIN_MS}ms,")?;
                }
                f.write_str(" such as \"250ms\" or \"30s\"")?;
                if OFF { f.write_str(", or \"0s\" for never") } else { Ok(()) }
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
                self.visit_str(&number.to_string())
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let never = if OFF { ", or \"0s\" for never" } else { "" };
                duration(text, Duration::from_millis(MIN_MS), OFF).map(Time).map_err(|what| {
                    let least = written_duration(Duration::from_millis(MIN_MS));
                    let most = written_duration(DURATION_MAX);
                    match what {
                        None => without_unit(text),
                        Some(what) => E::custom(format_args!(
                            "\"{text}\" {what}\nwrite a number with a unit (ms, s, m, h, d), such as \"250ms\", \
                             \"30s\" or \"1h 30m\": from {least} to {most}{never}"
                        )),
                    }
                })
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// The duration that `text` states, or what is wrong with it; `None` if it has no unit.
fn duration(text: &str, least: Duration, is_off_allowed: bool) -> Result<Duration, Option<String>> {
    let fails = |what: &str| Err(Some(what.to_owned()));
    if text.trim_start().starts_with('-') {
        return fails("is no duration: it is negative");
    }
    // humantime takes "0" alone without a unit.
    if text.parse::<f64>().is_ok() {
        return Err(None);
    }
    if text.split(|of: char| !of.is_alphabetic()).any(|unit| unit == "M") {
        return fails("has the unit of a month: a minute is written m");
    }
    let longer = || format!("is longer than {}, the most", written_duration(DURATION_MAX));
    match humantime::parse_duration(text) {
        Ok(duration) if duration > DURATION_MAX => Err(Some(longer())),
        Err(humantime::DurationError::NumberOverflow) => Err(Some(longer())),
        Err(_) => fails("is no duration"),
        Ok(duration) if duration.subsec_nanos() % 1_000_000 != 0 => {
            fails("is no whole number of milliseconds")
        }
        Ok(duration) if duration >= least || is_off_allowed && duration.is_zero() => Ok(duration),
        Ok(_) => Err(Some(format!("is shorter than {}, the least", written_duration(least)))),
    }
}

/// A duration in one unit that states it exactly.
fn written_duration(duration: Duration) -> String {
    match duration.as_secs() {
        days if days != 0 && days.is_multiple_of(86_400) => format!("{}d", days / 86_400),
        _ => format!("{}ms", duration.as_millis()),
    }
}

/// What is wrong with a duration that is a bare number. As in every error here, a second line says what to do.
fn without_unit<E: Error>(number: &str) -> E {
    E::custom(format_args!(
        "a duration has a unit, and {number} has none\nwrite \"{number}s\" for seconds or \
         \"{number}ms\" for milliseconds"
    ))
}

impl<const MIN_MS: u64, const OFF: bool> Serialize for Time<MIN_MS, OFF> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let ms = self.0.as_millis();
        if ms.is_multiple_of(1000) {
            serializer.collect_str(&format_args!("{}s", ms / 1000))
        } else {
            serializer.collect_str(&format_args!("{ms}ms"))
        }
    }
}

/// `"64KiB"`, or a number of bytes: from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Size<const MIN: u64, const MAX: u64>(pub(in crate::config) u64);

impl<'de, const MIN: u64, const MAX: u64> Deserialize<'de> for Size<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<const MIN: u64, const MAX: u64>;
        impl<const MIN: u64, const MAX: u64> Visitor<'_> for V<MIN, MAX> {
            type Value = Size<MIN, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let (least, most) = (written(MIN), written(MAX));
                write!(f, "a size from {least} to {most}, such as \"64KiB\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                size(text, MIN, MAX).map(Size).map_err(|what| {
                    E::custom(format_args!("\"{text}\" {what}\n{}", size_forms(MIN, MAX)))
                })
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                size(&number.to_string(), MIN, MAX).map(Size).map_err(|what| {
                    E::custom(format_args!("{number} {what}\n{}", size_forms(MIN, MAX)))
                })
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl<const MIN: u64, const MAX: u64> Serialize for Size<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&written(self.0))
    }
}

/// The bytes that `text` states, or what is wrong with it.
fn size(text: &str, least: u64, most: u64) -> Result<u64, String> {
    if text.trim_start().starts_with('-') {
        return Err("is no size: it is negative".to_owned());
    }
    match text.parse::<ByteSize>() {
        Err(_) => Err("is no size".to_owned()),
        Ok(ByteSize(bytes)) if bytes < least => {
            Err(format!("is less than {}, the least", written(least)))
        }
        Ok(ByteSize(bytes)) if bytes > most => {
            Err(format!("is more than {}, the most", written(most)))
        }
        Ok(ByteSize(bytes)) => Ok(bytes),
    }
}

/// How a size is written.
fn size_forms(least: u64, most: u64) -> String {
    format!(
        "write a number of bytes, or one with a unit (KiB, MiB, GiB; kB, MB, GB in steps of 1000), such as \
         \"64KiB\": from {} to {}",
        written(least),
        written(most)
    )
}

/// A size in the largest unit that states it exactly.
fn written(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = units.into_iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    exact.map_or_else(|| format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct Number<const MIN: u32, const MAX: u32>(pub(in crate::config) u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<const MIN: u32, const MAX: u32>;
        impl<const MIN: u32, const MAX: u32> Visitor<'_> for V<MIN, MAX> {
            type Value = Number<MIN, MAX>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from {MIN} to {MAX}")
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                let within =
                    u32::try_from(number).ok().filter(|number| (MIN..=MAX).contains(number));
                within
                    .map(Number)
                    .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
            // JSON's, in which a reload hands it over.
            fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl<const MIN: u32, const MAX: u32> Serialize for Number<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
}

/// `workers.count`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Count {
    /// CPUs that affinity and the cgroup quota allow.
    Auto,
    /// This many lanes: 1 to 1,024.
    Fixed(usize),
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Count;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "\"auto\" or a whole number from 1 to {LANES_MAX}")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Count, E> {
                match text {
                    "auto" => Ok(Count::Auto),
                    _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
                }
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Count, E> {
                let lanes =
                    usize::try_from(number).ok().filter(|lanes| (1..=LANES_MAX).contains(lanes));
                let lanes = lanes.map(Count::Fixed);
                lanes.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
            }
            // JSON's, in which a reload hands it over.
            fn visit_u64<E: Error>(self, number: u64) -> Result<Count, E> {
                self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl Serialize for Count {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Count::Auto => serializer.serialize_str("auto"),
            Count::Fixed(lanes) => serializer.serialize_u64(*lanes as u64),
        }
    }
}

/// What a visitor expects, in a sentence.
struct Expected<'v, V>(&'v V);

impl<'de, V: Visitor<'de>> fmt::Display for Expected<'_, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }
}

/// One of the words of an enum. Its derived code would take a table as well, and say so of a number instead of which
/// words there are.
pub(in crate::config) fn word<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    struct V<T>(PhantomData<T>);
    impl<T: DeserializeOwned> Visitor<'_> for V<T> {
        type Value = T;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match keys::<T>() {
                [one, other] => write!(f, "`{one}` or `{other}`"),
                words => write!(f, "one of `{}`", words.join("`, `")),
            }
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
            let found: Result<T, de::value::Error> = T::deserialize(text.into_deserializer());
            found.map_err(|_| {
                let near = nearest(&text.to_lowercase(), keys::<T>());
                let meant =
                    near.map_or_else(String::new, |near| format!("\ndid you mean `{near}`?"));
                E::custom(format_args!(
                    "unknown word `{text}`, expected {}{meant}",
                    Expected(&self)
                ))
            })
        }
    }
    deserializer.deserialize_any(V(PhantomData))
}

/// The same, where there may be none.
pub(in crate::config) fn some_word<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    word(deserializer).map(Some)
}
