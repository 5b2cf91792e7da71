//! Which route takes a path: the host's own routes before those of any host, the exact path before a
//! prefix, the longer prefix before the shorter.
//!
//! Two hash tables a host, because a request's path is looked up whole and then cut at its slashes: no
//! syntax within paths, no conflict that a route could get into, and a cost that the configuration bounds.

use std::collections::HashMap;

use crate::config::{self, HOST_BYTES_MAX, RoutePath};

type Map<V> = HashMap<Box<[u8]>, V, foldhash::fast::RandomState>;

/// Routes to values of `T`.
pub(super) struct Routes<T> {
    values: Vec<T>,
    any_host: Paths,
    hosts: Map<Paths>,
}

/// The routes of one host, as indexes of values.
#[derive(Default)]
struct Paths {
    exact: Map<usize>,
    prefixes: Map<usize>,
    longest_prefix: usize,
}

impl<T> Routes<T> {
    pub(super) fn new<'r>(routes: impl Iterator<Item = (&'r config::Route, T)>) -> Routes<T> {
        let mut table =
            Routes { values: Vec::new(), any_host: Paths::default(), hosts: Map::default() };
        for (route, value) in routes {
            let paths = match &route.host {
                None => &mut table.any_host,
                Some(host) => table.hosts.entry(host.as_bytes().into()).or_default(),
            };
            paths.insert(&route.path, table.values.len());
            table.values.push(value);
        }
        table
    }

    /// The route that takes `path` on `host`: its number, in the order in which they were given, and value.
    pub(super) fn find(&self, host: &[u8], path: &[u8]) -> Option<(usize, &T)> {
        let of_host = if self.hosts.is_empty() { None } else { self.host(host) };
        let index = of_host.and_then(|paths| paths.find(path)).or_else(|| self.any_host.find(path));
        index.map(|index| (index, &self.values[index]))
    }

    fn host(&self, host: &[u8]) -> Option<&Paths> {
        // A fully qualified name may end in a dot.
        let host = host.strip_suffix(b".").unwrap_or(host);
        if !host.iter().any(u8::is_ascii_uppercase) {
            return self.hosts.get(host);
        }
        // On the stack: in which case a client writes it must cost no allocation. No route's host is longer.
        let mut lower = [0; HOST_BYTES_MAX];
        let lower = lower.get_mut(..host.len())?;
        lower.copy_from_slice(host);
        lower.make_ascii_lowercase();
        self.hosts.get(&*lower)
    }
}

impl Paths {
    fn insert(&mut self, path: &RoutePath, index: usize) {
        match path {
            RoutePath::Exact(path) => self.exact.insert(path.as_bytes().into(), index),
            RoutePath::Prefix(path) => {
                self.longest_prefix = self.longest_prefix.max(path.len());
                self.prefixes.insert(path.as_bytes().into(), index)
            }
        };
    }

    fn find(&self, path: &[u8]) -> Option<usize> {
        if let Some(index) = self.exact.get(path) {
            return Some(*index);
        }
        // A path of thousands of slashes costs no more than the longest prefix that could match it.
        let mut rest = &path[..path.len().min(self.longest_prefix)];
        while let Some(slash) = memchr::memrchr(b'/', rest) {
            if let Some(index) = self.prefixes.get(&path[..=slash]) {
                return Some(*index);
            }
            rest = &rest[..slash];
        }
        None
    }
}
