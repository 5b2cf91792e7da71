//! Content: from a request to what answers it. Routing, and every response that is known before it is asked for,
//! rendered when the configuration loads.
//!
//! A kind of content is a [`Handler`] in a file of its own here, and a line in `RouteHandler::new`; [`Fixed`], which
//! most routes are, has a way of its own without an allocation. Sees requests and bytes; never a connection.

mod answer;
mod echo;
mod files;
mod routes;

use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, Content};
use crate::http::{Method, Refusal, Request, Response, media_type, reason};

#[cfg(any(test, feature = "_internals"))]
pub use answer::Collect;
pub use answer::{
    Answer, Body, FileSpan, Handler, Job, Kept, Outcome, Pending, Piece, Reply, ResponseOf, Stream,
};
use echo::Echo;
use files::{Answers, Files, Pool};
use routes::Routes;

/// Everything a server answers: built once for a generation, read by all its lanes.
pub struct Site {
    routes: Routes<Route>,
    not_found: Fixed,
    /// The answer to `OPTIONS *`.
    options: Fixed,
}

/// A response that is known as a whole.
struct Fixed {
    response: Response,
    body: Arc<[u8]>,
    delay: Duration,
}

/// What a route does, by method.
struct Route {
    allowed: AllowedMethods,
    handler: RouteHandler,
    /// The answer to OPTIONS.
    options: Fixed,
    /// The answer to a method that is not allowed.
    not_allowed: Fixed,
}

/// What answers the methods that a route takes.
enum RouteHandler {
    Fixed(Fixed),
    Dynamic(Box<dyn Handler>),
}

/// Which methods a route takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AllowedMethods {
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
const TEXT: (&str, &str) = ("Content-Type", media_type::TEXT);

impl Site {
    /// Renders every response of `routes`, whose files are kept as `settings` say.
    pub fn new(routes: &[config::Route], settings: &config::Files) -> Site {
        let pool = Arc::default();
        let handler = |(number, route)| {
            let handler = RouteHandler::new(number as u32, route, settings, &pool);
            (route, Route::new(route, handler))
        };
        let routes = routes.iter().enumerate().map(handler);
        Site {
            routes: Routes::new(routes),
            not_found: Fixed::from(plain(404, &[], "there is nothing at this path")),
            options: options(ALL),
        }
    }

    /// A site on which `handler` answers every request to a path.
    pub fn of(handler: Box<dyn Handler>) -> Site {
        let route = Route {
            allowed: AllowedMethods::AnyAndOptions,
            handler: RouteHandler::Dynamic(handler),
            options: options(ALL),
            not_allowed: options(ALL),
        };
        let everywhere = config::Route {
            path: config::RoutePath::Prefix("/".into()),
            host: None,
            content: Content::EchoBody,
            status: 200,
            headers: Vec::new(),
            delay: Duration::ZERO,
        };
        Site {
            routes: Routes::new([(&everywhere, route)].into_iter()),
            ..Site::new(&[], &config::Files::default())
        }
    }

    /// The same site, of which nothing but GET and HEAD is asked: not even what it could be.
    #[must_use]
    pub fn read_alone(self) -> Site {
        let allow = [("Allow", "GET, HEAD")];
        Site { options: Fixed::from(plain(405, &allow, "this address is read alone")), ..self }
    }

    /// The route that takes this request: its number, in the configuration's order, if it has one, and what answers.
    /// The host is compared without regard to case.
    pub fn find(&self, request: &Request<'_>) -> (Option<usize>, Match<'_>) {
        match self.routes.find(&request.target.host, &request.target.path) {
            Some((number, route)) => (Some(number), Match(Matched::Route(route))),
            None if request.method == Method::Options && *request.target.path == *b"*" => {
                (None, Match(Matched::Site(&self.options)))
            }
            None => (None, Match(Matched::Site(&self.not_found))),
        }
    }
}

/// What answers a request, before it was asked to.
#[derive(Clone, Copy)]
pub struct Match<'s>(Matched<'s>);

