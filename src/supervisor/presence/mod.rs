//! By what a server is found, and what it tells those that started it: files of sockets, the command socket, the pid
//! file, the service manager. It knows nothing of workers.

pub(super) mod command_socket;
pub(super) mod manager;
pub(super) mod pid_file;
pub(super) mod socket_file;
