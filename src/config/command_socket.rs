//! Where the command socket is, by the names that its user gave: of the pid file, else of the configuration file.
//! None of it depends on what a reload may change.

use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::load;
use super::merge::is_key;
use super::options::{Options, file_path};
use super::source::variables::Variable;
use super::source::{from_argument, from_variable};
use crate::sys::process;

/// What the pid file of a configuration is, as far as can be told of one that may be wrong.
enum Stated {
    /// No source states one.
    Nothing,
    PidFile(PathBuf),
    /// The file can't be understood.
    Unknown,
}

/// Where a client of the command socket looks for it.
pub struct SocketPaths {
    /// In this order.
    pub paths: Vec<SocketPath>,
    /// The configuration file can't be understood, so that it may state another place.
    pub is_guess: bool,
}

/// A path that may lead to the command socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketPath {
    /// Where a server that is started now would listen.
    Socket(PathBuf),
    /// A link that servers of the configuration file make; a killed one may have left it, and another one's socket
    /// may be where it leads.
    Link(PathBuf),
}

impl SocketPath {
    /// The path.
    pub fn path(&self) -> &Path {
        let (SocketPath::Socket(path) | SocketPath::Link(path)) = self;
        path
    }
}

/// Where the supervisor listens for commands: at `--socket`, else beside its pid file, else in the runtime directory
/// under a name that is made of the configuration file's. None where there is no such directory, or no such file.
pub fn command_socket_path(options: &Options, pid_file: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = &options.socket {
        return Some(path.clone());
    }
    match pid_file {
        Some(pid_file) => Some(pid_file.with_extension("sock")),
        None if options.is_nameless => None,
        None => runtime_names(options, "sock").into_iter().next(),
    }
}

/// Further names that lead to the command socket. They are made of the configuration file's path, so that the server is
/// found after the file has come to name another pid file. None where the command line or the environment says where
/// the socket is: those tell several servers of one file apart.
pub fn command_socket_links(options: &Options) -> Vec<PathBuf> {
    if options.is_nameless || options.socket.is_some() || given_pid_file(options).is_some() {
        return Vec::new();
    }
    // A service manager's folder is the server's alone; a client looks in the next one.
    let is_of_manager = variable(options, RUNTIME_DIRECTORY).is_some();
    runtime_names(options, "link").into_iter().take(if is_of_manager { 2 } else { 1 }).collect()
}

/// Where a client finds the supervisor that was started with these options. It needs no more of the configuration file
/// than `supervisor.pid_file`, so that a server that runs is found although the file has a
/// mistake.
pub fn command_socket_paths(options: &Options) -> SocketPaths {
    let found = |paths| SocketPaths { paths, is_guess: false };
    let beside = |pid_file: PathBuf| vec![SocketPath::Socket(pid_file.with_extension("sock"))];
    let named = |ending, kind: fn(PathBuf) -> SocketPath| {
        runtime_names(options, ending).into_iter().map(kind).collect::<Vec<_>>()
    };
    if let Some(path) = &options.socket {
        return found(vec![SocketPath::Socket(path.clone())]);
    }
    let sockets = named("sock", SocketPath::Socket);
    match given_pid_file(options) {
        Some(Stated::PidFile(path)) => return found(beside(path)),
        Some(Stated::Nothing) => return found(sockets),
        Some(Stated::Unknown) => return SocketPaths { paths: sockets, is_guess: true },
        None => {}
    }
    // The socket of a runtime directory may be that of a server whose command line took the pid file away.
    let links = named("link", SocketPath::Link);
    match pid_file_of_file(options) {
        Stated::PidFile(path) => found([beside(path), links].concat()),
        Stated::Nothing => found([links, sockets].concat()),
        Stated::Unknown => SocketPaths { paths: [links, sockets].concat(), is_guess: true },
    }
}

/// The folder of a service, for systemd's `RuntimeDirectory=` (systemd.exec(5)).
const RUNTIME_DIRECTORY: &str = "RUNTIME_DIRECTORY";

fn variable(options: &Options, name: &str) -> Option<PathBuf> {
    let found = options.environment.iter().find(|(of, value)| of == name && !value.is_empty());
    // systemd may name several, separated by colons; the first is the service's main one.
    found.and_then(|(_, value)| value.split(':').next()).map(PathBuf::from)
}

/// The name of the configuration with this ending in each runtime directory. A server has its socket in the first; a
/// client may be in a session of its own, whose runtime directory isn't that of the server.
fn runtime_names(options: &Options, ending: &str) -> Vec<PathBuf> {
    let root = (process::effective_user() == 0).then(|| PathBuf::from("/run"));
    let session = variable(options, "XDG_RUNTIME_DIR");
    let folders = [variable(options, RUNTIME_DIRECTORY), session, root];
    let Some(name) = name_of(options, ending) else {
        return Vec::new();
    };
    folders.into_iter().flatten().map(|folder| folder.join(&name)).collect()
}

/// A name that is made of the configuration file's path alone.
fn name_of(options: &Options, ending: &str) -> Option<String> {
    let file = file_path(options)?;
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || "-_.".contains(*letter);
    let stem: String = stem.chars().filter(is_plain).take(STEM_LETTERS_MAX).collect();
    Some(format!("laneway-{stem}-{:016x}.{ending}", fnv(file.as_os_str().as_encoded_bytes())))
}

