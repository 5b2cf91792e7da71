//! How each kind of value is told of in the JSON Schema: its type, the form of a text, and its range. A range that the
//! keywords of a schema can't state is told in words.
//!
//! What a text may be is stated in the form that people write. A schema can't count in it, so "9GiB" passes where 1GiB is
//! the most; [`crate::config::load`] finds that.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::address::OFF_WORD;
use super::network::NETWORKS_MAX;
use super::{
    Account, Addresses, As, ByPattern, Count, DURATION_MAX, HostNames, LANES_MAX, Networks, Number,
    Perhaps, Permissions, Size, Texts, Time, written, written_duration,
};

/// The keyword that has the range in words, a sentence, until it is a part of the description.
pub(in crate::config) const RANGE: &str = "x-range";

/// A text without any digit but zero.
const ZERO: &str = "^[^1-9]*$";

/// One number with a unit, or several; a number may have decimals.
const DURATION: &str = "^\\s*([0-9]+(\\.[0-9]+)?\\s*(ns|nsec|nanos|us|µs|usec|ms|msec|millis|s|secs?|seconds?|m|mins?|\
                        minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?|months?|y|yrs?|years?)\\s*)+$";

/// A number of bytes, or one with a unit.
const SIZE: &str = "^([0-9]+|([0-9]+(\\.[0-9]*)?|\\.[0-9]+)\\s*([Bb]|[KkMmGgTtPpEe][Ii]?[Bb]?))$";

/// An IPv4 address, an IPv6 address in brackets or a name, and a port. A name has something that is no digit. Or the path
/// of a Unix socket.
const ADDRESS: &str = "^(([0-9]{1,3}(\\.[0-9]{1,3}){3}|\\[[0-9A-Fa-f:.]+(%[0-9]+)?\\]|\
                       [0-9.]*[A-Za-z_-][A-Za-z0-9._-]*):[0-9]{1,5}|unix:(/[^/]|[^/@])(.*[^/])?)$";

/// A name, of which something is no digit.
const HOST_NAME: &str = "^[0-9.]*[A-Za-z_-][A-Za-z0-9._-]*$";

/// An address, and the length of a prefix. Only IPv6 has colons.
const NETWORK: &str =
    "^([0-9]{1,3}(\\.[0-9]{1,3}){3}|[0-9A-Fa-f]*:[0-9A-Fa-f:]*(\\.[0-9]{1,3}){0,3})(/[0-9]{1,3})?$";

impl<V: JsonSchema> JsonSchema for As<V> {
    fn schema_name() -> Cow<'static, str> {
        V::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        V::json_schema(generator)
    }
}

impl<T> JsonSchema for Perhaps<T> {
    fn schema_name() -> Cow<'static, str> {
        "Perhaps".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", (RANGE): "A text; an empty one is none." })
    }
}

impl JsonSchema for Account {
    fn schema_name() -> Cow<'static, str> {
        "Account".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "integer", "minimum": 0, "maximum": u32::MAX - 1 },
            ],
            (RANGE): "A name or a number; an empty text is none.",
        })
    }
}

impl<const MIN_MS: u64, const OFF: bool> JsonSchema for Time<MIN_MS, OFF> {
    fn schema_name() -> Cow<'static, str> {
        format!("Time_{MIN_MS}_{OFF}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let least = match MIN_MS {
            0 => "0s".to_owned(),
            _ => format!("{MIN_MS}ms"),
        };
        let never = if OFF { ", or 0s" } else { "" };
        let range =
            format!("A duration from {least} to {}{never}.", written_duration(DURATION_MAX));
        let mut schema = json_schema!({
            "type": "string",
            "pattern": DURATION,
            "examples": ["250ms", "30s", "1h 30m"],
            (RANGE): range,
        });
        exclude_zero(&mut schema, MIN_MS > 0 && !OFF);
        schema
    }
}

