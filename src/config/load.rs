//! From the file, the environment and the command line to a [`Config`](super::Config): reads each, and has them merged.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::Path;

use super::diagnostic::{Diagnostic, Errors, Place, SourceText};
use super::merge::{self, Loaded, Merged};
use super::options::{DEFAULT_FILE, Options};
use super::resolve::files::{read_at_most, read_file};
use super::settings::Content;
use super::source::variables::{self, Variable};
use super::source::{from_argument, from_file, from_variable};

/// The text of the configuration file, whatever is in it; none if there is no file. An error if it isn't a regular one.
pub(super) fn text(options: &Options) -> Result<String, Errors> {
    // Not what could keep a command waiting: a pipe without a writer, or standard input.
    let source = options.file().map(|file| read(&file, read_file)).transpose()?;
    Ok(source.map(|source| source.text).unwrap_or_default())
}

/// Largest configuration file, in bytes.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Reads and checks a configuration. Precedence: `--set`, environment, file, default.
///
/// # Errors
/// Everything that is wrong with it, as far as that can be told at once.
pub fn load(options: &Options) -> Result<Loaded, Errors> {
    load_from(options, read_at_most)
}

/// As [`load`], while a server runs: a file that isn't a regular one is an error, since it could be read once alone, or
/// keep its reader waiting for ever; so is a blank one, if [`Options::must_be_written`].
///
/// # Errors
/// As for [`load`].
pub fn reload(options: &Options) -> Result<Loaded, Errors> {
    load_from(options, read_file)
}

/// How a file of so many bytes at most is read.
type ReadFile = fn(&Path, u64) -> io::Result<Vec<u8>>;

fn load_from(options: &Options, read_file: ReadFile) -> Result<Loaded, Errors> {
    let file = options.file();
    let mut sources = Vec::new();
    if let Some(file) = &file {
        sources.push(read(file, read_file)?);
    }
    let (variables, unknown) = variables_of(options);
    let source =
        |name: &str, text: &str| SourceText { name: name.to_owned(), text: text.to_owned() };
    sources.extend(variables.iter().map(|(_, text)| source("environment", text)));
    sources.extend(options.set.iter().map(|text| source("command line", text)));
    // A variable that is no setting may be a secret of another program's: its value is not shown.
    sources.extend(unknown.iter().map(|name| source("environment", name)));

    let mut merged = Merged::default();
    let of_variables = usize::from(file.is_some());
    let of_arguments = of_variables + variables.len();
    let of_unknown = of_arguments + options.set.len();
    let mut is_written = false;
    for (number, source) in sources.iter().enumerate() {
        if number < of_variables {
            match from_file(number, &source.text) {
                Ok(settings) if settings.is_empty() && options.must_be_written => {
                    merged.diagnostics.push(blank(number));
                }
                Ok(settings) => {
                    is_written = !settings.is_empty();
                    settings.into_iter().for_each(|setting| merged.add(setting));
                }
                Err(errors) => merged.diagnostics.extend(errors),
            }
        } else if number < of_arguments {
            let path = variables[number - of_variables].0.clone();
            merged.add(from_variable(number, path, &source.text));
        } else if number < of_unknown {
            match from_argument(number, &source.text) {
                Ok(setting) => merged.add(setting),
                Err(diagnostic) => merged.diagnostics.push(*diagnostic),
            }
        } else {
            let place = Place { source: number, span: 0..source.text.len() };
            merged.warnings.push(variables::unknown(&source.text, place, &merge::all_keys()));
        }
    }
    let mut loaded = merged.finish(file, sources)?;
    loaded.config.is_written = is_written;
    let texts = loaded.warnings.sources.iter().map(|source| source.text.as_bytes());
    let bodies = loaded.config.routes.iter().filter_map(|route| match &route.content {
        Content::Fixed { body, .. } => Some(&body[..]),
        _ => None,
    });
    loaded.config.fingerprint = fingerprint(texts.chain(bodies));
    loaded.config.colour = variables::takes_colour(&options.environment);
    Ok(loaded)
}

impl Errors {
    /// What tells what is wrong from something else that is: see [`Config::fingerprint`](super::Config).
    pub(crate) fn fingerprint(&self) -> u64 {
        let told = self.to_string();
        let texts = self.sources.iter().map(|source| source.text.as_bytes());
        fingerprint(texts.chain([told.as_bytes()]))
    }
}

/// A number that another one differs from if any of these bytes does, for as long as this process lives.
fn fingerprint<'b>(parts: impl Iterator<Item = &'b [u8]>) -> u64 {
    let mut hasher = DefaultHasher::new();
    // With its length each part has an end.
    parts.for_each(|part| part.hash(&mut hasher));
    hasher.finish()
}

