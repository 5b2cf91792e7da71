//! Responses on their way: those that a lane gathers for the connection at work, and what of them waits for a client.

use crate::content::{Body, FileSpan, Piece, Stream};
use crate::http::Response;
use crate::http::h1::{self, DATE_LINE_BYTES, Recipient, Writer};
use crate::observe::access::Access;
use crate::observe::record::Record;
use crate::worker::driver::Payload;

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
    /// Whose requests have ids that their responses repeat, if that is wanted.
    pub(in crate::worker) ids: Option<&'s Access>,
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
    /// There is more to come, and not yet.
    Waiting,
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
    pub(in crate::worker) fn unsent(&self) -> (&[u8], Payload<'_>) {
        let of_bytes = self.sent.min(self.bytes.len());
        let of_body = self.sent - of_bytes;
        let body = match &self.body {
            None => Payload::Bytes(&[]),
            Some(Body::File(span)) => Payload::File {
                file: span.file(),
                offset: span.offset() + of_body as u64,
                length: span.length() as usize - of_body,
            },
            Some(body) => Payload::Bytes(&body.bytes()[of_body..]),
        };
        (&self.bytes[of_bytes..], body)
    }

    /// Whether nothing is left to be sent.
    pub(in crate::worker) fn is_empty(&self) -> bool {
        let (bytes, body) = self.unsent();
        bytes.is_empty() && body.is_empty()
    }

    /// So much of what was left was sent. Gives out the records of the responses that have left.
    pub(in crate::worker) fn advance(&mut self, count: usize) -> impl Iterator<Item = Record> {
        self.sent += count;
        let gone = self.ended_by(self.sent);
        if self.is_empty() {
            self.clear();
        }
        self.records.drain(..gone).map(|(_, record)| record)
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

    /// Forgets everything, and keeps the room. Gives out the records of the responses that have not left.
    pub(in crate::worker) fn abandon(&mut self) -> impl Iterator<Item = Record> {
        self.clear();
        self.records.drain(..).map(|(_, record)| record)
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
    pub fn unsent(&self) -> (&[u8], Payload<'_>) {
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

    /// So much of it was sent. Gives out the records of the responses that have left.
    pub fn advance(&mut self, count: usize) -> impl Iterator<Item = Record> {
        self.outgoing.advance(count)
    }

    /// Forgets everything, and keeps the room. Gives out the records of the responses that have not left.
    pub fn abandon(&mut self) -> impl Iterator<Item = Record> {
        self.outgoing.abandon()
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

    /// Goes back to the last mark, and gives out the record of the response behind it, if there was one. `None` if some
    /// may have been sent since.
    pub(in crate::worker) fn undo(&mut self) -> Option<Option<Record>> {
        let whole = self.whole?;
        let kept = self.outgoing.ended_by(whole);
        let undone = self.outgoing.records.drain(kept..).next();
        self.outgoing.bytes.truncate(whole);
        self.outgoing.body = None;
        Some(undone.map(|(_, record)| record.reopen()))
    }

    /// Begins a response in front of whose content nothing is but its head.
    #[inline]
    fn begin_head(
        &mut self,
        response: &Response,
        length: Option<u64>,
        to: Recipient,
        date: &[u8; DATE_LINE_BYTES],
        record: &mut Record,
    ) -> (Writer, bool) {
        let bytes = &mut self.outgoing.bytes;
        let start = bytes.len();
        let begun = Writer::begin(bytes, response, length, to, date);
        if let Some(access) = self.ids {
            h1::add_field(bytes, "X-Request-Id", |value| access.put_id(record.ticket(), value));
        }
        record.respond(response.status(), bytes.len() - start);
        begun
    }

    /// Adds a response to the recipient of it, with its content, which is there as a whole: in memory, or in a file. Says
    /// whether the connection is kept.
    #[inline]
    pub(in crate::worker) fn respond(
        &mut self,
        response: &Response,
        body: Body<'s>,
        to: Recipient,
        date: &[u8; DATE_LINE_BYTES],
        mut record: Record,
    ) -> bool {
        let length = body.length();
        let (mut writer, keep) = self.begin_head(response, length, to, date, &mut record);
        let bytes = &mut self.outgoing.bytes;
        let start = bytes.len();
        let mut is_whole = true;
        // What is as long as the head says needs no framing.
        let is_sized = length.is_some_and(|remaining| writer == Writer::Sized { remaining });
        let apart = match body {
            Body::File(mut span) => {
                span.limit(writer.pass(span.length()));
                is_whole = writer.end(bytes);
                Some(Body::File(span))
            }
            body if is_sized && body.bytes().len() > COPIED_BODY_BYTES_MAX => Some(body),
            body if is_sized => {
                bytes.extend_from_slice(body.bytes());
                None
            }
            body => {
                writer.put(bytes, body.bytes());
                is_whole = writer.end(bytes);
                None
            }
        };
        let length_apart = apart.as_ref().and_then(Body::length).unwrap_or(0) as usize;
        let made = bytes.len() - start + length_apart;
        if length_apart > 0 {
            self.outgoing.body = apart;
        }
        record.add(made as u64);
        if !is_whole {
            // The end of the connection tells of it.
            record.cut();
        }
        self.outgoing.records.push((start + made, record));
        keep && is_whole
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
        let (writer, keep) = self.begin_head(response, stream.length(), to, date, &mut record);
        if writer.is_over() {
            self.outgoing.records.push((self.outgoing.bytes.len(), record));
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
                Piece::File(span) => return self.put_span(span, writer, record),
                Piece::Later => return Progress::Waiting,
                Piece::End if writer.end(bytes) => Progress::Whole,
                Piece::End => Progress::BrokenOff { by_end: true },
                Piece::Failed => Progress::BrokenOff { by_end: writer.break_off() },
            };
            record.add((bytes.len() - start) as u64);
            if let Progress::BrokenOff { .. } = progress {
                record.cut();
            }
            if progress != Progress::Going {
                self.outgoing.records.push((bytes.len(), *record));
                return progress;
            }
        }
        Progress::Going
    }

    /// Adds a part of a file to content that comes piece by piece: more is gathered once that is sent.
    fn put_span(
        &mut self,
        mut span: FileSpan,
        writer: &mut Writer,
        record: &mut Record,
    ) -> Progress {
        span.limit(writer.pass(span.length()));
        record.add(span.length());
        let end = self.outgoing.bytes.len() + span.length() as usize;
        self.outgoing.body = Some(Body::File(Box::new(span)));
        if !writer.is_over() {
            return Progress::Going;
        }
        // With the last of it the response leaves.
        self.outgoing.records.push((end, *record));
        Progress::Whole
    }

    /// Ends content that comes piece by piece before it is whole.
    pub(in crate::worker) fn break_off(&mut self, content: &mut Unfinished<'s>) -> Progress {
        content.record.cut();
        self.outgoing.records.push((self.outgoing.bytes.len(), content.record));
        Progress::BrokenOff { by_end: content.writer.break_off() }
    }

    /// Adds a whole response that isn't one of HTTP/1.
    pub(in crate::worker) fn put_whole(&mut self, bytes: &[u8], status: u16, mut record: Record) {
        self.put(bytes);
        record.respond(status, bytes.len());
        self.outgoing.records.push((self.outgoing.bytes.len(), record));
    }

    /// Adds what is no response.
    pub(in crate::worker) fn put(&mut self, bytes: &[u8]) {
        self.outgoing.bytes.extend_from_slice(bytes);
    }
}
