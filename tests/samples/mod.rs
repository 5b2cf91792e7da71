//! What is measured (`benches/micro.rs`) and what is held to allocate nothing (`allocation.rs`): requests, and
//! sites of many routes.

use laneway::config::{Files, Route, RoutePath};
use laneway::internals::content::Site;
use laneway::internals::http::Limits;
use laneway::internals::http::h1::{Head, Receiver, Step};
use laneway::internals::{route, text};

/// What a configuration that says nothing sets.
pub(crate) const LIMITS: Limits = Limits {
    request_line: 8 << 10,
    header_bytes: 32 << 10,
    headers: 100,
    body: 1 << 20,
    merge_slashes: true,
};

/// What wrk sends.
pub(crate) const MINIMAL: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost:8080\r\n\r\n";

/// What a browser sends with a click.
pub(crate) const BROWSER: &[u8] = b"GET /products/4711?color=blue&size=m HTTP/1.1\r\n\
    Host: www.example.org\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
    Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
    Accept-Language: en-US,en;q=0.5\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\n\
    Referer: https://www.example.org/products\r\n\
    Connection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; consent=1\r\n\
    Upgrade-Insecure-Requests: 1\r\n\
    Sec-Fetch-Dest: document\r\n\
    Sec-Fetch-Mode: navigate\r\n\
    Sec-Fetch-Site: same-origin\r\n\r\n";

/// The same request so many times, as a pipelining client sends it.
pub(crate) fn pipelined(request: &[u8], depth: usize) -> Vec<u8> {
    request.repeat(depth)
}

/// What tells the routes of a site apart.
#[derive(Clone, Copy, Debug)]
pub(crate) enum By {
    /// `/shop/items/17`
    Exact,
    /// `/shop/items/17/*`
    Prefix,
    /// `/` of `shop17.example.org`
    Host,
}

impl By {
    pub(crate) const ALL: [By; 3] = [By::Exact, By::Prefix, By::Host];

    fn route(self, number: usize) -> Route {
        let (path, host) = match self {
            By::Exact => (RoutePath::Exact(format!("/shop/items/{number}")), None),
            By::Prefix => (RoutePath::Prefix(format!("/shop/items/{number}/")), None),
            By::Host => (RoutePath::Exact("/".into()), Some(format!("shop{number}.example.org"))),
        };
        route(path, host, text("Hello from laneway\n"))
    }

    /// A site of so many such routes.
    pub(crate) fn site(self, routes: usize) -> Site {
        let routes: Vec<_> = (0..routes).map(|number| self.route(number)).collect();
        Site::new(&routes, &Files::default())
    }

    /// A request for the route with this number. Of a number that no route has, it is a miss.
    pub(crate) fn request(self, number: usize) -> Vec<u8> {
        let (path, host) = match self {
            By::Exact => (format!("/shop/items/{number}"), "localhost".into()),
            By::Prefix => (format!("/shop/items/{number}/images/large.jpg"), "localhost".into()),
            By::Host => ("/".into(), format!("shop{number}.example.org")),
        };
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
    }
}

/// The head of a whole request.
///
/// # Panics
/// If it isn't one.
pub(crate) fn head(request: &[u8]) -> Head<'_> {
    match Receiver::default().step(request, &LIMITS) {
        (length, Step::Head(head)) if length == request.len() => head,
        step => panic!("not a head: {step:?}"),
    }
}
