//! The keys of the configuration as its schema states them, for the tests of what is written about them.

use std::fs;
use std::path::PathBuf;

use laneway::config::{Errors, Loaded, Options, load};
use serde_json::{Map, Value};

/// The variable that has a test write its file instead of comparing it.
pub(crate) const BLESS: &str = "LANEWAY_BLESS";

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A configuration, as the server reads it from a file beside which `page.html` lies.
pub(crate) fn read(toml: &str) -> Result<Loaded, Errors> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("laneway.toml");
    fs::write(&file, toml).expect("the file");
    fs::write(folder.path().join("page.html"), "<p>page</p>").expect("the page");
    fs::create_dir(folder.path().join("public")).expect("a folder of files");
    let mut options = Options::default();
    options.file = Some(file);
    load(&options)
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
