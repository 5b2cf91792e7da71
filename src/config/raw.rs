//! The mirror of the configuration file: one struct a table, one field a key, and the real defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};
use serde::{Deserialize, Serialize, forward_to_deserialize_any};

use super::value::{Addresses, Number, Size, Time, some_word, word};
use super::{Accept, Count, Driver, Engine, ListenAddress, LogFormat, LogLevel, Mode};

/// Shortest `supervisor.watchdog`, in milliseconds. A loop that is busy may well take a tenth of that for one turn on a
/// machine with other work; a shorter one would find hung workers where there are none.
const WATCHDOG_MIN_MS: u64 = 100;
/// Longest body of a route, in bytes: it is held in memory.
pub(super) const ROUTE_BODY_BYTES_MAX: u64 = 64 << 20;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) server: Server,
    pub(super) workers: Workers,
    pub(super) supervisor: Supervisor,
    pub(super) limits: Limits,
    pub(super) timeouts: Timeouts,
    pub(super) log: Log,
    pub(super) route: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Server {
    pub(super) listen: Addresses,
    pub(super) backlog: Number<1, 1_048_576>,
    pub(super) merge_slashes: bool,
}

impl Default for Server {
    fn default() -> Server {
        let local = ([127, 0, 0, 1], 8080).into();
        Server {
            listen: Addresses(vec![ListenAddress::Socket(local)]),
            backlog: Number(4096),
            merge_slashes: true,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Workers {
    #[serde(deserialize_with = "word")]
    pub(super) mode: Mode,
    pub(super) count: Count,
    pub(super) pin: bool,
    #[serde(deserialize_with = "word")]
    pub(super) accept: Accept,
    #[serde(deserialize_with = "word")]
    pub(super) engine: Engine,
    #[serde(deserialize_with = "word")]
    pub(super) driver: Driver,
    pub(super) max_connections: Number<1, 1_048_576>,
}

impl Default for Workers {
    fn default() -> Workers {
        Workers {
            mode: Mode::Threads,
            count: Count::Auto,
            pin: true,
            accept: Accept::Reuseport,
            engine: Engine::Native,
            driver: Driver::Auto,
            max_connections: Number(16_384),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Supervisor {
    pub(super) drain_timeout: Time<0>,
    pub(super) ready_timeout: Time<1>,
    pub(super) restart_delay: Time<0>,
    pub(super) restart_delay_max: Time<0>,
    pub(super) max_restarts: Number<0, 1_000_000>,
    pub(super) restart_window: Time<1>,
    pub(super) watchdog: Time<WATCHDOG_MIN_MS, true>,
    pub(super) pid_file: PathBuf,
    pub(super) user: String,
    pub(super) group: String,
}

impl Default for Supervisor {
    fn default() -> Supervisor {
        Supervisor {
            drain_timeout: Time(Duration::from_secs(30)),
            ready_timeout: Time(Duration::from_secs(10)),
            restart_delay: Time(Duration::from_millis(100)),
            restart_delay_max: Time(Duration::from_secs(30)),
            max_restarts: Number(10),
            restart_window: Time(Duration::from_secs(60)),
            watchdog: Time(Duration::from_secs(10)),
            pid_file: PathBuf::new(),
            user: String::new(),
            group: String::new(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    pub(super) request_line: Size<64, { 1 << 20 }>,
    pub(super) header_bytes: Size<256, { 16 << 20 }>,
    pub(super) headers: Number<1, 10_000>,
    pub(super) body: Size<0, { 1 << 30 }>,
    pub(super) body_rate: Size<0, { 1 << 30 }>,
    pub(super) requests_per_connection: Number<0, { u32::MAX }>,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            request_line: Size(8 << 10),
            header_bytes: Size(32 << 10),
            headers: Number(100),
            body: Size(1 << 20),
            body_rate: Size(256),
            requests_per_connection: Number(0),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Timeouts {
    pub(super) header: Time<1>,
    pub(super) body: Time<1>,
    pub(super) keep_alive: Time<1>,
    pub(super) write: Time<1>,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            header: Time(Duration::from_secs(10)),
            body: Time(Duration::from_secs(30)),
            keep_alive: Time(Duration::from_secs(75)),
            write: Time(Duration::from_secs(30)),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Log {
    #[serde(deserialize_with = "word")]
    pub(super) level: LogLevel,
    #[serde(deserialize_with = "word")]
    pub(super) format: LogFormat,
}

impl Default for Log {
    fn default() -> Log {
        Log { level: LogLevel::Info, format: LogFormat::Auto }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Route {
    pub(super) path: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) body_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bytes: Option<Size<0, ROUTE_BODY_BYTES_MAX>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) redirect: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "some_word")]
    pub(super) echo: Option<Echo>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<Number<200, 599>>,
    pub(super) delay: Time<0>,
    // Tables come last in TOML.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) json: Option<toml::Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) headers: BTreeMap<String, String>,
}

impl Default for Route {
    fn default() -> Route {
        Route {
            path: String::new(),
            host: String::new(),
            text: None,
            body_file: None,
            bytes: None,
            redirect: None,
            echo: None,
            status: None,
            delay: Time(Duration::ZERO),
            json: None,
            headers: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Echo {
    Body,
    Request,
}

/// The keys of a table, or the words of an enum: the fields or variants of its mirror, as the derived code states them.
pub(super) fn keys<T: DeserializeOwned>() -> &'static [&'static str] {
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
