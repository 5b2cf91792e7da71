//! The keys of the configuration as its schema states them, for the tests of what is written about them.

use std::path::PathBuf;

use serde_json::{Map, Value};

/// The variable that has a test write its file instead of comparing it.
pub(crate) const BLESS: &str = "LANEWAY_BLESS";

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Each table by its name, and its keys with what the schema says of each.
pub(crate) fn tables(schema: &Value) -> Vec<(&str, &Map<String, Value>)> {
    let tables = schema["properties"].as_object().expect("tables");
    let of = tables.iter().map(|(name, table)| {
        let table = if table["type"] == "array" { &table["items"] } else { table };
        (name.as_str(), table["properties"].as_object().expect("keys"))
    });
    of.collect()
}
