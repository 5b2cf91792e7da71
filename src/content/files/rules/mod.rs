//! stub
use crate::config::FileRoute;
use crate::http::{Fields, Request, Response, Target};
use std::borrow::Cow;
use std::time::SystemTime;
pub const ENTRIES_MAX: usize = 100_000;
pub struct Entry {
    pub name: Vec<u8>,
    pub is_folder: bool,
    pub size: u64,
    pub modified_s: i64,
}
pub enum Form {
    Html,
    Json,
}
pub fn form(_: Fields<'_>) -> Form {
    Form::Html
}
pub fn page(_: Form, _: &[u8], _: Option<&[u8]>, _: Vec<Entry>, _: bool) -> (Response, Vec<u8>) {
    (Response::new(200, [], Some(0)), Vec::new())
}
pub enum Wanted<'p> {
    File(Cow<'p, [u8]>),
    Folder(Cow<'p, [u8]>),
    Hidden,
}
pub fn wanted(rest: &[u8], dotfiles: bool) -> Wanted<'_> {
    let folder = rest.is_empty() || rest.ends_with(b"/");
    let rest = rest.strip_suffix(b"/").unwrap_or(rest);
    if rest
        .split(|b| *b == b'/')
        .any(|s| (s.is_empty() && !rest.is_empty()) || s.starts_with(b".") && !dotfiles)
    {
        return Wanted::Hidden;
    }
    if folder { Wanted::Folder(rest.into()) } else { Wanted::File(rest.into()) }
}
pub fn slash_location(target: &Target<'_>) -> String {
    format!("{}/", String::from_utf8_lossy(&target.path))
}
pub fn takes_fallback(_: &Request<'_>, rest: &[u8]) -> bool {
    !rest.contains(&b'.')
}
pub struct Part {
    pub head: Vec<u8>,
    pub offset: u64,
    pub length: u64,
}
pub struct Metadata {
    pub size: u64,
    pub modified_s: i64,
    pub modified_ns: u32,
}
pub struct Facts<'f> {
    pub name: &'f [u8],
    pub metadata: Metadata,
    pub coding: Option<Coding>,
    pub varies: bool,
    pub accept_varies: bool,
    pub content_hash: Option<u64>,
    pub now: SystemTime,
    pub status: u16,
}
pub enum Plan {
    Whole,
    Bare(Response, Vec<u8>),
    Part { response: Response, offset: u64, length: u64 },
    Parts { response: Response, parts: Vec<Part>, end: Vec<u8> },
}
pub struct Rendered {
    pub response: Response,
}
pub fn not_acceptable() -> (Response, Vec<u8>) {
    (Response::new(406, [], Some(0)), Vec::new())
}
pub fn plan(_: &Request<'_>, _: &Rendered) -> Plan {
    Plan::Whole
}
pub fn render(f: &Facts<'_>, _: &FileRoute, _: &[(String, String)]) -> Rendered {
    Rendered { response: Response::new(f.status, [], Some(f.metadata.size)) }
}
pub fn is_plain(_: Fields<'_>) -> bool {
    true
}
pub fn content_hash(_: &[u8]) -> u64 {
    0
}
#[derive(Clone, Copy)]
pub enum Coding {
    Zstd,
    Br,
    Gzip,
}
impl Coding {
    pub const ALL: [Coding; 3] = [Coding::Zstd, Coding::Br, Coding::Gzip];
    pub fn suffix(self) -> &'static str {
        match self {
            Coding::Zstd => ".zst",
            Coding::Br => ".br",
            Coding::Gzip => ".gz",
        }
    }
}
pub struct Acceptable;
pub fn acceptable(_: Fields<'_>) -> Acceptable {
    Acceptable
}
impl Acceptable {
    pub fn choose(&self, _: impl FnMut(Coding) -> bool) -> Option<Option<Coding>> {
        Some(None)
    }
}
