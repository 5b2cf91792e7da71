//! The responses of a file: one rendered for everything that the cache keeps of it, and what a request makes of that.

mod media_type;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::conditions::{Verdict, evaluate, has_same};
use super::path::{VARY_OF_FALLBACK, last_segment};
use super::ranges::{Multipart, Part, Selection, Span, boundary, select};
use super::terms::{Term, is_plain};
use super::validators::{Metadata, Validators};
use super::variants::Coding;
use crate::config::FileRoute;
use crate::http::media_type::{BYTES, TEXT};
use crate::http::{Method, Request, Response, reason};
use media_type::{is_html, of_name};

/// What is known of a file that is served.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// Its path below the root; of a coded one that of the file that it is a form of.
    pub name: &'f [u8],
    /// Of what is sent.
    pub metadata: Metadata,
    /// How it is coded.
    pub coding: Option<Coding>,
    /// Whether there are several forms of it.
    pub varies: bool,
    /// Whether it is sent because of what the request accepts, as a fallback.
    pub accept_varies: bool,
    /// Of its content, where [`Metadata::has_set_time`] and it is known.
    pub content_hash: Option<u64>,
    /// When it was looked at.
    pub now: SystemTime,
    /// 200, or the status of a page that stands for an error, which has neither conditions nor ranges.
    pub status: u16,
}

/// What the cache keeps of a file beside its content.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// With the whole file.
    pub response: Response,
    /// 304: without it.
    not_modified: Response,
    /// Of the file, in bytes.
    length: u64,
    validators: Validators,
}

/// How a request is answered.
#[derive(Debug)]
pub enum Plan {
    /// With [`Rendered::response`] and the whole file.
    Whole,
    /// Without anything of the file: 304, or 412 or 416 and a sentence.
    Bare(Response, Vec<u8>),
    /// With a part of the file.
    Part {
        /// 206
        response: Response,
        /// Where the part begins in the file.
        offset: u64,
        /// How long it is, in bytes.
        length: u64,
    },
    /// With several parts of the file.
    Parts {
        /// 206
        response: Response,
        /// In order.
        parts: Vec<Part>,
        /// What goes behind the last part.
        end: Vec<u8>,
    },
}

/// Renders the responses of a file. `own` are the fields of its route, each of which takes the place of ours of that name,
/// but for Vary.
pub fn render(facts: &Facts<'_>, route: &FileRoute, own: &[(String, String)]) -> Rendered {
    let now = facts.now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let validators = Validators::new(&facts.metadata, facts.coding, facts.content_hash, now);
    let content_type = of_name(facts.name);
    let is_error = facts.status != 200;
    let date = validators
        .modified_s
        .filter(|_| !is_error)
        .map(|seconds| httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds)));
    let tag = validators.tag.as_ref().filter(|_| !is_error).map(|tag| ("ETag", tag.text()));
    let kept = route
        .cache_control
        .iter()
        .find(|(pattern, _)| !is_error && matches(pattern, facts.name))
        .map(|(_, value)| &**value)
        .or_else(|| is_html(&content_type).then_some("no-cache"));
    let kept = kept.map(|value| ("Cache-Control", value));
    let vary = vary(facts).map(|value| ("Vary", value));
    let coding = facts.coding.map(|coding| ("Content-Encoding", coding.token()));
    let date = date.as_deref().map(|date| ("Last-Modified", date));
    let ranges = (!is_error).then_some(("Accept-Ranges", "bytes"));
    let stated = |name: &str| own.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
    let with_own = |fields: &[Option<(&'static str, &str)>], length: Option<u64>| {
        let ours = fields.iter().flatten().copied();
        let ours = ours.filter(|(name, _)| *name == "Vary" || !stated(name));
        let own = own.iter().map(|(name, value)| (&**name, &**value));
        let status = if length.is_none() { 304 } else { facts.status };
        Response::new(status, ours.chain(own), length)
    };
    let length = facts.metadata.size;
    let all = [Some(("Content-Type", &*content_type)), coding, tag, date, ranges, kept, vary];
    // Nothing that describes the content, but for the date where there is no tag (RFC 9110 §15.4.5).
    let of_304 = [tag, date.filter(|_| tag.is_none()), kept, vary];
    Rendered {
        response: with_own(&all, Some(length)),
        not_modified: with_own(&of_304, None),
        length,
        validators,
    }
}

