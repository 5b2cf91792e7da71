//! The two formats of a page, and which of them a client wants (RFC 9110 §12.5.1).

/// How a page is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format 0.0.4: what every scraper reads.
    #[default]
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// What a media range says of a format: how closely it names it, and how much that is wanted, in thousandths.
type Wanted = (u8, u16);

impl Format {
    /// The field value of Content-Type.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// The type, its subtype, and the version that is written.
    fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Format::Text => ("text", "plain", "0.0.4"),
            Format::OpenMetrics => ("application", "openmetrics-text", "1.0.0"),
        }
    }

    /// The one that a client wants, by the values of its Accept fields. [`Format::Text`] where it doesn't care, and where
    /// it wants neither: a page that can be read after all is more use to a person than an error.
    pub fn negotiate<'a>(accept: impl Iterator<Item = &'a str> + Clone) -> Format {
        let wanted = |format: Format| {
            let ranges = accept.clone().flat_map(|value| value.split(','));
            // Of two that name it as closely, the one that wants it more.
            ranges.filter_map(|range| format.wanted_by(range)).max()
        };
        match (wanted(Format::OpenMetrics), wanted(Format::Text)) {
            (None | Some((_, 0)), _) => Format::Text,
            (Some(_), None) => Format::OpenMetrics,
            (Some((closely, much)), Some((closely_text, much_text))) => {
                match (much, closely) > (much_text, closely_text) {
                    true => Format::OpenMetrics,
                    false => Format::Text,
                }
            }
        }
    }

    /// What a media range says of it; `None` if it doesn't match.
    fn wanted_by(self, range: &str) -> Option<Wanted> {
        let mut parts = range.split(';').map(str::trim);
        let (of_type, subtype) = parts.next()?.split_once('/')?;
        let (own_type, own_subtype, own_version) = self.names();
        let is = |asked: &str, own: &str| asked.eq_ignore_ascii_case(own);
        let mut closely = match (of_type, subtype) {
            ("*", "*") => 0,
            (of_type, "*") if is(of_type, own_type) => 1,
            (of_type, subtype) if is(of_type, own_type) && is(subtype, own_subtype) => 2,
            _ => return None,
        };
        let mut thousandths = 1000;
        // A parameter may be empty (RFC 9110 §5.6.6).
        for parameter in parts.filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=')?;
            let value = value.trim().trim_matches('"');
            match name.trim() {
                name if is(name, "q") => thousandths = weight(value)?,
                name if is(name, "version") && closely >= 2 => {
                    if value != own_version {
                        return None;
                    }
                    closely = 3;
                }
                // A charset, or an escaping of names that are all plain: they change nothing.
                _ => {}
            }
        }
        Some((closely, thousandths))
    }
}

/// A weight in thousandths (RFC 9110 §12.4.2).
fn weight(value: &str) -> Option<u16> {
    let weight: f32 = value.parse().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
    Some((weight * 1000.0).round() as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_the_one_that_a_client_wants_most() {
        const PROMETHEUS_2: &str = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        const PROMETHEUS_3: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
        use Format::{OpenMetrics, Text};
        for (accept, format) in [
            ("", Text),
            ("*/*", Text),
            ("text/plain", Text),
            ("TEXT/*", Text),
            (BROWSER, Text),
            ("image/png", Text),
            ("nonsense", Text),
            (PROMETHEUS_2, OpenMetrics),
            (PROMETHEUS_3, OpenMetrics),
            ("application/openmetrics-text", OpenMetrics),
            ("Application/OpenMetrics-Text ; Version=1.0.0", OpenMetrics),
            ("application/openmetrics-text; version=\"1.0.0\"; charset=utf-8", OpenMetrics),
            ("application/openmetrics-text;version=1.0.0;", OpenMetrics),
            (
                "application/openmetrics-text;; version=1.0.0 ; ;q=0.5, text/plain;q=0.4;",
                OpenMetrics,
            ),
            ("application/openmetrics-text; version", Text),
            (
                "application/openmetrics-text, application/openmetrics-text; q=0, */*; q=0.5",
                OpenMetrics,
            ),
            (
                "application/openmetrics-text; q=0.9, application/openmetrics-text; q=0.1, text/plain; q=0.5",
                OpenMetrics,
            ),
            ("application/*", OpenMetrics),
            ("application/openmetrics-text; version=0.0.1", Text),
            ("application/openmetrics-text; version=2.0.0, text/plain; q=0.1", Text),
            ("application/openmetrics-text; q=0, */*", Text),
            ("application/openmetrics-text; q=0", Text),
            ("application/openmetrics-text; q=0.5, text/plain; q=0.501", Text),
            ("application/openmetrics-text; q=0.5, text/plain; q=0.499", OpenMetrics),
            ("application/openmetrics-text; q=2, text/plain; q=0.1", Text),
            ("application/openmetrics-text, text/plain", Text),
            ("application/openmetrics-text, */*", OpenMetrics),
            ("text/plain; q=0, */*", OpenMetrics),
        ] {
            assert_eq!(Format::negotiate([accept].into_iter()), format, "{accept:?}");
        }
        assert_eq!(Format::negotiate([].into_iter()), Text);
        let two = ["text/plain;q=0.3", "application/openmetrics-text"].into_iter();
        assert_eq!(Format::negotiate(two), OpenMetrics, "two fields are one list");
    }
}
