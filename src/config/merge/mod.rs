//! Every key is checked alone, so that one bad value hides no other; then the settings of all sources are merged,
//! later ones winning, and resolved.

mod elsewhere;

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, ValueDeserializer};

use super::diagnostic::{Diagnostic, Errors, KeyPlaces, Place, SourceText, Warnings};
use super::resolve;
use super::resolve::raw::{self, Raw};
use super::settings::{self, Config};
use super::source::Setting;
use super::value::names::{keys, nearest};

/// A table of the configuration: its keys, and a check of one key with its value.
struct Section {
    name: &'static str,
    keys: fn() -> &'static [&'static str],
    check: fn(DeTable<'_>) -> Result<(), toml::de::Error>,
}

impl Section {
    const fn of<T: DeserializeOwned>(name: &'static str) -> Section {
        let check = |table: DeTable<'_>| {
            T::deserialize(Deserializer::from(Spanned::new(0..0, table))).map(drop)
        };
        Section { name, keys: keys::<T>, check }
    }

    /// How a value that is wrong, by `error`, is written, where that can be told.
    fn written_right(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        error: &str,
    ) -> Option<String> {
        if self.name == "route" && key == "headers" {
            return Some("write headers = { X-Name = \"value\" }".to_owned());
        }
        if error.ends_with("expected a text in quotes") {
            return match value.get_ref() {
                DeValue::Integer(number) => Some(format!("write {key} = \"{number}\"")),
                DeValue::Float(number) => Some(format!("write {key} = \"{number}\"")),
                DeValue::Boolean(truth) => Some(format!("write {key} = \"{truth}\"")),
                _ => None,
            };
        }
        if let Some(bare) = self.without_quotes(key, value) {
            return Some(format!("write {key} = {bare}, without quotes"));
        }
        let is_truth = error.ends_with("expected true or false");
        let truth = truth(value.get_ref()).filter(|_| is_truth)?;
        Some(format!("write {key} = {truth}"))
    }

    /// The number or truth value that a text holds, if the key takes that.
    fn without_quotes<'v>(&self, key: &str, value: &'v Spanned<DeValue<'_>>) -> Option<&'v str> {
        let DeValue::String(text) = value.get_ref() else {
            return None;
        };
        let bare = DeValue::parse(text).ok()?;
        if !matches!(bare.get_ref(), DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_))
        {
            return None;
        }
        let mut alone = DeTable::new();
        alone.insert(Spanned::new(0..0, key.to_owned().into()), bare);
        (self.check)(alone).is_ok().then_some(text)
    }
}

const SECTIONS: [Section; 9] = [
    Section::of::<settings::Server>("server"),
    Section::of::<settings::Workers>("workers"),
    Section::of::<settings::Supervisor>("supervisor"),
    Section::of::<settings::Limits>("limits"),
    Section::of::<settings::Timeouts>("timeouts"),
    Section::of::<settings::Log>("log"),
    Section::of::<settings::Access>("access"),
    Section::of::<settings::Admin>("admin"),
    Section::of::<settings::Files>("files"),
];
const ROUTE: Section = Section::of::<raw::Route>("route");

/// Tables and keys that a later version will have, and what they are for. One that exists is none of them.
const LATER: [(&str, &str); 2] = [
    ("exec", "the engine that starts other programs"),
    ("node", "the engine that starts Node workers"),
];

const ROUTES_TITLE: &str = "`route` is a list of tables";
const ROUTES_HELP: &str = "write [[route]] and its keys below it, or set the whole list: \
                           route=[{path=\"/\", text=\"hello\"}]";

/// What the table or key `name` will be for.
fn later(name: &str) -> Option<&'static str> {
    LATER.iter().find(|(of, _)| *of == name).map(|(_, what)| *what)
}

/// The setting that the variable `name` stands for.
fn setting_of_variable(name: &str) -> Option<String> {
    let (table, key) = name.strip_prefix("LANEWAY_")?.split_once("__")?;
    let (table, key) = (table.to_ascii_lowercase(), key.to_ascii_lowercase());
    is_key(&table, &key).then(|| format!("{table}.{key}"))
}

