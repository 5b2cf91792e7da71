//! Responses on their way: those that a lane gathers for the connection at work, and what of them waits for a client.

use crate::content::{Body, Piece, Stream};
use crate::http::Response;
use crate::http::h1::{DATE_LINE_BYTES, Recipient, Writer};
use crate::observe::ledger::Counters;
use crate::observe::record::{End, Record};

/// Output that is gathered before it is sent, in bytes.
pub(in crate::worker) const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// Bodies up to this size are copied behind their head; larger ones are sent from where they are.
const COPIED_BODY_BYTES_MAX: usize = 16 * 1024;

/// Pieces of a stream that are asked for at once: small ones, and empty ones, must not keep a lane from its others.
pub(in crate::worker) const PIECES_PER_FILL: usize = 1024;

/// Bytes to be sent, and a large body behind them that is sent from where it is.
#[derive(Default)]
pub(in crate::worker) struct Outgoing<'s> {
    pub(in crate::worker) bytes: Vec<u8>,
    body: Option<Body<'s>>,
    /// How much of both together was sent.
    sent: usize,
    /// The requests whose responses these are, in order, each with where its response ends.
    records: Vec<(usize, Record)>,
}

/// What a lane gathers for the connection at work. Empty between two connections.
#[derive(Default)]
pub struct Output<'s> {
    pub(in crate::worker) outgoing: Outgoing<'s>,
    /// How much of it is whole responses; `None` once some may have been sent.
    whole: Option<usize>,
}

/// Content that comes piece by piece, and how it is framed.
pub(in crate::worker) struct Unfinished<'s> {
    pub(in crate::worker) writer: Writer,
    pub(in crate::worker) stream: Box<dyn Stream + 's>,
    /// Of the request that it answers.
    pub(in crate::worker) record: Record,
}

