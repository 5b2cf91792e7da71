//! A page, written family by family: how names, labels and values look in each format. It knows no family.

use std::collections::BTreeSet;
use std::fmt::{Display, Write};

use super::Format;

/// What the values of a family are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Counter,
    Gauge,
    Histogram,
    /// Labels, with the value 1.
    Info,
}

/// What is said of a family before its samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct Family<'f> {
    /// Its whole name, as its samples have it: that of a counter ends in `_total`, that of an info in `_info`.
    pub(super) name: &'f str,
    pub(super) help: &'f str,
    pub(super) of_type: Type,
}

/// The labels of a sample: names and values.
pub(super) type Labels<'l> = &'l [(&'l str, &'l str)];

/// A page in the making.
pub(super) struct Page {
    text: String,
    format: Format,
    /// The names and labels of the samples so far, where it is checked that none comes twice.
    samples: BTreeSet<String>,
}

impl Page {
    pub(super) fn new(format: Format) -> Page {
        Page { text: String::new(), format, samples: BTreeSet::new() }
    }

    /// Begins a family. Its samples follow.
    pub(super) fn begin(&mut self, family: Family<'_>) {
        let Family { name, help, of_type } = family;
        let is_open = self.format == Format::OpenMetrics;
        // OpenMetrics names a family without what its samples end in.
        let suffix = match of_type {
            Type::Counter if is_open => "_total",
            Type::Info if is_open => "_info",
            _ => "",
        };
        let base = name.strip_suffix(suffix).unwrap_or(name);
        let type_name = match of_type {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
            Type::Info if is_open => "info",
            Type::Info => "gauge",
        };
        let help = escaped(help, is_open);
        self.line(format_args!("# HELP {base} {help}"));
        self.line(format_args!("# TYPE {base} {type_name}"));
        let unit = ["seconds", "bytes"]
            .into_iter()
            .find(|unit| base.strip_suffix(unit).is_some_and(|of| of.ends_with('_')));
        if let Some(unit) = unit.filter(|_| is_open) {
            self.line(format_args!("# UNIT {base} {unit}"));
        }
    }

    /// A sample. No two of a page have the same name and labels: a scraper would refuse all of it.
    pub(super) fn sample(&mut self, name: &str, labels: Labels<'_>, value: impl Display) {
        let start = self.text.len();
        self.text.push_str(name);
        for (at, (label, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            let value = escaped(value, true);
            self.put(format_args!("{before}{label}=\"{value}\""));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        if cfg!(debug_assertions) {
            let sample = self.text[start..].to_owned();
            debug_assert!(!self.samples.contains(&sample), "{sample} comes twice");
            self.samples.insert(sample);
        }
        self.line(format_args!(" {value}"));
    }

    /// A family with one sample.
    pub(super) fn single(&mut self, family: Family<'_>, labels: Labels<'_>, value: impl Display) {
        self.begin(family);
        self.sample(family.name, labels, value);
    }

    /// The page.
    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.line(format_args!("# EOF"));
        }
        self.text
    }

    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        self.put(text);
        self.text.push('\n');
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        // A string takes whatever is written to it.
        let _ = self.text.write_fmt(text);
    }
}

/// So many microseconds, in seconds.
pub(super) fn seconds_of_us(us: u64) -> f64 {
    us as f64 / 1e6
}

/// So many milliseconds, in seconds.
pub(super) fn seconds_of_ms(ms: u64) -> f64 {
    ms as f64 / 1e3
}

/// A text without what would end it.
fn escaped(text: &str, quotes: bool) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '\n' => escaped.push_str("\\n"),
            '"' if quotes => escaped.push_str("\\\""),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let mut page = Page::new(format);
        let family =
            Family { name: "a_bytes_total", help: "A \"b\"\nc\\.", of_type: Type::Counter };
        page.single(family, &[("l", "\"x\"\n\\"), ("m", "")], 7);
        let info = Family { name: "b_info", help: "B.", of_type: Type::Info };
        page.single(info, &[], 1);
        page.finish()
    }

    #[test]
    fn what_would_end_a_text_is_escaped_and_a_family_is_named_as_each_format_does() {
        assert_eq!(
            page(Format::Text),
            "# HELP a_bytes_total A \"b\"\\nc\\\\.\n# TYPE a_bytes_total counter\n\
             a_bytes_total{l=\"\\\"x\\\"\\n\\\\\",m=\"\"} 7\n# HELP b_info B.\n# TYPE b_info gauge\nb_info 1\n"
        );
        assert_eq!(
            page(Format::OpenMetrics),
            "# HELP a_bytes A \\\"b\\\"\\nc\\\\.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
             a_bytes_total{l=\"\\\"x\\\"\\n\\\\\",m=\"\"} 7\n# HELP b B.\n# TYPE b info\nb_info 1\n# EOF\n"
        );
    }

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "a{l=\"1\"} comes twice")]
    fn no_sample_comes_twice() {
        let mut page = Page::new(Format::Text);
        for label in ["1", "2", "1"] {
            page.sample("a", &[("l", label)], 0);
        }
    }

    #[test]
    fn times_are_written_in_seconds() {
        assert_eq!(seconds_of_us(1).to_string(), "0.000001");
        assert_eq!(seconds_of_us(12_345_678).to_string(), "12.345678");
        assert_eq!(seconds_of_ms(1_500).to_string(), "1.5");
    }
}
