//! The JSON Schema of the configuration: what the structs that it is read into say of themselves, and of a route what is
//! checked beyond them. It knows of no file but the configuration; docs/config.schema.json is made of it by a test.
//!
//! Draft 7, without references: what editors of TOML understand.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use serde_json::{Value, json};

use super::checks::{OWN_FIELDS, REDIRECTS, WITHOUT_BODY};
use super::raw::{Raw, Route};
use crate::config::HOST_BYTES_MAX;
use crate::config::value::schema::RANGE;

/// A path, which may end in `/*` …
const PATH: &str = "^(/[^\\x00-\\x20\\x7f?#*]*|(/[^\\x00-\\x20\\x7f?#*]*)?/\\*)$";
/// … and has no segment like these.
const DOTS: &str = "(^|/)\\.\\.?(/|$)";
const HOST: &str = "^(|[A-Za-z0-9_~-][A-Za-z0-9._~-]*|\\[[0-9A-Fa-f:.]+\\])$";
const LOCATION: &str = "^[^\\x00-\\x20\\x7f]+$";
/// RFC 9110 §5.1.
const FIELD_NAME: &str = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$";
/// RFC 9110 §5.5.
const FIELD_VALUE: &str =
    "^([^\\x00-\\x20\\x7f]([^\\x00-\\x08\\x0a-\\x1f\\x7f]*[^\\x00-\\x20\\x7f])?)?$";

/// The schema. Its keys are sorted, so that the same configuration makes the same text.
pub fn schema() -> Value {
    let mut settings = SchemaSettings::draft07();
    settings.inline_subschemas = true;
    let mut schema = settings.into_generator().into_root_schema_for::<Raw>();
    plain(&mut schema);
    schema.insert("title".into(), "The configuration of laneway".into());
    schema.insert("description".into(), "docs/configuration.md says more of each key.".into());
    let mut schema = schema.to_value();
    let route = &mut schema["properties"]["route"];
    // Stated in any case.
    route["items"]["properties"]["path"].as_object_mut().and_then(|path| path.remove("default"));
    extend(route, json!({ "description": "What is answered: each route at a path." }));
    extend(&mut route["items"], of_a_route());
    if let Value::Object(keys) = of_keys_of_a_route() {
        for (key, rules) in keys {
            extend(&mut route["items"]["properties"][key], rules);
        }
    }
    schema
}

/// Puts the range of a key into its description, a paragraph in one line, and takes out null, which TOML has not.
fn plain(schema: &mut Schema) {
    let Some(keywords) = schema.as_object_mut() else { return };
    let value_type = keywords.get("type").and_then(|types| match types.as_array()?.as_slice() {
        [of, null] if null == "null" => Some(of.clone()),
        _ => None,
    });
    keywords.extend(value_type.map(|of| ("type".into(), of)));
    // A value that may be left out: everything that is said of it, but for what its key says instead.
    let value = keywords.get("anyOf").and_then(|of| match of.as_array()?.as_slice() {
        [value, null] if null == &json!({ "type": "null" }) => value.as_object().cloned(),
        _ => None,
    });
    if let Some(value) = value {
        keywords.remove("anyOf");
        for (word, said) in value {
            keywords.entry(word).or_insert(said);
        }
    }
    let mut text = match keywords.get("description") {
        Some(Value::String(text)) => text.replace('\n', " "),
        _ => String::new(),
    };
    if let Some(Value::String(range)) = keywords.remove(RANGE) {
        text = format!("{text}\n\n{range}");
    }
    if !text.is_empty() {
        keywords.insert("description".into(), text.into());
    }
    transform_subschemas(&mut plain, schema);
}

fn extend(schema: &mut Value, more: Value) {
    if let (Value::Object(schema), Value::Object(more)) = (schema, more) {
        schema.extend(more);
    }
}

/// What holds of a route as a whole.
fn of_a_route() -> Value {
    let kinds = Route::default().kinds();
    let kinds: Vec<_> = kinds.iter().map(|(kind, _)| json!({ "required": [kind] })).collect();
    let status = |rule: Value| json!({ "properties": { "status": rule } });
    let has_body = status(json!({ "not": { "enum": WITHOUT_BODY } }));
    let is_blank = json!({ "properties": { "text": { "const": "" } } });
    let mut redirects = status(json!({ "enum": REDIRECTS }));
    let route = Route::default();
    let of_files = route.of_files().map(|(key, _)| (key.to_owned(), json!(["files"])));
    redirects["properties"]["headers"] =
        json!({ "propertyNames": { "not": { "pattern": any_case(&["location"]) } } });
    let mut dependencies = json!({
        "redirect": redirects,
        "echo": has_body,
        "json": has_body,
        "text": { "anyOf": [is_blank, has_body] },
        "files": {
            "properties": { "path": { "pattern": "\\*$" }, "status": { "const": 200 } },
        },
    });
    extend(&mut dependencies, Value::Object(of_files.into_iter().collect()));
    json!({ "required": ["path"], "oneOf": kinds, "dependencies": dependencies })
}

/// What holds of a key of a route beyond its type.
fn of_keys_of_a_route() -> Value {
    json!({
        "path": { "pattern": PATH, "not": { "pattern": DOTS } },
        "host": { "pattern": HOST, "maxLength": HOST_BYTES_MAX + 1 }, // A final dot isn't counted.
        "redirect": { "pattern": LOCATION },
        "json": { "additionalProperties": true }, // Else Tombi, by a rule of its own, allows none.
        "headers": {
            "propertyNames": { "pattern": FIELD_NAME, "not": { "pattern": any_case(&OWN_FIELDS) } },
            "additionalProperties": { "type": "string", "pattern": FIELD_VALUE },
        },
    })
}

/// A pattern of these names, however their letters are written: patterns of a schema have no flag for that.
fn any_case(names: &[&str]) -> String {
    let both = |letter: char| match letter.is_ascii_alphabetic() {
        true => format!("[{}{letter}]", letter.to_ascii_uppercase()),
        false => letter.to_string(),
    };
    let names: Vec<String> = names.iter().map(|name| name.chars().map(both).collect()).collect();
    format!("^({})$", names.join("|"))
}
