//! What the addresses of a table must be together: the paths of its Unix sockets from the root on, none twice, none too
//! long; and keys that are for those alone.

use std::path::Path;

use super::raw::Raw;
use crate::config::diagnostic::{Diagnostic, KeyPlaces};
use crate::config::settings::{ProxyProtocol, SocketAccess};
use crate::config::value::ListenAddress;

/// Longest path of a Unix socket, in bytes: its address has room for 108, and one is the zero at the end (unix(7)).
const PATH_BYTES_MAX: usize = 107;

/// Makes the paths in `listen`, of this `table`, absolute: a relative one begins at `folder`, the configuration's.
pub(super) fn resolve(
    table: &str,
    listen: &mut [ListenAddress],
    folder: &Path,
    places: &KeyPlaces,
    errors: &mut Vec<Diagnostic>,
) {
    let mut refuse = |title: String, help: &str| {
        let place = places.get(&format!("{table}.listen")).cloned();
        errors.push(Diagnostic::new(title, place).help(help));
    };
    let mut before: Vec<&Path> = Vec::new();
    for address in listen.iter_mut() {
        let ListenAddress::Unix(path) = address else { continue };
        if let Ok(absolute) = std::path::absolute(folder.join(&*path)) {
            *path = absolute;
        }
        let (shown, length) = (path.display(), path.as_os_str().len());
        if length > PATH_BYTES_MAX {
            let title = format!("the path of the socket {shown} has {length} bytes");
            refuse(
                title,
                &format!("at most {PATH_BYTES_MAX}, which is what the kernel has room for"),
            );
        } else if before.contains(&path.as_path()) {
            refuse(
                format!("the socket {shown} stands twice in `{table}.listen`"),
                "leave one of them out",
            );
        }
        before.push(path);
    }
}

/// The error that no connection to an address of the server would be taken: only from proxies, and none is trusted. What
/// comes over a Unix socket always is.
pub(super) fn out_of_reach(raw: &Raw, places: &KeyPlaces) -> Option<Diagnostic> {
    let Raw { server, access, .. } = raw;
    let is_unix = |listen: &ListenAddress| matches!(listen, ListenAddress::Unix(_));
    if server.proxy_protocol == ProxyProtocol::Off
        || !access.trusted_proxies.is_empty()
        || server.listen.iter().all(is_unix)
    {
        return None;
    }
    let title = "`server.proxy_protocol` is required, and `access.trusted_proxies` is empty";
    let help = "name the proxies: a connection that comes from anywhere else is closed";
    let place = places.get("server.proxy_protocol").cloned();
    Some(Diagnostic::new(title, place).help(help))
}

/// The warning that a table says who may use its Unix sockets, and has none.
pub(super) fn unused_access(
    listen: &[ListenAddress],
    access: SocketAccess<'_>,
    places: &KeyPlaces,
) -> Option<Diagnostic> {
    if listen.iter().any(|listen| matches!(listen, ListenAddress::Unix(_))) {
        return None;
    }
    let (table, stated) = (access.table, access.stated()?);
    let key = format!("{table}.{stated}");
    let title = format!("`{key}` has no effect: `{table}.listen` names no Unix socket");
    let help = "one is written \"unix:/run/laneway/http.sock\"";
    Some(Diagnostic::new(title, places.get(&key).cloned()).help(help))
}
