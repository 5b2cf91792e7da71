//! Routes that serve files: which are found, that none outside is, and what is sent of them while they change.

mod harness;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{
    Client, Mode, Server, Setup, Target, eventually, in_mode, let_time_pass, restricted,
};

macro_rules! in_both_modes_with_both_drivers {
    ($($case:ident),+ $(,)?) => {
        in_mode!(threads, new(Workers::Threads, Accept::Reuseport), [$($case),+]);
        in_mode!(threads_epoll, on_epoll(Workers::Threads, Accept::Reuseport), [$($case),+]);
        in_mode!(processes, new(Workers::Processes, Accept::Reuseport), [$($case),+]);
        in_mode!(processes_epoll, on_epoll(Workers::Processes, Accept::Reuseport), [$($case),+]);
    };
}

in_both_modes_with_both_drivers!(
    files_are_served_byte_for_byte_small_and_large,
    nothing_outside_is_served_however_it_is_written,
    nothing_outside_is_served_where_the_kernel_may_not_be_asked,
    links_inside_are_followed_unless_they_are_not_to_be,
    what_is_no_file_is_not_found_and_hangs_no_client,
    a_change_is_seen_after_the_time_that_was_set,
    a_root_that_vanishes_is_unavailable_until_it_returns,
    a_file_that_changes_while_it_is_sent_is_never_completed,
    a_file_that_is_replaced_while_it_is_sent_is_sent_as_it_was,
    renames_never_mix_two_files_nor_let_one_out,
);

/// What lies outside of the root, and is never to be seen.
const SECRET: &[u8] = b"the canary outside";

/// How long a lane may take what it knows for true, in these tests.
const TTL: Duration = Duration::from_millis(50);

/// A server of the folder `public` of its own folder, which `fill` has filled, with these lines in its route.
fn setup(mode: Mode, lines: &str, fill: impl FnOnce(&Path)) -> Setup {
    let setup = Setup::new(mode);
    let outside = setup.scratch().path().to_owned();
    fs::write(outside.join("secret"), SECRET).expect("the canary");
    let root = outside.join("public");
    fs::create_dir(&root).expect("the root");
    fill(&root);
    setup
        .set("files.cache_ttl", format!("{}ms", TTL.as_millis()))
        .route("/files/*", &format!("files = \"{}\"\n{lines}", root.display()))
}

fn root(server: &Server) -> std::path::PathBuf {
    server.folder().join("public")
}

/// Bytes that differ from their neighbours, and from those of another seed.
fn content(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| ((at + at / 251) % 251) as u8 ^ seed as u8).collect()
}

