//! Content: from a request head to what answers it. Routing, and every response that is known before it
//! is asked for, rendered when the configuration loads.
//!
//! Sees heads and bytes; never a connection.

mod echo;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Content};
use crate::http::{Head, Method, Refusal, Response, reason};

pub use echo::{Collected, Echo};
use routes::Routes;

/// Everything a server answers: built once for a generation, read by all its lanes.
pub struct Site {
    routes: Routes<Handler>,
    not_found: Fixed,
    /// The answer to `OPTIONS *`.
    options: Fixed,
}

/// A response that is known as a whole.
pub struct Fixed {
    /// Its head, Content-Length included.
    pub response: Response,
    /// Its body; not sent in answer to HEAD.
    pub body: Arc<[u8]>,
    /// How long it waits before it is sent.
    pub delay: Duration,
}

/// What answers a request.
pub enum Answer<'s> {
    /// These bytes, whatever the request's body.
    Fixed(&'s Fixed),
    /// A response made from the request and its body.
    Echo(&'s Echo),
}

/// What a route does, by method.
struct Handler {
    takes: Takes,
    main: Main,
    /// The answer to OPTIONS.
    options: Fixed,
    /// The answer to a method that is not allowed.
    refused: Fixed,
}

enum Main {
    Fixed(Fixed),
    Echo(Echo),
}

/// Which methods a route takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Takes {
    /// Those that read.
    Read,
    /// Every method, though it knows none but [`ALL`] by name.
    Any,
    /// Every method, OPTIONS too: that is for the place which a redirect names.
    AnyAndOptions,
}

const READ: &[Method<'static>] = &[Method::Get, Method::Head, Method::Options];
const ALL: &[Method<'static>] = &[
    Method::Get,
    Method::Head,
    Method::Post,
    Method::Put,
    Method::Patch,
    Method::Delete,
    Method::Options,
];
const TEXT: (&str, &str) = ("Content-Type", "text/plain; charset=utf-8");

impl Site {
    /// Renders every response of `routes`.
    pub fn new(routes: &[config::Route]) -> Site {
        let handlers = routes.iter().map(|route| (route, Handler::new(route)));
        Site {
            routes: Routes::new(handlers),
            not_found: plain(404, &[], "there is nothing at this path"),
            options: options(ALL),
        }
    }

    /// What answers this request, and the number of its route, in the configuration's order, if it has one.
    /// The host is compared without regard to case.
    pub fn answer(&self, head: &Head<'_>) -> (Option<usize>, Answer<'_>) {
        match self.routes.find(&head.target.host, &head.target.path) {
            Some((route, handler)) => (Some(route), handler.answer(head.method)),
            None if head.method == Method::Options && *head.target.path == *b"*" => {
                (None, Answer::Fixed(&self.options))
            }
            None => (None, Answer::Fixed(&self.not_found)),
        }
    }
}

impl Handler {
    fn answer(&self, method: Method<'_>) -> Answer<'_> {
        if method == Method::Options && self.takes != Takes::AnyAndOptions {
            return Answer::Fixed(&self.options);
        }
        if self.takes == Takes::Read && !READ.contains(&method) {
            return Answer::Fixed(&self.refused);
        }
        match &self.main {
            Main::Echo(echo) => Answer::Echo(echo),
            Main::Fixed(fixed) => Answer::Fixed(fixed),
        }
    }

    fn new(route: &config::Route) -> Handler {
        let (takes, allowed) = match route.content {
            Content::Fixed { .. } => (Takes::Read, READ),
            Content::EchoBody | Content::EchoRequest => (Takes::Any, ALL),
            Content::Redirect(_) => (Takes::AnyAndOptions, ALL),
        };
        Handler {
            takes,
            main: Main::new(route),
            options: options(allowed),
            refused: plain(
                405,
                &[("Allow", &allow(allowed))],
                "this path does not take that method",
            ),
        }
    }
}

impl Main {
    fn new(route: &config::Route) -> Main {
        let own: Vec<(&str, &str)> =
            route.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let fixed = |fields: &[(&str, &str)], body: Arc<[u8]>| {
            let fields = [fields, &own].concat();
            Main::Fixed(Fixed {
                response: Response::new(route.status, fields, Some(body.len())),
                body,
                delay: route.delay,
            })
        };
        match &route.content {
            Content::Fixed { content_type, body } => {
                let field = content_type.as_deref().map(|value| ("Content-Type", value));
                fixed(field.as_slice(), body.clone())
            }
            Content::Redirect(location) => {
                let text = format!("{} {}\n", route.status, reason(route.status));
                fixed(&[("Location", location), TEXT], text.into_bytes().into())
            }
            Content::EchoBody => Main::Echo(Echo::body(route.status, &own, route.delay)),
            Content::EchoRequest => Main::Echo(Echo::request(route.status, &own, route.delay)),
        }
    }
}

/// The response that tells a client of its mistake; the connection closes after it.
pub fn refusal(refusal: Refusal) -> Fixed {
    plain(refusal.status, &[], refusal.reason)
}

/// A short plain text: the status, and a sentence for the person who reads it.
fn plain(status: u16, fields: &[(&str, &str)], sentence: &str) -> Fixed {
    let body = format!("{status} {}: {sentence}\n", reason(status)).into_bytes();
    let fields = fields.iter().copied().chain([TEXT]);
    Fixed {
        response: Response::new(status, fields, Some(body.len())),
        body: body.into(),
        delay: Duration::ZERO,
    }
}

/// The answer to OPTIONS: 204 and what is allowed (RFC 9110 §9.3.7).
fn options(allowed: &[Method<'_>]) -> Fixed {
    Fixed {
        response: Response::new(204, [("Allow", allow(allowed).as_str())], None),
        body: Arc::default(),
        delay: Duration::ZERO,
    }
}

fn allow(methods: &[Method<'_>]) -> String {
    let names: Vec<_> = methods.iter().map(|method| method.name()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
