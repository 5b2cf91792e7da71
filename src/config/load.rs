//! From sources to a [`Config`]: every key is checked alone, so that one bad value hides no other; then the
//! sources are merged, later ones winning, and resolved.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, ValueDeserializer};

use super::diagnostic::{Diagnostic, Errors, Place};
use super::raw::{self, Raw};
use super::source::{Setting, Source, from_argument, from_file, from_variable, variable_path};
use super::{Config, resolve};

/// What a configuration is made from.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// `--config`; without it `./config.toml`, if there is one.
    pub file: Option<PathBuf>,
    /// `--set`, in order: `KEY=VALUE`.
    pub set: Vec<String>,
    /// Names and values of environment variables.
    pub environment: Vec<(String, String)>,
}

/// A valid configuration.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The resolved values.
    pub config: Config,
    raw: Raw,
}

impl Loaded {
    /// The configuration in effect, as TOML that loads to the same.
    pub fn to_toml(&self) -> String {
        // The mirror holds nothing that TOML can't say.
        toml::to_string(&self.raw).expect("the configuration is TOML")
    }
}

/// The file that is read when none is named.
const DEFAULT_FILE: &str = "config.toml";
/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads and checks a configuration. Precedence: `--set`, environment, file, default.
///
/// # Errors
/// Everything that is wrong with it, as far as that can be told at once.
pub fn load(options: &Options) -> Result<Loaded, Errors> {
    let file = match &options.file {
        Some(file) => Some(file.clone()),
        None => Some(PathBuf::from(DEFAULT_FILE)).filter(|file| file.exists()),
    };
    let mut sources = Vec::new();
    if let Some(file) = &file {
        match read(file) {
            Ok(source) => sources.push(source),
            Err(diagnostic) => {
                return Err(Errors { sources, diagnostics: vec![diagnostic] });
            }
        }
    }
    let mut variables: Vec<_> = options
        .environment
        .iter()
        .filter_map(|(name, value)| Some((variable_path(name)?, format!("{name}={value}"))))
        .collect();
    variables.sort();
    let source = |name: &str, text: &String| Source { name: name.to_owned(), text: text.clone() };
    sources.extend(variables.iter().map(|(_, text)| source("environment", text)));
    sources.extend(options.set.iter().map(|text| source("--set", text)));

    let mut merged = Merged::default();
    for (number, source) in sources.iter().enumerate() {
        let of_variables = usize::from(file.is_some());
        let of_arguments = of_variables + variables.len();
        if number < of_variables {
            match from_file(number, &source.text) {
                Ok(settings) => settings.into_iter().for_each(|setting| merged.add(setting)),
                Err(errors) => merged.diagnostics.extend(errors),
            }
        } else if number < of_arguments {
            let path = variables[number - of_variables].0.clone();
            merged.add(from_variable(number, path, &source.text));
        } else {
            match from_argument(number, &source.text) {
                Ok(setting) => merged.add(setting),
                Err(diagnostic) => merged.diagnostics.push(diagnostic),
            }
        }
    }
    let mut loaded = merged.finish(file, sources)?;
    loaded.config.supervisor.control_socket = control_socket(&loaded.config, &options.environment);
    Ok(loaded)
}

/// Where the supervisor listens for commands: beside its pid file, or in the runtime directory under a name
/// that other instances don't use. None where neither gives a place that a client could guess.
fn control_socket(config: &Config, environment: &[(String, String)]) -> Option<PathBuf> {
    if let Some(pid_file) = &config.supervisor.pid_file {
        return Some(pid_file.with_extension("sock"));
    }
    let variable = |name: &str| {
        let found = environment.iter().find(|(of, value)| of == name && !value.is_empty());
        // systemd may name several, separated by colons; the first is the service's main one.
        found.and_then(|(_, value)| value.split(':').next()).map(PathBuf::from)
    };
    let folder = variable("RUNTIME_DIRECTORY").or_else(|| variable("XDG_RUNTIME_DIR"));
    let folder = folder.or_else(|| nix::unistd::geteuid().is_root().then(|| "/run".into()))?;
    let address = config.server.listen.first()?.to_string();
    if address.ends_with(":0") {
        return None;
    }
    let name = address.replace(['[', ']'], "").replace(':', "-");
    Some(folder.join(format!("laneway-{name}.sock")))
}