/// How content that comes piece by piece has gone on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::worker) enum Progress {
    /// There is more to come.
    Going,
    /// It was the last piece.
    Whole,
    /// It failed, or was shorter than was stated. `by_end`: the end of the connection tells the client; else a reset.
    BrokenOff {
        /// As above.
        by_end: bool,
    },
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

    /// So much of what was left was sent. Closes the records of the responses that have left.
    pub(in crate::worker) fn advance(&mut self, count: usize, counters: Counters<'_>) {
        self.sent += count;
        let gone = self.ended_by(self.sent);
        counters.end_requests(self.records[..gone].iter().map(|(_, record)| record), End::Sent);
        self.records.drain(..gone);
    }

    /// How many responses end there, or before.
    fn ended_by(&self, end: usize) -> usize {
        self.records.partition_point(|(its_end, _)| *its_end <= end)
    }

    /// Takes what is left, without the room for more that it has, and leaves nothing.
    pub(in crate::worker) fn take_unsent(&mut self) -> Outgoing<'s> {
        let bytes = self.unsent().0.to_vec();
        let of_bytes = self.sent.min(self.bytes.len());
        let sent = self.sent - of_bytes;
        let body = self.body.take();
        let records =
            self.records.drain(..).map(|(end, record)| (end - of_bytes, record)).collect();
        self.clear();
        Outgoing { bytes, body, sent, records }
    }

    /// Forgets everything, and keeps the room. Records of responses that have not left are closed.
    pub(in crate::worker) fn abandon(&mut self, counters: Counters<'_>) {
        counters.end_requests(self.records.iter().map(|(_, record)| record), End::Broken);
        self.records.clear();
        self.clear();
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.body = None;
        self.sent = 0;
    }

    /// How much memory it holds that isn't the site's, in bytes.
    pub(in crate::worker) fn held_bytes(&self) -> usize {
        let records = self.records.capacity() * size_of::<(usize, Record)>();
        self.bytes.capacity() + records + self.body.as_ref().map_or(0, Body::held_bytes)
    }

    /// How much it would hold after [`Outgoing::take_unsent`].
    pub(in crate::worker) fn unsent_held_bytes(&self) -> usize {
        let records = self.records.len() * size_of::<(usize, Record)>();
        self.unsent().0.len() + records + self.body.as_ref().map_or(0, Body::held_bytes)
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

    /// So much of it was sent; if that was all, it is empty again.
    pub fn advance(&mut self, count: usize, counters: Counters<'_>) {
        self.outgoing.advance(count, counters);
        if self.is_empty() {
            self.outgoing.clear();
        }
    }

    /// Forgets everything, and keeps the room. Records of responses that have not left are closed.
    pub fn abandon(&mut self, counters: Counters<'_>) {
        self.outgoing.abandon(counters);
    }

    /// Gives room back to the allocator that is beyond `bytes_max`.
    pub fn shrink_to(&mut self, bytes_max: usize) {
        let Outgoing { bytes, records, .. } = &mut self.outgoing;
        bytes.shrink_to(bytes_max);
        records.shrink_to(bytes_max / size_of::<(usize, Record)>());
    }

    /// Everything so far is whole responses, to which [`Output::undo`] goes back.
    pub(in crate::worker) fn mark_whole(&mut self) {
        self.whole = Some(self.outgoing.bytes.len());
    }

    /// From here on some may have been sent, so that there is nothing to go back to.
    pub(in crate::worker) fn mark_sent(&mut self) {
        self.whole = None;
    }

    /// Goes back to the last mark. False if some may have been sent since.
    pub(in crate::worker) fn undo(&mut self) -> bool {
        let Some(whole) = self.whole else {
            return false;
        };
        let kept = self.outgoing.ended_by(whole);
        self.outgoing.records.truncate(kept);
        self.outgoing.bytes.truncate(whole);
        self.outgoing.body = None;
        true
    }

    /// Adds a response to the recipient of it, with its content, which is there as a whole: bytes of the site or of its own.
    /// Says whether the connection is kept.
    #[inline]
    pub(in crate::worker) fn respond(
        &mut self,
        response: &Response,
        body: Body<'s>,
        to: Recipient,
        date: &[u8; DATE_LINE_BYTES],
        mut record: Record,
    ) -> bool {
        let bytes = &mut self.outgoing.bytes;
        let start = bytes.len();
        let length = body.bytes().len();
        let (mut writer, mut keep) = Writer::begin(bytes, response, Some(length as u64), to, date);
        // What is as long as the head says needs no framing.
        let is_sized = writer == Writer::Sized { remaining: length as u64 };
        let is_large = is_sized && length > COPIED_BODY_BYTES_MAX;
        if is_sized && !is_large {
            bytes.extend_from_slice(body.bytes());
        } else if !is_large {
            writer.put(bytes, body.bytes());
            // Of content that is shorter than was stated, the end of the connection tells.
            keep &= writer.end(bytes);
        }
        let made = bytes.len() - start + if is_large { length } else { 0 };
        if is_large {
            self.outgoing.body = Some(body);
        }
        record.respond(response.status(), made as u64);
        self.outgoing.records.push((start + made, record));
        keep
    }

    /// Begins a response whose content comes piece by piece. Says whether the connection is kept, and gives back the
    /// content, if any is to be sent.
    pub(in crate::worker) fn begin(
        &mut self,
        response: &Response,
        stream: Box<dyn Stream + 's>,
        to: Recipient,
        date: &[u8; DATE_LINE_BYTES],
        mut record: Record,
    ) -> (bool, Option<Unfinished<'s>>) {
        let bytes = &mut self.outgoing.bytes;
        let start = bytes.len();
        let (writer, keep) = Writer::begin(bytes, response, stream.length(), to, date);
        record.respond(response.status(), (bytes.len() - start) as u64);
        if writer.is_over() {
            self.outgoing.records.push((bytes.len(), record));
            return (keep, None);
        }
        (keep, Some(Unfinished { writer, stream, record }))
    }

    /// Adds to content that comes piece by piece what there is room for, if there is any to come.
    pub(in crate::worker) fn go_on(&mut self, content: &mut Unfinished<'s>) -> Progress {
        let Unfinished { writer, stream, record } = content;
        for _ in 0..PIECES_PER_FILL {
            if self.is_full() {
                break;
            }
            let bytes = &mut self.outgoing.bytes;
            let start = bytes.len();
            // More than was stated is not asked for.
            let piece = if writer.is_over() { Piece::End } else { stream.next() };
            let progress = match piece {
                Piece::Bytes(piece) => {
                    writer.put(bytes, &piece);
                    Progress::Going
                }
                Piece::End if writer.end(bytes) => Progress::Whole,
                Piece::End => Progress::BrokenOff { by_end: true },
                Piece::Failed => Progress::BrokenOff { by_end: writer.break_off() },
            };
            record.add((bytes.len() - start) as u64);
            if progress != Progress::Going {
                self.outgoing.records.push((bytes.len(), *record));
                return progress;
            }
        }
        Progress::Going
    }

    /// Adds a whole response that isn't one of HTTP/1.
    pub(in crate::worker) fn put_whole(&mut self, bytes: &[u8], status: u16, mut record: Record) {
        self.put(bytes);
        record.respond(status, bytes.len() as u64);
        self.outgoing.records.push((self.outgoing.bytes.len(), record));
    }

    /// Adds what is no response.
    pub(in crate::worker) fn put(&mut self, bytes: &[u8]) {
        self.outgoing.bytes.extend_from_slice(bytes);
    }
}