fn files_are_served_byte_for_byte_small_and_large(mode: Mode) {
    let sizes = [0, 1, 1024, 64 * 1024, 64 * 1024 + 1, 600_000, 3 << 20];
    let server = setup(mode, "", |root| {
        for size in sizes {
            fs::write(root.join(format!("{size}.bin")), content(size, 7)).expect("a file");
        }
        fs::create_dir(root.join("folder")).expect("a folder");
        fs::write(root.join("folder/index.html"), "<p>index").expect("a file");
        fs::write(root.join("a b\u{e9}.txt"), "name").expect("a file");
    })
    .start();
    let mut client = server.connect();
    for _ in 0..3 {
        for size in sizes {
            let response = client.get(&format!("/files/{size}.bin"));
            assert_eq!(response.status, 200, "{size}");
            assert!(response.body == content(size, 7), "{size} bytes are others");
            let head = client.head(&format!("/files/{size}.bin"));
            assert_eq!(head.stable_headers(), response.stable_headers(), "{size}");
        }
    }
    assert_eq!(client.get("/files/folder/").text(), "<p>index");
    let redirect = client.get("/files/folder?q=1");
    assert_eq!((redirect.status, redirect.header("location")), (308, Some("/files/folder/?q=1")));
    assert_eq!(client.get("/files/a%20b%c3%a9.txt").text(), "name");
    for missing in ["none", "1.bin/", "folder/none", "1.bin/x", ""] {
        assert_eq!(client.get(&format!("/files/{missing}")).status, 404, "{missing}");
    }
    let post = client.request("POST /files/1.bin HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
    assert_eq!((post.status, post.allow()), (405, vec!["GET", "HEAD", "OPTIONS"]));
    assert_eq!(client.get("/files/1.bin").status, 200);
}

/// Paths that would lead out of the root if anything in them were read another way than once.
fn escapes() -> Vec<String> {
    let ups = [
        "..",
        "%2e%2e",
        ".%2e",
        "%2e.",
        "%2E%2E",
        "%252e%252e",
        "..%00",
        "%c0%ae%c0%ae",
        "..;",
        "..\\",
        "%2e%2e%5c",
        "\u{2024}\u{2024}",
        "%uff0e%uff0e",
        "....",
        "%e0%80%ae%e0%80%ae",
        "..%01",
    ];
    let slashes = ["/", "%2f", "%2F", "%252f", "\\", "%5c", "//", "/./", "%c0%af", "/%2e/"];
    let mut paths = Vec::new();
    for up in ups {
        for slash in slashes {
            for start in ["", "folder/", "folder%2f"] {
                let climb =
                    if start.is_empty() { up.to_owned() } else { format!("{up}{slash}{up}") };
                paths.push(format!("/files/{start}{climb}{slash}secret"));
            }
        }
    }
    for link in [
        "out",
        "absolute",
        "folder/out",
        "chain",
        "up/secret",
        "up/public/out",
        "folder-out/secret",
    ] {
        paths.push(format!("/files/{link}"));
    }
    paths.push("/files//etc/passwd".into());
    paths.push("/files/../secret".into());
    paths.push("/files/%2fetc/passwd".into());
    paths.push("/files/secret".into());
    paths
}

fn with_escapes(mode: Mode) -> Setup {
    setup(mode, "listing = true", |root| {
        fs::create_dir(root.join("folder")).expect("a folder");
        fs::write(root.join("inside"), "inside").expect("a file");
        let secret = fs::canonicalize(root.join("../secret")).expect("the canary");
        symlink("../secret", root.join("out")).expect("a link");
        symlink(&secret, root.join("absolute")).expect("a link");
        symlink("../../secret", root.join("folder/out")).expect("a link");
        symlink("folder/out", root.join("chain")).expect("a link");
        symlink("..", root.join("up")).expect("a link");
        symlink("folder/../..", root.join("folder-out")).expect("a link");
    })
}

/// Asks for every path on connections of their own, and wants none to bring the canary.
fn stays_inside(server: &Server) {
    let paths = escapes();
    assert!(paths.len() >= 200, "{} paths", paths.len());
    for path in paths {
        let mut client = server.connect();
        let response = client.request(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        let status = response.status;
        assert!(matches!(status, 400 | 404), "{path} is {status}");
        assert!(!contains(&response.body, SECRET), "{path} has the canary");
    }
    assert_eq!(server.get("/files/inside").text(), "inside");
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn nothing_outside_is_served_however_it_is_written(mode: Mode) {
    stays_inside(&with_escapes(mode).start());
}

fn nothing_outside_is_served_where_the_kernel_may_not_be_asked(mode: Mode) {
    // openat2(…) fails with ENOSYS, as under RestrictSUIDSGID= of systemd, or EPERM, as in some containers.
    for errno in [38, 1] {
        let call = format!("437,-1,{errno}");
        let Some(setup) = restricted(with_escapes(mode), &call, &call) else { return };
        stays_inside(&setup.start());
    }
}

fn links_inside_are_followed_unless_they_are_not_to_be(mode: Mode) {
    let fill = |root: &Path| {
        // As Kubernetes mounts a ConfigMap.
        fs::create_dir(root.join("..2026")).expect("a folder");
        fs::write(root.join("..2026/app.txt"), "configured").expect("a file");
        symlink("..2026", root.join("..data")).expect("a link");
        symlink("..data/app.txt", root.join("app.txt")).expect("a link");
        fs::write(root.join("file"), "file").expect("a file");
    };
    let server = setup(mode, "", fill).start();
    assert_eq!(server.get("/files/app.txt").text(), "configured");
    let server = setup(mode, "symlinks = \"never\"", fill).start();
    assert_eq!(server.get("/files/app.txt").status, 404);
    assert_eq!(server.get("/files/file").text(), "file");
}

fn what_is_no_file_is_not_found_and_hangs_no_client(mode: Mode) {
    let server = setup(mode, "", |root| {
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
        symlink("pipe", root.join("to-pipe")).expect("a link");
        fs::write(root.join("file"), "file").expect("a file");
    })
    .start();
    // Where the path of the tests is too long for a socket, there is none, and that is not found either.
    let socket = UnixListener::bind(root(&server).join("s"));
    // Making a device takes a right that tests need not have.
    let device = nix::sys::stat::mknod(
        &root(&server).join("device"),
        nix::sys::stat::SFlag::S_IFCHR,
        nix::sys::stat::Mode::S_IRWXU,
        nix::sys::stat::makedev(1, 5),
    );
    let names = ["pipe", "to-pipe", "s", "device"];
    let made = [true, true, socket.is_ok(), device.is_ok()];
    for (name, is_made) in names.into_iter().zip(made) {
        let mut client = server.connect();
        assert_eq!(client.get(&format!("/files/{name}")).status, 404, "{name}, made: {is_made}");
    }
    assert_eq!(server.get("/files/file").text(), "file");
}

/// Asks until the answer is this.
#[track_caller]
fn becomes(server: &Server, path: &str, status: u16, body: &[u8]) {
    let mut client = server.connect();
    eventually(&format!("{path} is {status}"), || {
        let response = client.get(path);
        (response.status == status && (status != 200 || response.body == body)).then_some(())
    });
}

fn a_change_is_seen_after_the_time_that_was_set(mode: Mode) {
    let server = setup(mode, "", |root| {
        fs::write(root.join("small"), "old").expect("a file");
        fs::write(root.join("large"), content(200_000, 1)).expect("a file");
    })
    .start();
    let root = root(&server);
    for path in ["/files/small", "/files/large", "/files/later"] {
        server.get(path);
    }
    // In place, with the same size; by another file; and where there was none.
    fs::write(root.join("small"), "new").expect("a file");
    becomes(&server, "/files/small", 200, b"new");
    fs::write(root.join("draft"), content(200_000, 2)).expect("a file");
    fs::rename(root.join("draft"), root.join("large")).expect("in place");
    becomes(&server, "/files/large", 200, &content(200_000, 2));
    fs::write(root.join("later"), "later").expect("a file");
    becomes(&server, "/files/later", 200, b"later");
    fs::remove_file(root.join("later")).expect("removed");
    becomes(&server, "/files/later", 404, b"");
}

fn a_root_that_vanishes_is_unavailable_until_it_returns(mode: Mode) {
    let server = setup(mode, "", |root| {
        // What is served is a link, which a deployment swaps.
        fs::remove_dir(root).expect("no root");
        for release in ["one", "two"] {
            let folder = root.with_file_name(release);
            fs::create_dir(&folder).expect("a release");
            fs::write(folder.join("version"), release).expect("a file");
        }
        symlink("one", root).expect("a link");
    })
    .start();
    let root = root(&server);
    assert_eq!(server.get("/files/version").text(), "one");
    symlink("two", root.with_file_name("next")).expect("a link");
    fs::rename(root.with_file_name("next"), &root).expect("swapped");
    becomes(&server, "/files/version", 200, b"two");
    fs::remove_file(&root).expect("removed");
    becomes(&server, "/files/version", 503, b"");
    symlink("one", &root).expect("a link");
    becomes(&server, "/files/version", 200, b"one");
}

/// Asks for a file that no socket's buffers have room for, and reads the beginning of the response.
fn begin(server: &Server, path: &str) -> Client {
    let mut client = Client::connect_with_small_buffer(server.address());
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
    client.sip(2048);
    client
}

fn a_file_that_changes_while_it_is_sent_is_never_completed(mode: Mode) {
    const BYTES: usize = 48 << 20;
    type Change = fn(&Path);
    let truncate: Change = |path| {
        let file = OpenOptions::new().write(true).open(path).expect("the file");
        file.set_len(BYTES as u64 / 2).expect("truncated");
    };
    let append: Change = |path| {
        let mut file = OpenOptions::new().append(true).open(path).expect("the file");
        file.write_all(b"more").expect("appended");
    };
    let edit: Change = |path| {
        let file = OpenOptions::new().write(true).open(path).expect("the file");
        file.write_all_at(b"x", 3).expect("written");
    };
    let server = setup(mode, "", |root| {
        for name in ["truncate", "append", "edit"] {
            fs::write(root.join(name), content(BYTES, 3)).expect("a file");
        }
    })
    .start();
    for (name, change) in [("truncate", truncate), ("append", append), ("edit", edit)] {
        let mut client = begin(&server, &format!("/files/{name}"));
        change(&root(&server).join(name));
        let received = client.rest();
        assert!(received.len() < BYTES, "{name}: {} bytes look complete", received.len());
        assert!(server.get(&format!("/files/{name}")).body.len() > BYTES / 3);
    }
}

fn a_file_that_is_replaced_while_it_is_sent_is_sent_as_it_was(mode: Mode) {
    const BYTES: usize = 24 << 20;
    let server = setup(mode, "", |root| {
        fs::write(root.join("file"), content(BYTES, 4)).expect("a file");
        fs::write(root.join("next"), content(BYTES, 5)).expect("a file");
    })
    .start();
    let mut client = begin(&server, "/files/file");
    let root = root(&server);
    fs::rename(root.join("next"), root.join("file")).expect("replaced");
    becomes(&server, "/files/file", 200, &content(BYTES, 5));
    let response = client.response();
    assert!(response.body == content(BYTES, 4), "bytes of another file");
    assert_eq!(client.get("/files/none").status, 404, "the connection is kept");
}

fn renames_never_mix_two_files_nor_let_one_out(mode: Mode) {
    let server = setup(mode, "", |root| {
        for (folder, seed) in [("a", 1), ("b", 2)] {
            fs::create_dir(root.join(folder)).expect("a folder");
            fs::write(root.join(folder).join("small"), content(1000, seed)).expect("a file");
            fs::write(root.join(folder).join("large"), content(300_000, seed)).expect("a file");
        }
        fs::create_dir(root.with_file_name("evil")).expect("a folder");
        fs::write(root.with_file_name("evil").join("small"), SECRET).expect("the canary");
        fs::write(root.with_file_name("evil").join("large"), SECRET).expect("the canary");
        symlink("a", root.join("current")).expect("a link");
    })
    .start();
    let root = root(&server);
    let address = server.address();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|number| {
                let is_over = &is_over;
                scope.spawn(move || {
                    let mut client = Client::connect(Target::from(address));
                    let mut whole = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        let (name, length) = [("small", 1000), ("large", 300_000)][number % 2];
                        let response = client.get(&format!("/files/current/{name}"));
                        assert!(!contains(&response.body, SECRET), "the canary got out");
                        match response.status {
                            200 => {
                                let known = [content(length, 1), content(length, 2)];
                                assert!(known.contains(&response.body), "a mix of two files");
                                whole += 1;
                            }
                            status => assert!(matches!(status, 404 | 503), "{status}"),
                        }
                    }
                    whole
                })
            })
            .collect();
        for turn in 0..300 {
            let target = ["a", "b", "../evil", "b", "a", "none"][turn % 6];
            symlink(target, root.join("next")).expect("a link");
            fs::rename(root.join("next"), root.join("current")).expect("swapped");
            if turn % 10 == 0 {
                // A folder on the way goes away and comes back.
                fs::rename(root.join("a"), root.join("away")).expect("renamed");
                fs::rename(root.join("away"), root.join("a")).expect("renamed");
            }
            let_time_pass(Duration::from_millis(3));
        }
        is_over.store(true, Ordering::Relaxed);
        let whole: usize = clients.into_iter().map(|client| client.join().expect("a client")).sum();
        assert!(whole > 0, "nothing was served meanwhile");
    });
}