impl<const MIN: u64, const MAX: u64> JsonSchema for Size<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("Size_{MIN}_{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let mut text = json_schema!({ "type": "string", "pattern": SIZE });
        exclude_zero(&mut text, MIN > 0);
        json_schema!({
            "anyOf": [{ "type": "integer", "minimum": MIN, "maximum": MAX }, text],
            "examples": ["64KiB", "1MiB"],
            (RANGE): format!("A size from {} to {}.", written(MIN), written(MAX)),
        })
    }
}

/// A text that says zero is none of them.
fn exclude_zero(schema: &mut Schema, is_excluded: bool) {
    if is_excluded {
        schema.insert("not".into(), json_schema!({ "pattern": ZERO }).into());
    }
}

impl<const MIN: u32, const MAX: u32> JsonSchema for Number<MIN, MAX> {
    fn schema_name() -> Cow<'static, str> {
        format!("Number_{MIN}_{MAX}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "integer",
            "minimum": MIN,
            "maximum": MAX,
            (RANGE): format!("A whole number from {MIN} to {MAX}."),
        })
    }
}

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "const": "auto" },
                { "type": "integer", "minimum": 1, "maximum": LANES_MAX },
            ],
            (RANGE): format!("`\"auto\"` or a whole number from 1 to {LANES_MAX}."),
        })
    }
}

impl<const OFF: bool> JsonSchema for Addresses<OFF> {
    fn schema_name() -> Cow<'static, str> {
        format!("Addresses_{OFF}").into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let address = json_schema!({ "type": "string", "pattern": ADDRESS });
        let mut forms = vec![
            address.clone(),
            json_schema!({ "type": "array", "items": address, "minItems": 1 }),
        ];
        let mut range = "An address, or a list of at least one.";
        if OFF {
            forms.push(json_schema!({ "type": "string", "const": OFF_WORD }));
            range = "`\"off\"`, an address, or a list of at least one.";
        }
        json_schema!({
            "anyOf": forms,
            "examples": [["0.0.0.0:8080", "[::]:8080"], "localhost:8080", "unix:/run/laneway/http.sock"],
            (RANGE): range,
        })
    }
}

impl JsonSchema for HostNames {
    fn schema_name() -> Cow<'static, str> {
        "HostNames".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let name = json_schema!({ "type": "string", "pattern": HOST_NAME });
        json_schema!({
            "anyOf": [name.clone(), { "type": "array", "items": name }],
            "examples": [["status.example.org"]],
            (RANGE): "A host's name, or a list of them.",
        })
    }
}

impl JsonSchema for Texts {
    fn schema_name() -> Cow<'static, str> {
        "Texts".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }],
            (RANGE): "A text, or a list of them.",
        })
    }
}

impl JsonSchema for ByPattern {
    fn schema_name() -> Cow<'static, str> {
        "ByPattern".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string" },
                { "type": "object", "additionalProperties": { "type": "string" } },
            ],
            "examples": ["no-cache", { "/assets/*": "max-age=31536000, immutable" }],
            (RANGE): "A text, or a table of patterns with a text for each.",
        })
    }
}

impl JsonSchema for Permissions {
    fn schema_name() -> Cow<'static, str> {
        "Permissions".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            // Writing, by one of them at least.
            "pattern": "^(0o)?0?([2367][0-7]{2}|[0-7][2367][0-7]|[0-7]{2}[2367])$",
            "examples": ["0660", "0666"],
            (RANGE): "Permissions in octal digits.",
        })
    }
}

impl JsonSchema for Networks {
    fn schema_name() -> Cow<'static, str> {
        "Networks".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let network = json_schema!({ "type": "string", "pattern": NETWORK });
        json_schema!({
            "anyOf": [
                network.clone(),
                { "type": "array", "items": network, "maxItems": NETWORKS_MAX },
            ],
            "examples": [["10.0.0.0/8", "2001:db8::1"], "192.0.2.1"],
            (RANGE): format!("An address or a network, or a list of at most {NETWORKS_MAX}."),
        })
    }
}
