//! Whose Unix sockets are to be: the keys that tables with addresses have for it.

/// Permissions of a Unix socket: a proxy that is to use it shares its group, and nothing else gets at it by accident.
pub(super) const SOCKET_MODE: u32 = 0o660;

/// What a table says of the files of its Unix sockets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SocketAccess<'c> {
    /// The table's name.
    pub(crate) table: &'static str,
    /// A user, by name or number.
    pub(crate) owner: Option<&'c str>,
    /// A group, by name or number.
    pub(crate) group: Option<&'c str>,
    /// Permissions.
    pub(crate) mode: u32,
}

impl SocketAccess<'_> {
    /// The first of its keys that isn't at its default.
    pub(crate) fn stated(&self) -> Option<&'static str> {
        match self {
            SocketAccess { owner: Some(_), .. } => Some("socket_owner"),
            SocketAccess { group: Some(_), .. } => Some("socket_group"),
            SocketAccess { mode, .. } if *mode != SOCKET_MODE => Some("socket_mode"),
            _ => None,
        }
    }
}
