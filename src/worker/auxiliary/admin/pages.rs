//! The pages of the admin address: which there are, who may ask for them, and what each makes of a snapshot. It doesn't ask
//! the supervisor itself.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use serde::Serialize;

use crate::content::{Answer, Body, Handler, Job, Kept, Outcome, Pending, Reply, ResponseOf};
use crate::control::Wants;
use crate::http::{Method, Request, Response, Version, media_type, reason};
use crate::observe::metrics::{Format, render};
use crate::observe::snapshot::{AddressHealth, Health, Snapshot};
use crate::worker::context::inquiries::{Inquiries, Inquiry};

/// How long the supervisor has to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is read, and by whom.
pub(super) struct Pages {
    inquiries: Arc<Inquiries>,
    /// `admin.hosts`
    hosts: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Health,
    Readiness,
    Metrics,
    Status,
}

/// The pages with their paths, and what is said of them at `/`.
const PAGES: [(&str, Page, &str); 4] = [
    ("/healthz", Page::Health, "200 while the supervisor and at least one lane work"),
    ("/readyz", Page::Readiness, "200 while this server should get requests"),
    ("/metrics", Page::Metrics, "counts and levels, as Prometheus reads them"),
    ("/status", Page::Status, "the server, its lanes and their workers, as JSON"),
];

impl Pages {
    pub(super) fn new(inquiries: Arc<Inquiries>, hosts: Vec<String>) -> Pages {
        Pages { inquiries, hosts }
    }

    /// Whether a page may be read by this name. A browser that was led here by a name of another site (DNS rebinding)
    /// states that name; no name can be an address, a client of HTTP/1.0 that states none is no browser, and no browser asks
    /// over a Unix socket, whose client alone has no address.
    fn is_allowed(&self, request: &Request<'_>) -> bool {
        if request.client.is_none() {
            return true;
        }
        let Ok(host) = std::str::from_utf8(&request.target.host) else { return false };
        let name = host.strip_suffix('.').unwrap_or(host);
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let is_address = host.parse::<Ipv4Addr>().is_ok()
            || bare.is_some_and(|bare| bare.parse::<Ipv6Addr>().is_ok());
        is_address
            || host.is_empty() && request.version == Version::Http10
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|allowed| name.eq_ignore_ascii_case(allowed))
    }
}

impl Handler for Pages {
    fn answer(&self, request: &Request<'_>, _: &Kept) -> Answer<'_> {
        if !self.is_allowed(request) {
            // RFC 9110 §15.5.20: this server is not willing to answer for that host.
            let sentence =
                "this address is asked by an address, by localhost, or by a name of admin.hosts";
            return known(plain(421, None, sentence));
        }
        if !matches!(request.method, Method::Get | Method::Head) {
            return known(plain(405, Some(("Allow", "GET, HEAD")), "this address is read alone"));
        }
        let path = &*request.target.path;
        if path == b"/" {
            return known(index());
        }
        match PAGES.iter().find(|(of, ..)| of.as_bytes() == path) {
            None => known(plain(404, None, "there is no such page; / lists those that there are")),
            Some(&(_, page, _)) => {
                let (inquiries, inquiry) = (Arc::clone(&self.inquiries), Arc::default());
                let asking = Asking { inquiries, inquiry, page, format: format_for(request) };
                Answer::Known(Outcome::Pending(Pending::Job(Box::new(asking))))
            }
        }
    }
}

/// A request that waits for what the supervisor says.
struct Asking {
    inquiries: Arc<Inquiries>,
    inquiry: Arc<Inquiry>,
    page: Page,
    /// Of metrics.
    format: Format,
}

impl<'s> Job<'s> for Asking {
    fn begin(&mut self, waker: Waker) {
        self.inquiries.wait(&self.inquiry, self.page.wants(), waker);
    }

    fn timeout(&self) -> Duration {
        PATIENCE
    }

    fn finish(self: Box<Self>) -> Outcome<'s> {
        Outcome::Ready(self.page.reply(self.inquiry.take().as_deref(), self.format))
    }

    fn held_bytes(&self) -> usize {
        size_of::<Asking>() + size_of::<Inquiry>()
    }
}