/// A message of serde's in the words of a configuration.
fn plain(message: &str) -> String {
    const WORDS: [(&str, &str); 5] = [
        ("invalid type: sequence, expected", "invalid type: list, expected"),
        ("invalid type: map, expected", "invalid type: table, expected"),
        (", expected a boolean", ", expected true or false"),
        (", expected a map", ", expected a table"),
        (", expected a string", ", expected a text in quotes"),
    ];
    WORDS.iter().fold(message.to_owned(), |text, (of, plain)| text.replacen(of, plain, 1))
}

/// How `value` is written where true or false is expected.
fn truth(value: &DeValue<'_>) -> Option<&'static str> {
    let text = match value {
        DeValue::String(text) => text.to_ascii_lowercase(),
        DeValue::Integer(number) => number.to_string(),
        _ => return None,
    };
    match text.as_str() {
        "yes" | "on" | "1" | "true" => Some("true"),
        "no" | "off" | "0" | "false" => Some("false"),
        _ => None,
    }
}

/// Whether `table.key` is a setting.
pub(super) fn is_key(table: &str, key: &str) -> bool {
    SECTIONS.iter().any(|of| of.name == table && (of.keys)().contains(&key))
}

/// All tables, but for the routes, with their keys.
pub(super) fn all_keys() -> Vec<(&'static str, &'static [&'static str])> {
    SECTIONS.iter().map(|section| (section.name, (section.keys)())).collect()
}

/// A valid configuration.
///
/// ```
/// use laneway::config::{Loaded, Options, load};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into());
/// options.set = vec!["limits.headers=50".into()];
/// let loaded: Loaded = load(&options).expect("valid");
/// assert_eq!(loaded.config.limits.headers, 50);
/// assert!(loaded.to_toml().contains("headers = 50"));
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loaded {
    /// The resolved values.
    pub config: Config,
    /// What of it is probably not what was meant.
    pub warnings: Warnings,
    raw: Raw,
}

impl Loaded {
    /// The configuration in effect, as TOML that loads to the same.
    pub fn to_toml(&self) -> String {
        // The mirror holds nothing that TOML can't say.
        toml::to_string(&self.raw).expect("the configuration is TOML")
    }
}

/// The settings of all sources so far.
#[derive(Default)]
pub(super) struct Merged {
    tables: BTreeMap<String, toml::Table>,
    routes: Vec<toml::Value>,
    places: KeyPlaces,
    unknown_sections: HashSet<String>,
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
}

impl Merged {
    /// Checks one setting and puts it over any earlier one of the same key.
    pub(super) fn add(&mut self, setting: Setting<'_>) {
        let path: Vec<&str> = setting.path.iter().map(String::as_str).collect();
        match path[..] {
            ["route"] => self.add_routes(&setting),
            ["route", ..] => self.not_a_list(&setting.key),
            [section, key] => match SECTIONS.iter().find(|of| of.name == section) {
                Some(section) => {
                    let place = setting.place(setting.value.span());
                    if let Some(value) =
                        self.check(section, key, &setting.key, &setting.value, &setting)
                    {
                        let table = self.tables.entry(section.name.to_owned()).or_default();
                        table.insert(key.to_owned(), value);
                        self.places.insert(format!("{}.{key}", section.name), place);
                    }
                }
                None => self.unknown_section(section, &setting.key),
            },
            [name] if SECTIONS.iter().any(|of| of.name == name) => {
                if !setting.value.get_ref().is_table() {
                    let title = format!("`{name}` is a table");
                    let help =
                        format!("write [{name}] and its keys below it, or {name}.key = value");
                    self.diagnostics.push(Diagnostic::new(title, Some(setting.key)).help(help));
                }
            }
            [section, key, ..] if SECTIONS.iter().any(|of| of.name == section) => {
                let title = format!("`{section}.{key}` is not a table");
                self.diagnostics.push(Diagnostic::new(title, Some(setting.key)));
            }
            _ => self.unknown_section(path[0], &setting.key),
        }
    }

    /// A route's key without its route.
    fn not_a_list(&mut self, place: &Place) {
        // Once is enough for all keys.
        if self.unknown_sections.insert("route".into()) {
            let diagnostic = Diagnostic::new(ROUTES_TITLE, Some(place.clone()));
            self.diagnostics.push(diagnostic.help(ROUTES_HELP));
        }
    }

    /// `[[route]]`, or `route = [{ … }]`: takes the place of the routes of an earlier source.
    fn add_routes(&mut self, setting: &Setting<'_>) {
        let wrong = |value: &Spanned<DeValue<'_>>| {
            let place = Some(setting.place(value.span()));
            Diagnostic::new("a route is a table", place).help(ROUTES_HELP)
        };
        let DeValue::Array(list) = setting.value.get_ref() else {
            self.unknown_sections.insert("route".into());
            let place = setting.place(setting.value.span());
            let diagnostic = Diagnostic::new(ROUTES_TITLE, Some(place)).help(ROUTES_HELP);
            return self.diagnostics.push(diagnostic);
        };
        self.routes.clear();
        for (index, route) in list.iter().enumerate() {
            let DeValue::Table(table) = route.get_ref() else {
                self.diagnostics.push(wrong(route));
                continue;
            };
            let name = format!("route[{index}]");
            self.places.insert(name.clone(), setting.place(route.span()));
            let mut checked = toml::Table::new();
            for (key, value) in table.iter() {
                let place = setting.place(key.span());
                let key = key.get_ref().as_ref();
                let valid = match value.get_ref() {
                    DeValue::Table(fields) if key == "headers" => {
                        Some(self.check_fields(&name, fields, setting))
                    }
                    _ => self.check(&ROUTE, key, &place, value, setting),
                };
                if let Some(valid) = valid {
                    checked.insert(key.to_owned(), valid);
                }
                self.places.insert(format!("{name}.{key}"), setting.place(value.span()));
            }
            self.routes.push(checked.into());
        }
    }

    /// Those of a route's `headers` that are text; tells of the others. Notes where each stands.
    fn check_fields(
        &mut self,
        route: &str,
        fields: &DeTable<'_>,
        setting: &Setting<'_>,
    ) -> toml::Value {
        let mut valid = toml::Table::new();
        for (name, value) in fields.iter() {
            let field = name.get_ref();
            self.places.insert(format!("{route}.headers.{field}"), setting.place(name.span()));
            if let DeValue::String(text) = value.get_ref() {
                valid.insert(field.to_string(), text.to_string().into());
            } else {
                let title = format!("the value of the field `{field}` is not text");
                let help = format!("write {field} = \"…\"; a field stands once, with one value");
                let place = setting.place(value.span());
                self.diagnostics.push(Diagnostic::new(title, Some(place)).help(help));
            }
        }
        valid.into()
    }

    /// Checks one key of a section alone, and returns its value if it is valid.
    fn check(
        &mut self,
        section: &Section,
        key: &str,
        key_place: &Place,
        value: &Spanned<DeValue<'_>>,
        setting: &Setting<'_>,
    ) -> Option<toml::Value> {
        if !(section.keys)().contains(&key) {
            self.unknown_key(section, key, key_place);
            return None;
        }
        let mut alone = DeTable::new();
        alone.insert(Spanned::new(0..0, key.to_owned().into()), value.clone());
        if let Err(error) = (section.check)(alone) {
            let span = error.span().filter(|span| !span.is_empty());
            let place = setting.place(span.unwrap_or_else(|| value.span()));
            let text = format!("`{}.{key}`: {}", section.name, plain(error.message()));
            let mut diagnostic = Diagnostic::of_text(&text, place);
            if let Some(written) = section.written_right(key, value, &text) {
                diagnostic = diagnostic.help(written);
            }
            self.diagnostics.push(diagnostic);
            return None;
        }
        toml::Value::deserialize(ValueDeserializer::from(value.clone())).ok()
    }

    fn unknown_key(&mut self, section: &Section, key: &str, place: &Place) {
        let keys = (section.keys)();
        let title = format!("unknown key `{key}` in `{}`", section.name);
        let mut diagnostic = Diagnostic::new(title, Some(place.clone()));
        if let Some(what) = later(&format!("{}.{key}", section.name)) {
            diagnostic = diagnostic.label(format!("{what}: not in this version; leave it out"));
            return self.diagnostics.push(diagnostic);
        }
        if let Some(near) = nearest(&key.to_ascii_lowercase(), keys) {
            diagnostic = diagnostic.label(format!("did you mean `{near}`?"));
        } else if let Some(meant) = elsewhere::meant(section.name, key) {
            diagnostic = diagnostic.label(meant);
        } else if let Some(home) = SECTIONS.iter().find(|of| (of.keys)().contains(&key)) {
            diagnostic = diagnostic.label(format!("did you mean `{}.{key}`?", home.name));
        }
        self.diagnostics.push(diagnostic.help(format!(
            "the keys of `{}` are {}",
            section.name,
            keys.join(", ")
        )));
    }

    fn unknown_section(&mut self, name: &str, place: &Place) {
        if !self.unknown_sections.insert(name.to_owned()) {
            return; // Once is enough for all its keys.
        }
        let names: Vec<_> = SECTIONS.iter().map(|of| of.name).chain(["route"]).collect();
        let mut diagnostic =
            Diagnostic::new(format!("unknown table `{name}`"), Some(place.clone()));
        if let Some(what) = later(name) {
            diagnostic = diagnostic.label(format!("{what}: not in this version; leave it out"));
            return self.diagnostics.push(diagnostic);
        }
        if let Some(setting) = setting_of_variable(name) {
            diagnostic = diagnostic.label(format!("in a file it is `{setting}`"));
        } else if let Some(near) = nearest(&name.to_ascii_lowercase(), &names) {
            diagnostic = diagnostic.label(format!("did you mean `{near}`?"));
        } else if let Some(meant) = elsewhere::meant("", name) {
            diagnostic = diagnostic.label(meant);
        } else if let Some(home) = SECTIONS.iter().find(|of| (of.keys)().contains(&name)) {
            diagnostic = diagnostic.label(format!("did you mean `{}.{name}`?", home.name));
        }
        self.diagnostics.push(diagnostic.help(format!("the tables are {}", names.join(", "))));
    }

    /// Resolves what was merged. What was found wrong so far is left out, so that more can be found.
    pub(super) fn finish(
        mut self,
        file: Option<PathBuf>,
        sources: Vec<SourceText>,
    ) -> Result<Loaded, Errors> {
        let mut table: toml::Table =
            self.tables.into_iter().map(|(name, table)| (name, table.into())).collect();
        table.insert("route".into(), self.routes.into());
        let mut raw = match Raw::deserialize(table) {
            Ok(raw) => raw,
            Err(error) => {
                // Every key was valid by itself, so this is a defect of the checks above.
                self.diagnostics.push(Diagnostic::new(error.message(), None));
                Raw::default()
            }
        };
        let told =
            resolve::Diagnostics { errors: &mut self.diagnostics, warnings: &mut self.warnings };
        let mut config = resolve::resolve(&mut raw, file, &self.places, told);
        self.diagnostics.sort_by_key(Diagnostic::order);
        self.warnings.sort_by_key(Diagnostic::order);
        if self.diagnostics.is_empty() {
            let warnings = self.warnings.iter().map(|one| one.as_warning(&sources));
            config.warnings = warnings.collect();
            let warnings = Warnings { sources, diagnostics: self.warnings };
            Ok(Loaded { config, warnings, raw })
        } else {
            Err(Errors::of(sources, self.diagnostics))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_exists_is_not_called_later() {
        for (name, _) in LATER {
            let exists = match name.split_once('.') {
                Some(("route", key)) => (ROUTE.keys)().contains(&key),
                Some((table, key)) => is_key(table, key),
                None => SECTIONS.iter().any(|section| section.name == name),
            };
            assert!(!exists, "{name}");
        }
    }
}