#[derive(Clone, Copy)]
enum Matched<'s> {
    Route(&'s Route),
    Site(&'s Fixed),
}

impl<'s> Match<'s> {
    /// The answer to the request that it was found for.
    /// `kept` is what the lane keeps of files.
    pub fn answer(self, request: &Request<'_>, kept: &Kept) -> Answer<'s> {
        match self.0 {
            Matched::Route(route) => route.answer(request, kept),
            Matched::Site(fixed) => fixed.answer(),
        }
    }
}

impl Fixed {
    fn answer(&self) -> Answer<'_> {
        let reply =
            Reply { response: ResponseOf::Site(&self.response), body: Body::Shared(&self.body) };
        Answer::Known(Outcome::after(self.delay, reply))
    }
}

impl From<(Response, Vec<u8>)> for Fixed {
    fn from((response, body): (Response, Vec<u8>)) -> Fixed {
        Fixed { response, body: body.into(), delay: Duration::ZERO }
    }
}

impl Route {
    fn answer(&self, request: &Request<'_>, kept: &Kept) -> Answer<'_> {
        if request.method == Method::Options && self.allowed != AllowedMethods::AnyAndOptions {
            return self.options.answer();
        }
        if self.allowed == AllowedMethods::Read && !READ.contains(&request.method) {
            return self.not_allowed.answer();
        }
        match &self.handler {
            RouteHandler::Fixed(fixed) => fixed.answer(),
            RouteHandler::Dynamic(handler) => handler.answer(request, kept),
        }
    }

    fn new(route: &config::Route, handler: RouteHandler) -> Route {
        let (allowed, names) = match route.content {
            Content::Fixed { .. } | Content::Files(_) => (AllowedMethods::Read, READ),
            Content::EchoBody | Content::EchoRequest => (AllowedMethods::Any, ALL),
            Content::Redirect(_) => (AllowedMethods::AnyAndOptions, ALL),
        };
        Route {
            allowed,
            handler,
            options: options(names),
            not_allowed: Fixed::from(plain(
                405,
                &[("Allow", &allow(names))],
                "this path does not take that method",
            )),
        }
    }
}

impl RouteHandler {
    fn new(
        number: u32,
        route: &config::Route,
        settings: &config::Files,
        pool: &Arc<Pool>,
    ) -> RouteHandler {
        let own: Vec<(&str, &str)> =
            route.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let fixed = |fields: &[(&str, &str)], body: Arc<[u8]>| {
            let fields = [fields, &own].concat();
            RouteHandler::Fixed(Fixed {
                response: Response::new(route.status, fields, Some(body.len() as u64)),
                body,
                delay: route.delay,
            })
        };
        let other = |handler: Echo| RouteHandler::Dynamic(Box::new(handler));
        match &route.content {
            Content::Fixed { content_type, body } => {
                let field = content_type.as_deref().map(|value| ("Content-Type", value));
                fixed(field.as_slice(), body.clone())
            }
            Content::Files(files) => {
                let files = Files::new(number, route, files, settings, pool);
                RouteHandler::Dynamic(Box::new(files))
            }
            Content::Redirect(location) => {
                let text = format!("{} {}\n", route.status, reason(route.status));
                fixed(&[("Location", location), TEXT], text.into_bytes().into())
            }
            Content::EchoBody => other(Echo::body(route.status, &own, route.delay)),
            Content::EchoRequest => other(Echo::request(route.status, &own, route.delay)),
        }
    }
}

/// What a lane keeps that serves what `config` says.
pub fn kept(config: &config::Config) -> Kept {
    if config.serves_files() { Kept::new(Answers::new(&config.files)) } else { Kept::default() }
}

/// The response that tells a client of its mistake; the connection closes after it.
pub fn refusal(refusal: Refusal) -> Reply<'static> {
    let (response, body) = plain(refusal.status, &[], refusal.reason);
    Reply { response: ResponseOf::Request(Box::new(response)), body: Body::Owned(body) }
}

/// A short plain text: the status, and a sentence for the person who reads it.
fn plain(status: u16, fields: &[(&str, &str)], sentence: &str) -> (Response, Vec<u8>) {
    let body = format!("{status} {}: {sentence}\n", reason(status)).into_bytes();
    let fields = fields.iter().copied().chain([TEXT]);
    (Response::new(status, fields, Some(body.len() as u64)), body)
}

/// The answer to OPTIONS: 204 and what is allowed (RFC 9110 §9.3.7).
fn options(allowed: &[Method<'_>]) -> Fixed {
    Fixed::from((Response::new(204, [("Allow", allow(allowed).as_str())], None), Vec::new()))
}

fn allow(methods: &[Method<'_>]) -> String {
    let names: Vec<_> = methods.iter().map(|method| method.name()).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests;
