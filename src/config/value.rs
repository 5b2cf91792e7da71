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
    self, DeserializeOwned, Deserializer, Error, IntoDeserializer, SeqAccess, Unexpected, Visitor,
};
use serde::{Deserialize, Serialize, Serializer};

use super::raw::keys;
use super::{Count, ListenAddress, nearest};

/// Longest duration that a setting may have.
const DURATION_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Most lanes.
pub(super) const LANES_MAX: u64 = 1024;

/// `"250ms"`, `"30s"`, `"1h 30m"`: whole milliseconds, from `MIN_MS`; with `OFF`, zero as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time<const MIN_MS: u64, const OFF: bool = false>(pub(super) Duration);

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
            fn visit_i64<E: Error>(self, number: i64) -> Result<Addresses, E> {
                Err(wrong_address(&number.to_string()))
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
            fn visit_i64<E: Error>(self, number: i64) -> Result<Address, E> {
                Err(wrong_address(&number.to_string()))
            }
        }
        deserializer.deserialize_any(V)
    }
}

/// `IP:port`, `[IPv6]:port` or `name:port`.
fn address<E: Error>(text: &str) -> Result<ListenAddress, E> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(ListenAddress::Socket(address));
    }
    let name = text.rsplit_once(':').and_then(|(name, port)| {
        let port = port.parse::<u16>().ok()?;
        (is_name(name)).then(|| ListenAddress::Name(name.to_owned(), port))
    });
    name.ok_or_else(|| wrong_address(text))
}

/// Whether this may be a host's name. All digits and dots is an IPv4 address gone wrong, which a resolver might read
/// in its own way.
fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    let numeric = name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    !numeric && name.trim_end_matches('.').split('.').all(label)
}

/// What is wrong with an address, and how it should be written.
fn wrong_address<E: Error>(text: &str) -> E {
    const FORMS: &str = "such as \"127.0.0.1:8080\", \"[::1]:8080\" or \"localhost:8080\"";
    let custom = |what: &str, help: String| {
        E::custom(format_args!("\"{text}\" is no address: {what}\n{help}"))
    };
    if text.starts_with("unix:") || text.starts_with('/') {
        let help = format!("laneway listens on TCP alone, {FORMS}");
        return custom("it names a socket in the file system", help);
    }
    if let Some((_, rest)) = text.split_once("://") {
        let host = rest.split('/').next().unwrap_or_default();
        let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let port = if has_port { "" } else { ":80" };
        return custom(
            "it is a URL",
            format!("write the host and the port alone: \"{host}{port}\""),
        );
    }
    let everywhere = |port: &str| {
        format!(
            "for every interface [\"0.0.0.0:{port}\", \"[::]:{port}\"], for this machine alone \
             \"127.0.0.1:{port}\""
        )
    };
    if let Some(port) = text.strip_prefix(':').or_else(|| text.strip_prefix("*:"))
        && port.parse::<u16>().is_ok()
    {
        let what = if text.starts_with('*') { "`*` is no host" } else { "the host is missing" };
        return custom(what, everywhere(port));
    }
    if text.parse::<u16>().is_ok() {
        return custom("the host is missing", everywhere(text));
    }
    if text.contains("${") || text.starts_with('$') {
        let help = "the variable LANEWAY_SERVER__LISTEN sets it from the environment".to_owned();
        return custom("variables are not replaced in a configuration", help);
    }
    if text.contains(char::is_whitespace) {
        return custom("it has white space", FORMS.to_owned());
    }
    if let Some(address) = without_brackets(text) {
        let help = format!("write \"{address}\"");
        return custom("an IPv6 address needs brackets, and a port behind them", help);
    }
    if text.contains('%') {
        let help = "write \"[fe80::1%2]:8080\"; `ip link` shows the numbers".to_owned();
        return custom("the interface of a link-local address is written as its number", help);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    if bare.parse::<IpAddr>().is_ok() || is_name(text) {
        return custom("the port is missing", format!("write \"{text}:8080\""));
    }
    match text.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_err() => {
            let help = format!("write \"{host}:8080\", say");
            custom("the port is not a number from 0 to 65535", help)
        }
        Some(_) => custom("the host is malformed", FORMS.to_owned()),
        None => custom("the port is missing", FORMS.to_owned()),
    }
}

/// How the IPv6 address `text`, which has no brackets or only one of them, is written, if it is one. Where its last part
/// can be a port, that is what was meant: `::1:8080` is an address, too, and none that a machine has.
fn without_brackets(text: &str) -> Option<String> {
    let bare = text.trim_matches(['[', ']']);
    if text.starts_with('[') && text.ends_with(']') {
        return None;
    }
    let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    let with_port = bare.rsplit_once(':').and_then(|(host, port)| {
        let host = host.trim_end_matches(']');
        // The address of every interface ends with two colons of its own.
        let host = if host == ":" { "::" } else { host };
        let is_port = port.parse::<u16>().is_ok_and(|port| port >= 10);
        (is_address(host) && is_port).then(|| format!("[{host}]:{port}"))
    });
    with_port.or_else(|| is_address(bare).then(|| format!("[{bare}]:8080")))
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Socket(address) => address.fmt(f),
            ListenAddress::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}
