//! The engine, fed by hand as a connection feeds it: what it makes of a stream must not depend on the pieces
//! that the stream comes in.

use super::http::{BodyLength, Limits, Receiver, Step};

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
    Refused(u16),
}

/// What the engine makes of a stream that comes in these pieces, up to the first refusal.
///
/// # Panics
/// If the engine takes more than it was given, makes no progress, or goes on behind a refusal.
pub(crate) fn feed<'b>(pieces: impl IntoIterator<Item = &'b [u8]>, limits: &Limits) -> Vec<Seen> {
    let mut receiver = Receiver::default();
    let mut seen = Vec::new();
    let mut kept = Vec::new();
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
                Step::Head(head) => seen.push(Seen::Head {
                    request: format!("{} {}", head.method.name(), text(&head.target.path)),
                    line: format!("{} {}", head.method.name(), text(head.target.raw)),
                    has_body: head.body != BodyLength::None,
                    keep_alive: head.keep_alive,
                    said: format!("{head:?}"),
                }),
                Step::Body(piece) => match seen.last_mut() {
                    Some(Seen::Body(body)) => body.extend_from_slice(piece),
                    _ => seen.push(Seen::Body(piece.to_vec())),
                },
                Step::End => seen.push(Seen::End),
                Step::Refused(refusal) => {
                    let again = receiver.step(&kept[position..], limits);
                    assert_eq!(again, (0, Step::Refused(refusal)), "it went on behind a refusal");
                    seen.push(Seen::Refused(refusal.status));
                    return seen;
                }
            }
        }
        kept.drain(..position);
    }
    seen
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
