//! What is wrong with a configuration, shown where it stands: file, line, column, the text and a caret.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::{Deserialize, Serialize};

/// A text that settings were read from.
#[derive(Clone, Debug)]
pub(super) struct SourceText {
    /// The file's path, "environment" or "command line".
    pub(super) name: String,
    pub(super) text: String,
}

/// A range of bytes in one of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which source.
    pub(super) source: usize,
    pub(super) span: Range<usize>,
}

/// Where each key's value came from: `workers.count`, `route[2].path`.
pub(super) type KeyPlaces = HashMap<String, Place>;

/// One thing that is wrong, or that may be.
#[derive(Clone, Debug)]
pub(super) struct Diagnostic {
    title: String,
    place: Option<Place>,
    label: String,
    /// Another place that has to do with it, in the same source, and what it is.
    other: Option<(Range<usize>, String)>,
    help: Vec<String>,
}

/// Something that is allowed, and is probably not what was meant: as a log event tells it.
///
/// ```
/// use laneway::config::{Options, Warning, Warnings, load};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into());
/// options.environment = vec![("LANEWAY_WORKERS_COUNT".into(), "2".into())];
/// let loaded = load(&options).expect("valid");
/// let Warning { place, reason, .. } = &loaded.config.warnings[0];
/// eprintln!("{place}: {reason}");
/// assert!(reason.contains("LANEWAY_WORKERS_COUNT"));
///
/// // The same, with the text and a caret below it.
/// let warnings: Warnings = loaded.warnings;
/// assert!(!warnings.is_empty());
/// assert!(warnings.to_string().contains("^"));
/// assert!(warnings.coloured().len() > warnings.to_string().len());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Warning {
    /// Source, line and column, such as `config.toml:3:1`.
    pub place: String,
    /// What, and why.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
}

impl Diagnostic {
    /// `title` says what is wrong, in one line.
    pub(super) fn new(title: impl Into<String>, place: Option<Place>) -> Diagnostic {
        let title = title.into().replace('\n', ": ");
        Diagnostic { title, place, label: String::new(), other: None, help: Vec::new() }
    }

    /// The same, of a text whose second line, if it has one, is the help: what a value's own check says. A word that
    /// was probably meant stands at the caret.
    pub(super) fn of_text(text: &str, place: Place) -> Diagnostic {
        let (title, help) = text.split_once('\n').unwrap_or((text, ""));
        let diagnostic = Diagnostic::new(title, Some(place));
        match help {
            "" => diagnostic,
            meant if meant.starts_with("did you mean") => diagnostic.label(meant),
            help => diagnostic.help(help),
        }
    }

    /// Points at `place`, too, if it is in the same source.
    pub(super) fn other(mut self, place: Option<Place>, label: impl Into<String>) -> Diagnostic {
        if let Some(place) = place
            && self.place.as_ref().is_some_and(|own| own.source == place.source)
        {
            self.other = Some((place.span, label.into()));
        }
        self
    }

    /// Words at the caret.
    pub(super) fn label(mut self, label: impl Into<String>) -> Diagnostic {
        self.label = label.into();
        self
    }

    /// What is allowed, or what to do.
    pub(super) fn help(mut self, help: impl Into<String>) -> Diagnostic {
        self.help.push(help.into());
        self
    }

    /// Where it belongs among others: in the order of the sources, and without a place at the end.
    pub(super) fn order(&self) -> (usize, usize) {
        let place = self.place.as_ref().map(|place| (place.source, place.span.start));
        place.unwrap_or((usize::MAX, 0))
    }

    /// As a log event tells it.
    pub(super) fn as_warning(&self, sources: &[SourceText]) -> Warning {
        let source = |place: &Place| Some((sources.get(place.source)?, place.span.start));
        let place =
            self.place.as_ref().and_then(source).map_or_else(String::new, |(source, at)| {
                let before = source.text.get(..at).unwrap_or_default();
                let line = before.matches('\n').count() + 1;
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                format!("{}:{line}:{column}", source.name)
            });
        let label = Some(&self.label).filter(|label| !label.is_empty());
        let remedy: Vec<_> = label.into_iter().chain(&self.help).map(String::as_str).collect();
        let remedy = remedy.join("; ").replace("?;", "?");
        Warning { place, reason: self.title.clone(), remedy }
    }