fn read(file: &Path) -> Result<Source, Diagnostic> {
    let name = file.display().to_string();
    let text = resolve::read_at_most(file, FILE_BYTES_MAX).and_then(|bytes| {
        String::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    });
    match text {
        Ok(text) => Ok(Source { name, text }),
        Err(error) => Err(Diagnostic::new(format!("cannot read {name}: {error}"), None)
            .help("--config names the configuration file")),
    }
}

/// Where each key's value came from: `workers.count`, `route[2].path`.
pub(super) type Places = HashMap<String, Place>;

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
        Section { name, keys: raw::keys::<T>, check }
    }
}

const SECTIONS: [Section; 6] = [
    Section::of::<raw::Server>("server"),
    Section::of::<raw::Workers>("workers"),
    Section::of::<raw::Supervisor>("supervisor"),
    Section::of::<raw::Limits>("limits"),
    Section::of::<raw::Timeouts>("timeouts"),
    Section::of::<raw::Log>("log"),
];
const ROUTE: Section = Section::of::<raw::Route>("route");

/// The settings of all sources so far.
#[derive(Default)]
struct Merged {
    tables: BTreeMap<String, toml::Table>,
    routes: Vec<toml::Value>,
    places: Places,
    unknown_sections: HashSet<String>,
    diagnostics: Vec<Diagnostic>,
}

impl Merged {
    /// Checks one setting and puts it over any earlier one of the same key.
    fn add(&mut self, setting: Setting<'_>) {
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
            let diagnostic = Diagnostic::new("`route` is a list of tables", Some(place.clone()));
            let help = "write [[route]] and its keys below it, or set the whole list: \
                        route=[{path=\"/\", text=\"hello\"}]";
            self.diagnostics.push(diagnostic.help(help));
        }
    }

    /// `[[route]]`, or `route = [{ … }]`: takes the place of the routes of an earlier source.
    fn add_routes(&mut self, setting: &Setting<'_>) {
        let wrong = |value: &Spanned<DeValue<'_>>| {
            let place = Some(setting.place(value.span()));
            Diagnostic::new("a route is a table", place)
                .help("write [[route]] and its keys below it")
        };
        let DeValue::Array(list) = setting.value.get_ref() else {
            self.unknown_sections.insert("route".into());
            return self.diagnostics.push(wrong(&setting.value));
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
                if let Some(valid) = self.check(&ROUTE, key, &place, value, setting) {
                    checked.insert(key.to_owned(), valid);
                }
                self.places.insert(format!("{name}.{key}"), setting.place(value.span()));
            }
            self.routes.push(checked.into());
        }
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
            let title = format!("`{}.{key}`: {}", section.name, error.message());
            self.diagnostics.push(Diagnostic::new(title, Some(place)));
            return None;
        }
        toml::Value::deserialize(ValueDeserializer::from(value.clone())).ok()
    }

    fn unknown_key(&mut self, section: &Section, key: &str, place: &Place) {
        let keys = (section.keys)();
        let mut diagnostic = Diagnostic::new(
            format!("unknown key `{key}` in `{}`", section.name),
            Some(place.clone()),
        );
        if let Some(near) = nearest(key, keys) {
            diagnostic = diagnostic.label(format!("did you mean `{near}`?"));
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
        if let Some(near) = nearest(name, &names) {
            diagnostic = diagnostic.label(format!("did you mean `{near}`?"));
        } else if let Some(home) = SECTIONS.iter().find(|of| (of.keys)().contains(&name)) {
            diagnostic = diagnostic.label(format!("did you mean `{}.{name}`?", home.name));
        }
        self.diagnostics.push(diagnostic.help(format!("the tables are {}", names.join(", "))));
    }

    /// Resolves what was merged. What was found wrong so far is left out, so that more can be found.
    fn finish(mut self, file: Option<PathBuf>, sources: Vec<Source>) -> Result<Loaded, Errors> {
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
        let config = resolve::resolve(&mut raw, file, &self.places, &mut self.diagnostics);
        if self.diagnostics.is_empty() {
            Ok(Loaded { config, raw })
        } else {
            Err(Errors { sources, diagnostics: self.diagnostics })
        }
    }
}

/// The candidate that `name` was probably meant to be.
fn nearest<'c>(name: &str, candidates: &[&'c str]) -> Option<&'c str> {
    let distance = |candidate: &&str| strsim::damerau_levenshtein(name, candidate);
    let nearest = candidates.iter().copied().min_by_key(distance)?;
    // A third of the letters may be wrong; more is another word.
    (distance(&nearest) <= (name.len() / 3).max(1)).then_some(nearest)
}