/// How a request is answered with what there is. HEAD ignores ranges (RFC 9110 §14.2).
pub fn plan(request: &Request<'_>, rendered: &Rendered) -> Plan {
    let fields = request.fields;
    if rendered.response.status() != 200 || is_plain(fields) {
        return Plan::Whole;
    }
    match evaluate(fields, &rendered.validators) {
        Verdict::NotModified => return Plan::Bare(rendered.not_modified.clone(), Vec::new()),
        Verdict::Failed => {
            let sentence = "the file is not what the request expects";
            let (response, body) = text(412, &[], sentence);
            return Plan::Bare(response, body);
        }
        Verdict::Proceed => {}
    }
    let is_get = request.method == Method::Get;
    let range = Term::Range.value(fields).filter(|_| is_get);
    match range.filter(|_| has_same(fields, &rendered.validators)) {
        Some(range) => rendered.part(range),
        None => Plan::Whole,
    }
}

impl Rendered {
    fn part(&self, range: &[u8]) -> Plan {
        match select(range, self.length) {
            Selection::Whole => Plan::Whole,
            Selection::One(Span { offset, length }) => {
                let range = format!("bytes {offset}-{}/{}", offset + length - 1, self.length);
                let fields = self.fields().chain([("Content-Range", &*range)]);
                let response = Response::new(206, fields, Some(length));
                Plan::Part { response, offset, length }
            }
            Selection::Several(spans) => {
                let is_type = |(name, _): &(&str, &str)| name.eq_ignore_ascii_case("content-type");
                let content_type = self.fields().find(is_type).map(|(_, value)| value);
                let content_type = content_type.unwrap_or(BYTES);
                let parts = Multipart::new(&spans, content_type, self.length, boundary());
                let of_parts = [("Content-Type", &*parts.content_type)];
                let fields = of_parts.into_iter().chain(self.fields().filter(|f| !is_type(f)));
                let response = Response::new(206, fields, Some(parts.length()));
                Plan::Parts { response, parts: parts.parts, end: parts.end }
            }
            Selection::Unsatisfiable => {
                let range = format!("bytes */{}", self.length);
                let sentence = format!("the file has {} bytes, and none of these", self.length);
                let (response, body) = text(416, &[("Content-Range", &range)], &sentence);
                Plan::Bare(response, body)
            }
        }
    }

    fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.response.fields().filter_map(|line| line.split_once(": "))
    }
}

/// 406: the request refuses the file as it is, and accepts no form of it that there is.
pub fn not_acceptable() -> (Response, Vec<u8>) {
    let sentence = "the file is to be had in no coding that the request accepts";
    text(406, &[("Vary", "Accept-Encoding")], sentence)
}

fn vary(facts: &Facts<'_>) -> Option<&'static str> {
    match (facts.varies, facts.accept_varies) {
        (false, false) => None,
        (true, false) => Some("Accept-Encoding"),
        (false, true) => Some(VARY_OF_FALLBACK),
        (true, true) => Some("Accept, Accept-Encoding, Sec-Fetch-Mode"),
    }
}

/// Whether a pattern of `cache_control` is for a file: one without a slash is for names, any other for paths below the
/// root.
fn matches(pattern: &str, name: &[u8]) -> bool {
    let name = if pattern.contains('/') { name } else { last_segment(name) };
    fast_glob::glob_match(pattern.strip_prefix('/').unwrap_or(pattern), name)
}

/// A short text: the status, and a sentence for the person who reads it.
fn text(status: u16, fields: &[(&str, &str)], sentence: &str) -> (Response, Vec<u8>) {
    let body = format!("{status} {}: {sentence}\n", reason(status)).into_bytes();
    let fields = [("Content-Type", TEXT)].into_iter().chain(fields.iter().copied());
    (Response::new(status, fields, Some(body.len() as u64)), body)
}

#[cfg(test)]
pub(super) mod tests;
