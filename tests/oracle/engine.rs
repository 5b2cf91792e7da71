//! The engine, fed by hand as a connection feeds it: what it makes of a stream must not depend on the pieces
//! that the stream comes in.

use super::http::h1::{Receiver, Step};
use super::http::{BodyLength, Limits};

/// A step, with what it borrowed made its own and the pieces of a body joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Head {
        /// Method and decoded path.
        request: String,
        /// Method and target as they came.
        line: String,
        /// Whether a body follows, even an empty one.
        has_body: bool,
        /// Whether another request may follow.
        keep_alive: bool,
        /// All that the head says.
        said: String,
    },
    Body(Vec<u8>),
    End,
    Refused {
        status: u16,
        /// Whether what was refused is a HEAD.
        is_head: bool,
    },
    /// The stream ends within a request.
    Unfinished {
        /// Whether that is known to be a HEAD.
        is_head: bool,
    },
}

/// What the engine makes of a stream that comes in these pieces, up to the first refusal.
///
/// # Panics
/// If the engine takes more than it was given, makes no progress, or goes on behind a refusal.
pub(crate) fn feed<'b>(pieces: impl IntoIterator<Item = &'b [u8]>, limits: &Limits) -> Vec<Seen> {
    let mut receiver = Receiver::default();
    let mut seen = Vec::new();
    let mut kept = Vec::new();
    // Within a message that has a body: whether its method is HEAD.
    let mut within = None;
    for piece in pieces {
        kept.extend_from_slice(piece);
        let mut position = 0;
        loop {
            let (consumed, step) = receiver.step(&kept[position..], limits);
            assert!(consumed <= kept.len() - position, "it took more than there was");
            let stuck = consumed == 0 && matches!(step, Step::Head(_) | Step::Body(_));
            assert!(!stuck, "it made no progress: {step:?}");
            position += consumed;
            match step {
                Step::Incomplete => break,
                Step::Head(head) => {
                    let method = head.request.method.name();
                    let has_body = head.request.body != BodyLength::None;
                    within = has_body.then_some(method == "HEAD");
                    seen.push(Seen::Head {
                        request: format!("{method} {}", text(&head.request.target.path)),
                        line: format!("{method} {}", text(head.request.target.raw)),
                        has_body,
                        keep_alive: head.keep_alive,
                        said: format!("{head:?}"),
                    });
                }
                Step::Body(piece) => match seen.last_mut() {
                    Some(Seen::Body(body)) => body.extend_from_slice(piece),
                    _ => seen.push(Seen::Body(piece.to_vec())),
                },
                Step::End => {
                    within = None;
                    seen.push(Seen::End);
                }
                Step::Refused(refusal) => {
                    let again = receiver.step(&kept[position..], limits);
                    assert_eq!(again, (0, Step::Refused(refusal)), "it went on behind a refusal");
                    let is_head = within.unwrap_or(kept[position..].starts_with(b"HEAD "));
                    assert_eq!(receiver.is_head(), is_head, "it lost sight of the method");
                    seen.push(Seen::Refused { status: refusal.status, is_head });
                    return seen;
                }
            }
        }
        kept.drain(..position);
    }
    if !receiver.is_idle() {
        let is_head = within.unwrap_or(kept.starts_with(b"HEAD "));
        assert_eq!(receiver.is_head(), is_head, "it lost sight of the method");
        seen.push(Seen::Unfinished { is_head });
    }
    seen
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