/// What is wrong with a file that had settings, and has none now.
fn blank(source: usize) -> Diagnostic {
    let title = "the file is blank, and the configuration that is served is of one that was not";
    Diagnostic::new(title, Some(Place { source, span: 0..0 }))
        .help("an editor may empty it for a moment while it saves: reload again when the file is written")
        .help("if the defaults are wanted, write [server] into it, or stop and start the server")
}

/// Settings of the environment with their texts, and the names that were probably meant as such.
fn variables_of(options: &Options) -> (Vec<(Vec<String>, String)>, Vec<String>) {
    let (mut settings, mut unknown) = (Vec::new(), Vec::new());
    for (name, value) in &options.environment {
        match Variable::of(name, value, merge::is_key) {
            Variable::Setting(path) => settings.push((path, format!("{name}={value}"))),
            Variable::Unknown => unknown.push(name.clone()),
            Variable::Other => {}
        }
    }
    settings.sort();
    unknown.sort();
    (settings, unknown)
}

/// The text of the configuration file.
fn read(file: &Path, read_file: ReadFile) -> Result<SourceText, Errors> {
    let name = file.display().to_string();
    let failed = |source: Option<SourceText>, diagnostic: Diagnostic| Errors {
        sources: source.into_iter().collect(),
        diagnostics: vec![diagnostic],
    };
    if file.is_dir() {
        let inside = file.join(DEFAULT_FILE);
        let help = if inside.exists() {
            format!("name the file in it: --config {}", inside.display())
        } else {
            "--config names a file".to_owned()
        };
        let title = format!("cannot read {name}: it is a folder");
        return Err(failed(None, Diagnostic::new(title, None).help(help)));
    }
    let bytes = read_file(file, FILE_BYTES_MAX).map_err(|error| {
        let title = format!("cannot read {name}: {error}");
        failed(None, Diagnostic::new(title, None).help("--config names the configuration file"))
    })?;
    String::from_utf8(bytes).map(|text| SourceText { name: name.clone(), text }).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.into_bytes();
        let label = format!("the byte 0x{:02x} begins no character", bytes[at]);
        let help = if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            "it looks like UTF-16: save it as UTF-8"
        } else {
            "save it as UTF-8"
        };
        // What stands for the byte, and for each that follows: U+FFFD.
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let place = Place { source: 0, span: at..at + char::REPLACEMENT_CHARACTER.len_utf8() };
        let title = "the configuration is not UTF-8 text";
        let diagnostic = Diagnostic::new(title, Some(place)).label(label).help(help);
        failed(Some(SourceText { name, text }), diagnostic)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Content};

    #[test]
    fn every_setting_comes_through_the_form_in_which_a_reload_hands_it_over() {
        let set = [
            "server.listen=[\"127.0.0.1:1\", \"[::1]:2\", \"localhost:3\"]",
            "server.backlog=1",
            "server.merge_slashes=false",
            "workers.mode=processes",
            "workers.count=1024",
            "workers.driver=io_uring",
            "workers.accept=handoff",
            "workers.max_connections=1048576",
            "supervisor.drain_timeout=0s",
            "supervisor.ready_timeout=1ms",
            "supervisor.watchdog=0s",
            "supervisor.pid_file=/run/s.pid",
            "supervisor.user=nobody",
            "limits.request_line=65",
            "limits.headers=10000",
            "limits.body=1GiB",
            "limits.body_rate=0B",
            "limits.requests_per_connection=4294967295",
            "timeouts.body=365d",
            "log.level=trace",
            "files.cache_bytes=1MiB",
            "files.cache_ttl=0s",
            "route=[{path=\"/files/*\", files=\"/usr\", index=[], symlinks=\"never\", cache_control={\"*\"=\"a\"}}, {path=\"/*\", echo=\"request\", delay=\"1ms\", headers={X=\"1\"}}]",
        ];
        let defaults = Options { folder: Some("/nonexistent".into()), ..Options::default() };
        let given = Options { set: set.map(str::to_owned).to_vec(), ..defaults.clone() };
        for options in [&given, &defaults] {
            let mut config = load(options).expect("valid").config;
            if let Some(Content::Fixed { body, .. }) =
                config.routes.first_mut().map(|route| &mut route.content)
            {
                *body = [].into(); // It isn't serialized with the others.
            }
            let text = serde_json::to_string(&config).expect("JSON");
            let again: Config = serde_json::from_str(&text).expect("the same again");
            assert_eq!(format!("{again:?}"), format!("{config:?}"));
        }
    }
}