/// The format of metrics that a client wants.
fn format_for(request: &Request<'_>) -> Format {
    let accept = request.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(b"accept"));
    Format::negotiate(accept.filter_map(|(_, value)| std::str::from_utf8(value).ok()))
}

/// What `/healthz` and `/readyz` say.
#[derive(Serialize)]
struct Verdict<'h> {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'h str>,
    lanes: Option<usize>,
    lanes_ready: Option<usize>,
    #[serde(skip_serializing_if = "<[AddressHealth]>::is_empty")]
    addresses: &'h [AddressHealth],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    degraded: &'h [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    change: Option<&'h str>,
}

impl Page {
    /// What it is made of, beside how the server is.
    fn wants(self) -> Wants {
        Wants { status: self == Page::Status, metrics: self == Page::Metrics }
    }

    /// The page, of what the supervisor has said, or of its silence.
    fn reply<'s>(self, snapshot: Option<&Snapshot>, format: Format) -> Reply<'s> {
        const SILENT: &str = "the supervisor does not answer";
        let health = snapshot.map(|snapshot| &snapshot.health);
        let reason_of = |of: fn(&Health) -> Option<&str>| health.map_or(Some(SILENT), of);
        match self {
            Page::Health => verdict("alive", "dead", reason_of(|of| of.dead.as_deref()), health),
            Page::Readiness => {
                verdict("ready", "not ready", reason_of(|of| of.unready.as_deref()), health)
            }
            Page::Metrics => match snapshot.and_then(|snapshot| snapshot.metrics.as_ref()) {
                Some(facts) => {
                    let text = render(facts, format);
                    reply(200, format.content_type(), text, Some(("Vary", "Accept")))
                }
                None => plain(503, None, SILENT),
            },
            Page::Status => match snapshot.map(|snapshot| &snapshot.status) {
                Some(Some(status)) => reply(200, media_type::JSON, status.clone(), None),
                Some(None) => plain(503, None, "no generation serves yet"),
                None => plain(503, None, SILENT),
            },
        }
    }
}

fn verdict<'s>(
    good: &'static str,
    bad: &'static str,
    reason: Option<&str>,
    health: Option<&Health>,
) -> Reply<'s> {
    let (status, word) = if reason.is_none() { (200, good) } else { (503, bad) };
    let verdict = Verdict {
        status: word,
        reason,
        lanes: health.map(|health| health.lanes),
        lanes_ready: health.map(|health| health.lanes_ready),
        addresses: health.map_or(&[], |health| &health.addresses),
        degraded: health.map_or(&[], |health| &health.degraded),
        change: health.and_then(|health| health.change.as_deref()),
    };
    let mut text = serde_json::to_string(&verdict).unwrap_or_default();
    text.push('\n');
    reply(status, media_type::JSON, text, None)
}

fn index<'s>() -> Reply<'s> {
    let line = |(path, _, what): &(&str, Page, &str)| {
        format!("<li><a href=\"{path}\">{path}</a>: {what}</li>\n")
    };
    let lines: String = PAGES.iter().map(line).collect();
    let text = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>laneway</title>\n<h1>laneway {}</h1>\n\
         <ul>\n{lines}</ul>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    reply(200, "text/html; charset=utf-8", text, None)
}

fn plain<'s>(status: u16, field: Option<(&str, &str)>, sentence: &str) -> Reply<'s> {
    let text = format!("{status} {}: {sentence}\n", reason(status));
    reply(status, media_type::TEXT, text, field)
}

fn reply<'s>(
    status: u16,
    content_type: &str,
    text: String,
    field: Option<(&str, &str)>,
) -> Reply<'s> {
    let fields = [("Content-Type", content_type), ("Cache-Control", "no-store")];
    let fields = fields.into_iter().chain(field);
    let response = Response::new(status, fields, Some(text.len() as u64));
    let body = Body::Owned(text.into_bytes());
    Reply { response: ResponseOf::Request(Box::new(response)), body }
}

fn known(reply: Reply<'_>) -> Answer<'_> {
    Answer::Known(Outcome::Ready(reply))
}
