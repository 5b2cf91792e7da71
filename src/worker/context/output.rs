//! Responses on their way: those that a lane gathers for the connection at work, and what of them waits for a client.

use crate::content::{Body, Reply, Stream};
use crate::http::h1::{DATE_LINE_BYTES, Recipient, Writer};

/// Output that is gathered before it is sent, in bytes.
pub(in crate::worker) const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Bodies up to this size are copied behind their head; larger ones are sent from where they are.
const COPIED_BODY_BYTES_MAX: usize = 16 * 1024;

/// Bytes to be sent, and a large body behind them that is sent from where it is.
#[derive(Default)]
pub(in crate::worker) struct Outgoing<'s> {
    pub(in crate::worker) bytes: Vec<u8>,
    body: Option<Body<'s>>,
    /// How much of both together was sent.
    sent: usize,
}

/// What a lane gathers for the connection at work. Empty between two connections.
#[derive(Default)]
pub struct Output<'s> {
    pub(in crate::worker) outgoing: Outgoing<'s>,
    /// How much of it is whole responses; `None` once some may have been sent.
    whole: Option<usize>,
}

/// Unfinished that comes piece by piece, and how it is framed.
pub(in crate::worker) struct Unfinished<'s> {
    pub(in crate::worker) writer: Writer,
    pub(in crate::worker) stream: Box<dyn Stream + 's>,
}

impl<'s> Outgoing<'s> {
    /// What is left to be sent: of the bytes, and of the body behind them.
    pub(in crate::worker) fn unsent(&self) -> (&[u8], &[u8]) {
        let body = self.body.as_ref().map_or(&[][..], Body::bytes);
        let of_bytes = self.sent.min(self.bytes.len());
        (&self.bytes[of_bytes..], &body[self.sent - of_bytes..])
    }

    /// Whether nothing is left to be sent.
    pub(in crate::worker) fn is_empty(&self) -> bool {
        let (bytes, body) = self.unsent();
        bytes.is_empty() && body.is_empty()
    }

    /// So much of what was left was sent.
    pub(in crate::worker) fn advance(&mut self, count: usize) {
        self.sent += count;
    }

    /// Takes what is left, without the room for more that it has, and leaves nothing.
    pub(in crate::worker) fn take_unsent(&mut self) -> Outgoing<'s> {
        let bytes = self.unsent().0.to_vec();
        let sent = self.sent.saturating_sub(self.bytes.len());
        let body = self.body.take();
        self.clear();
        Outgoing { bytes, body, sent }
    }

    /// Forgets everything, and keeps the room.
    pub(in crate::worker) fn clear(&mut self) {
        self.bytes.clear();
        self.body = None;
        self.sent = 0;
    }

    /// How much memory it holds that isn't the site's, in bytes.
    pub(in crate::worker) fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.body.as_ref().map_or(0, Body::held_bytes)
    }

    /// How much it would hold after [`Outgoing::take_unsent`].
    pub(in crate::worker) fn unsent_held_bytes(&self) -> usize {
        self.unsent().0.len() + self.body.as_ref().map_or(0, Body::held_bytes)
    }
}

impl<'s> Output<'s> {
    /// What has been gathered, and a large body behind it.
    pub fn unsent(&self) -> (&[u8], &[u8]) {
        self.outgoing.unsent()
    }

    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Whether it has to be sent before more is gathered.
    pub(in crate::worker) fn is_full(&self) -> bool {
        self.outgoing.bytes.len() >= OUTPUT_BYTES_MAX || self.outgoing.body.is_some()
    }

    /// Forgets everything, and keeps the room.
    pub fn clear(&mut self) {
        self.outgoing.clear();
    }

    /// Gives room back to the allocator that is beyond `bytes_max`.
    pub fn shrink_to(&mut self, bytes_max: usize) {
        self.outgoing.bytes.shrink_to(bytes_max);
    }

    /// Everything so far is whole responses, to which [`Output::undo`] goes back.
    pub(in crate::worker) fn mark_whole(&mut self) {
        self.whole = Some(self.outgoing.bytes.len());
    }

    /// From here on some may have been sent, so that there is nothing to go back to.
    pub(in crate::worker) fn mark_sent(&mut self) {
        self.whole = None;
    }

    /// Nothing was gathered for this connection, or all of it was sent.
    pub(in crate::worker) fn mark_unused(&mut self) {
        self.whole = Some(0);
    }

    /// Goes back to the last mark. False if some may have been sent since.
    pub(in crate::worker) fn undo(&mut self) -> bool {
        let Some(whole) = self.whole else {
            return false;
        };
        self.outgoing.bytes.truncate(whole);
        self.outgoing.body = None;
        true
    }

    /// Where bytes are added that are no whole response.
    pub(in crate::worker) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.outgoing.bytes
    }

    /// Adds a response to the recipient of it, with its content if that is all there. Says whether the connection is kept,
    /// and gives back what of the content is still to come.
    pub(in crate::worker) fn respond(
        &mut self,
        reply: Reply<'s>,
        to: Recipient,
        date: &[u8; DATE_LINE_BYTES],
    ) -> (bool, Option<Unfinished<'s>>) {
        let Reply { response, body } = reply;
        let bytes = &mut self.outgoing.bytes;
        let (mut writer, keep) = Writer::begin(bytes, &response, body.length(), to, date);
        if writer.is_over() {
            return (keep, None);
        }
        if body.bytes().len() > COPIED_BODY_BYTES_MAX {
            // It is as long as the head says, and needs no framing.
            self.outgoing.body = Some(body);
            return (keep, None);
        }
        writer.put(bytes, body.bytes());
        match body {
            Body::Stream(stream) => (keep, Some(Unfinished { writer, stream })),
            Body::Shared(_) | Body::Owned(_) => (keep, None),
        }
    }
}
