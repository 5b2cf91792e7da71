//! Values as people write them: durations, sizes, numbers with bounds, addresses.
//!
//! Each is checked as it is deserialised, so that an error points at the very value, and serialises to what
//! it would be read back from.

use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytesize::ByteSize;
use serde::de::{
    DeserializeOwned, Deserializer, Error, IntoDeserializer, SeqAccess, Unexpected, Visitor,
};
use serde::{Deserialize, Serialize, Serializer};

use super::raw::keys;
use super::{Count, ListenAddress};

/// Longest duration that a setting may have.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Most lanes.
pub(super) const LANES_MAX: u64 = 1024;

/// `"250ms"`, `"30s"`, `"1h 30m"`: whole milliseconds, from `MIN_MS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time<const MIN_MS: u64>(pub(super) Duration);

impl<'de, const MIN_MS: u64> Deserialize<'de> for Time<MIN_MS> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V<const MIN_MS: u64>;
        impl<const MIN_MS: u64> Visitor<'_> for V<MIN_MS> {
            type Value = Time<MIN_MS>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match MIN_MS {
                    0 => f.write_str("a duration such as \"250ms\" or \"30s\""),
                    _ => {
                        write!(f, "a duration of at least {MIN_MS}ms, such as \"250ms\" or \"30s\"")
                    }
                }
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                let bad = || E::invalid_value(Unexpected::Str(text), &self);
                let duration = humantime::parse_duration(text).map_err(|_| bad())?;
                let whole = duration.subsec_nanos() % 1_000_000 == 0;
                let minimum = Duration::from_millis(MIN_MS);
                if whole && duration >= minimum && duration <= DURATION_MAX {
                    Ok(Time(duration))
                } else {
                    Err(bad())
                }
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl<const MIN_MS: u64> Serialize for Time<MIN_MS> {
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
pub(super) struct Size<const MIN: u64, const MAX: u64>(pub(super) u64);

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
                let size = text.parse::<ByteSize>().map(|size| size.0);
                let within = size.ok().filter(|bytes| (MIN..=MAX).contains(bytes));
                within.map(Size).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
            fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
                let bytes = u64::try_from(number).ok().filter(|bytes| (MIN..=MAX).contains(bytes));
                bytes.map(Size).ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
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

/// A size in the largest unit that states it exactly.
fn written(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let exact = units.into_iter().find(|(shift, _)| bytes != 0 && bytes.trailing_zeros() >= *shift);
    exact.map_or_else(|| format!("{bytes}B"), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

/// A whole number from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number<const MIN: u32, const MAX: u32>(pub(super) u32);

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
        }
        deserializer.deserialize_any(V)
    }
}

impl<const MIN: u32, const MAX: u32> Serialize for Number<MIN, MAX> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0)
    }
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
                    u64::try_from(number).ok().filter(|lanes| (1..=LANES_MAX).contains(lanes));
                let lanes =
                    lanes.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))?;
                Ok(Count::Fixed(lanes as usize))
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

/// One of the words of an enum. Its derived code would take a table as well, and say so of a number instead of which
/// words there are.
pub(super) fn word<'de, T: DeserializeOwned, D: Deserializer<'de>>(
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
            T::deserialize(text.into_deserializer())
        }
    }
    deserializer.deserialize_any(V(PhantomData))
}

/// The same, where there may be none.
pub(super) fn some_word<'de, T: DeserializeOwned, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    word(deserializer).map(Some)
}

/// One address or a list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addresses(pub(super) Vec<ListenAddress>);

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Addresses;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"127.0.0.1:8080\", or a list of at least one")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Addresses, E> {
                address(text).map(|address| Addresses(vec![address]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
                let mut addresses = Vec::new();
                while let Some(Address(address)) = list.next_element()? {
                    // Each port 0 is a port of its own.
                    if addresses.contains(&address) && address.port() != 0 {
                        let why = format_args!("\"{address}\" stands twice");
                        return Err(A::Error::custom(why));
                    }
                    addresses.push(address);
                }
                if addresses.is_empty() {
                    return Err(A::Error::invalid_length(0, &self));
                }
                Ok(Addresses(addresses))
            }
        }
        deserializer.deserialize_any(V)
    }
}

impl Serialize for Addresses {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(ToString::to_string))
    }
}

/// One element of such a list.
struct Address(ListenAddress);

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl Visitor<'_> for V {
            type Value = Address;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address such as \"127.0.0.1:8080\"")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Address, E> {
                address(text).map(Address)
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// `IP:port`, `[IPv6]:port` or `name:port`.
fn address<E: Error>(text: &str) -> Result<ListenAddress, E> {
    let bad = |why: &str| {
        E::custom(format_args!(
            "{why}: \"{text}\"; expected an address such as \"127.0.0.1:8080\", \"[::1]:8080\" or \"localhost:8080\""
        ))
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(ListenAddress::Socket(address));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(bad("an IPv6 address needs brackets, and a port behind them"));
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        return Err(bad("the port is missing"));
    };
    let port = port.parse::<u16>().map_err(|_| bad("the port is not a number from 0 to 65535"))?;
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    // All digits and dots is an IPv4 address gone wrong, which a resolver might read in its own way.
    let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let name_valid = !numeric && name.trim_end_matches('.').split('.').all(label);
    if name.parse::<IpAddr>().is_ok() || !name_valid {
        return Err(bad("the host is malformed"));
    }
    Ok(ListenAddress::Name(name.to_owned(), port))
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Socket(address) => address.fmt(f),
            ListenAddress::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}
