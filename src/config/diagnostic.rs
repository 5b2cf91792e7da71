//! What is wrong with a configuration, shown where it stands: file, line, column, the text and a caret.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::source::Source;

/// A range of bytes in one of the sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Which source.
    pub(super) source: usize,
    pub(super) span: Range<usize>,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub(super) struct Diagnostic {
    title: String,
    place: Option<Place>,
    label: String,
    help: Vec<String>,
}

impl Diagnostic {
    /// `title` says what is wrong, in one line.
    pub(super) fn new(title: impl Into<String>, place: Option<Place>) -> Diagnostic {
        let title = title.into().replace('\n', ": ");
        Diagnostic { title, place, label: String::new(), help: Vec::new() }
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

    fn render(&self, sources: &[Source], renderer: &Renderer) -> String {
        let mut group = Group::with_title(Level::ERROR.primary_title(&self.title));
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
            group =
                group.element(Snippet::source(&source.text).path(&source.name).annotation(caret));
        }
        for help in &self.help {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug)]
pub struct Errors {
    pub(super) sources: Vec<Source>,
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl Errors {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.diagnostics.len()
    }

    /// All of them, for a terminal.
    pub fn coloured(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let rendered = self.diagnostics.iter().map(|one| one.render(&self.sources, renderer));
        rendered.collect::<Vec<_>>().join("\n\n")
    }
}

/// All of them, without colour.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(&Renderer::plain()))
    }
}