/// Most of a file's name in that of the socket: a socket's path has 107 bytes at most (unix(7)).
const STEM_LETTERS_MAX: usize = 24;

/// FNV-1a, which is the same in every build, unlike the standard library's hash.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

const SECTION: &str = "supervisor";
const KEY: &str = "pid_file";

fn stated(text: &str) -> Stated {
    match text {
        "" => Stated::Nothing,
        path => Stated::PidFile(path.into()),
    }
}

/// `supervisor.pid_file` of the command line or the environment, if one of them states it.
fn given_pid_file(options: &Options) -> Option<Stated> {
    let is_it = |path: &[String]| path.iter().map(String::as_str).eq([SECTION, KEY]);
    let arguments = options.set.iter().rev().filter_map(|text| from_argument(0, text).ok());
    let mut arguments = arguments.filter(|setting| is_it(&setting.path));
    if let Some(setting) = arguments.next() {
        return Some(setting.value.get_ref().as_str().map_or(Stated::Unknown, stated));
    }
    for (name, value) in &options.environment {
        if let Variable::Setting(path) = Variable::of(name, value, is_key)
            && is_it(&path)
        {
            let text = format!("{name}={value}");
            let setting = from_variable(0, path, &text);
            return Some(setting.value.get_ref().as_str().map_or(Stated::Unknown, stated));
        }
    }
    None
}

/// `supervisor.pid_file` of the configuration file, whatever else is wrong with it.
fn pid_file_of_file(options: &Options) -> Stated {
    let Ok(text) = load::text(options) else {
        return Stated::Unknown;
    };
    let (tree, errors) = DeTable::parse_recoverable(&text);
    let section = tree.get_ref().get(SECTION).map(|section| section.get_ref());
    let value = match section {
        Some(DeValue::Table(table)) => table.get(KEY).and_then(|value| value.get_ref().as_str()),
        _ => None,
    };
    match value {
        Some(path) => stated(path),
        None if errors.is_empty() => Stated::Nothing,
        None => Stated::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_sockets_name_is_made_of_the_files_path_alone() {
        let of = |file: &str, set: &[&str]| {
            let set = set.iter().map(ToString::to_string).collect();
            let environment = vec![("RUNTIME_DIRECTORY".to_owned(), "/run/x:/run/y".to_owned())];
            let folder = Some(PathBuf::from("/srv"));
            let options = Options {
                file: Some(file.into()),
                set,
                environment,
                folder,
                socket: None,
                ..Options::default()
            };
            command_socket_path(&options, None).expect("a place")
        };
        let one = of("a.toml", &[]);
        assert!(
            one.starts_with("/run/x") && one.to_string_lossy().contains("/laneway-a-"),
            "{one:?}"
        );
        assert_eq!(of("/srv/./a.toml", &["server.listen=127.0.0.1:1"]), one);
        assert_ne!(of("b.toml", &[]), one);
        let long = of(&"é/l.".repeat(300), &[]);
        assert!(long.as_os_str().len() < 80, "{long:?}");
    }

    #[test]
    fn links_are_made_where_the_file_alone_says_where_the_socket_is() {
        let links = |variables: &[(&str, &str)], set: &[&str], socket: Option<&str>| {
            let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
            let options = Options {
                file: Some("/srv/a.toml".into()),
                set: set.iter().map(ToString::to_string).collect(),
                environment: variables.iter().map(owned).collect(),
                socket: socket.map(PathBuf::from),
                ..Options::default()
            };
            let folders = command_socket_links(&options).into_iter();
            folders.filter_map(|link| link.parent().map(Path::to_owned)).collect::<Vec<_>>()
        };
        let session = ("XDG_RUNTIME_DIR", "/run/user/1");
        let service = ("RUNTIME_DIRECTORY", "/run/x:/run/y");
        let given = ("LANEWAY_SUPERVISOR__PID_FILE", "/x/s.pid");
        assert_eq!(links(&[session], &[], None), [Path::new("/run/user/1")]);
        let both = [Path::new("/run/x"), Path::new("/run/user/1")];
        assert_eq!(links(&[session, service], &[], None), both);
        assert!(links(&[session], &["supervisor.pid_file="], None).is_empty());
        assert!(links(&[session, given], &[], None).is_empty());
        assert!(links(&[session], &[], Some("own.sock")).is_empty());
    }

    #[test]
    fn a_pid_file_is_found_in_a_file_with_mistakes() {
        let folder = std::env::temp_dir().join(format!("laneway-paths-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let file = folder.join("config.toml");
        let places = |text: &str, set: &[&str]| {
            fs::write(&file, text).unwrap();
            let set = set.iter().map(ToString::to_string).collect();
            let options = Options { file: Some(file.clone()), set, ..Options::default() };
            let SocketPaths { paths, is_guess } = command_socket_paths(&options);
            (paths.contains(&SocketPath::Socket("/x/s.sock".into())), is_guess)
        };
        let stated = "supervisor.pid_file = \"/x/s.pid\"\n";
        assert_eq!(places(stated, &[]), (true, false));
        assert_eq!(places(&format!("nonsense = 1\n{stated}"), &[]), (true, false));
        assert_eq!(places("[[[", &[]), (false, true));
        assert_eq!(places("[[[", &["supervisor.pid_file=/x/s.pid"]), (true, false));
        assert_eq!(places("nonsense = 1", &[]), (false, false));
        fs::remove_dir_all(folder).unwrap();
    }
}
