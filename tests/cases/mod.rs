//! Raw requests and what must come of each, as RFC 9112 and RFC 9110 ask: one table, driven over sockets
//! and through `laneway::internals::http` alike. A refused input comes with its repaired twin, which must be served:
//! an input that is refused for the wrong reason proves nothing.

mod body;
mod head;

/// One input, or one refused input with its twin.
pub(crate) struct Case {
    /// What it is about, with its section (`§` of RFC 9112, `S:` of RFC 9110).
    pub(crate) what: &'static str,
    pub(crate) input: Vec<u8>,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Answered with one of these and closed, with nothing behind it answered. This twin is served. An input that
    /// begins with `HEAD ` gets no body with it.
    Refused { statuses: &'static [u16], twin: Vec<u8> },
    /// Answered with 2xx, and what follows it too.
    Served,
    /// The same, with this body.
    Echoed(&'static str),
    /// Answered with this status, and what follows it with 2xx.
    Answered(u16),
    /// Answered with 2xx and closed, with nothing behind it answered.
    Last,
    /// The stream ends within the message: never answered with 2xx.
    CutOff,
}

/// Every case.
pub(crate) fn all() -> Vec<Case> {
    [
        head::request_lines(),
        head::refused_heads(),
        head::methods(),
        head::empty_lines(),
        head::paths(),
        head::hosts(),
        head::fields(),
        body::all(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// `bad` and its repaired twin, each as a whole request.
fn refused(
    what: &'static str,
    statuses: &'static [u16],
    bad: impl Into<Vec<u8>>,
    twin: impl Into<Vec<u8>>,
) -> Case {
    let outcome = Outcome::Refused { statuses, twin: twin.into() };
    Case { what, input: bad.into(), outcome }
}

fn served(what: &'static str, input: impl Into<Vec<u8>>) -> Case {
    Case { what, input: input.into(), outcome: Outcome::Served }
}

fn echoed(what: &'static str, input: impl Into<Vec<u8>>, body: &'static str) -> Case {
    Case { what, input: input.into(), outcome: Outcome::Echoed(body) }
}

fn answered(what: &'static str, input: impl Into<Vec<u8>>, status: u16) -> Case {
    Case { what, input: input.into(), outcome: Outcome::Answered(status) }
}

fn last(what: &'static str, input: impl Into<Vec<u8>>) -> Case {
    Case { what, input: input.into(), outcome: Outcome::Last }
}

fn cut_off(what: &'static str, input: impl Into<Vec<u8>>) -> Case {
    Case { what, input: input.into(), outcome: Outcome::CutOff }
}