    fn render(&self, sources: &[SourceText], renderer: &Renderer, level: Level<'_>) -> String {
        let mut group = Group::with_title(level.primary_title(&self.title));
        if let Some(Place { source, span }) = &self.place
            && let Some(source) = sources.get(*source)
        {
            // An empty range (an end of file) still needs a caret to be seen.
            let start = span.start.min(source.text.len());
            let end = span.end.clamp(start, source.text.len());
            let mut caret = AnnotationKind::Primary.span(start..end);
            if !self.label.is_empty() {
                caret = caret.label(&self.label);
            }
            let mut snippet = Snippet::source(&source.text).path(&source.name).annotation(caret);
            if let Some((span, label)) = &self.other {
                snippet =
                    snippet.annotation(AnnotationKind::Context.span(span.clone()).label(label));
            }
            group = group.element(snippet);
        }
        for help in &self.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }
}

/// All of them, below each other.
fn render_all(
    diagnostics: &[Diagnostic],
    sources: &[SourceText],
    renderer: &Renderer,
    level: &Level<'_>,
) -> String {
    let rendered = diagnostics.iter().map(|one| one.render(sources, renderer, level.clone()));
    rendered.collect::<Vec<_>>().join("\n\n")
}

/// How many errors of a configuration are told: showing each searches its text.
pub const ERRORS_MAX: usize = 100;

/// What is wrong with a configuration: everything, or the first 100 and a note that there are more.
///
/// ```
/// use laneway::config::{Errors, Options, load};
///
/// let mut options = Options::default();
/// options.folder = Some("/nonexistent".into());
/// options.set = vec!["workers.count=0".into(), "limits.body=much".into()];
/// let errors: Errors = load(&options).expect_err("two wrong values");
/// assert_eq!(errors.count(), 2);
/// // Plain in a log, and with colours on a terminal.
/// assert!(errors.to_string().contains("workers.count"));
/// assert!(errors.coloured().len() > errors.to_string().len());
/// ```
#[derive(Debug)]
pub struct Errors {
    pub(super) sources: Vec<SourceText>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Errors {
    /// Those that are to be told. `diagnostics` is in the order in which they are.
    pub(super) fn of(sources: Vec<SourceText>, mut diagnostics: Vec<Diagnostic>) -> Errors {
        if diagnostics.len() > ERRORS_MAX {
            diagnostics.truncate(ERRORS_MAX);
            diagnostics.push(Diagnostic::new("there are more errors, which are not shown", None));
        }
        Errors { sources, diagnostics }
    }

    /// How many there are; beyond 100, one more than that.
    pub fn count(&self) -> usize {
        self.diagnostics.len()
    }

    /// All of them, for a terminal.
    pub fn coloured(&self) -> String {
        render_all(&self.diagnostics, &self.sources, &Renderer::styled(), &Level::ERROR)
    }
}

/// All of them, without colour.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = Renderer::plain();
        f.write_str(&render_all(&self.diagnostics, &self.sources, &renderer, &Level::ERROR))
    }
}

/// What of a valid configuration is probably not what was meant.
#[derive(Clone, Debug, Default)]
pub struct Warnings {
    pub(super) sources: Vec<SourceText>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Warnings {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// All of them, for a terminal.
    pub fn coloured(&self) -> String {
        render_all(&self.diagnostics, &self.sources, &Renderer::styled(), &Level::WARNING)
    }
}

/// All of them, without colour.
impl fmt::Display for Warnings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let renderer = Renderer::plain();
        f.write_str(&render_all(&self.diagnostics, &self.sources, &renderer, &Level::WARNING))
    }
}
