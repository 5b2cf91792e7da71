//! `supervisor.reload_on_change`: a configuration file whose change is a reload, however it is changed, and nothing else is.

mod harness;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::{
    Client, Event, Mode, NEW, OLD, Scratch, Server, Setup, Site, eventually, let_time_pass,
    process_state, reload, skip_without_faults,
};
use nix::sys::signal::{SIGHUP, SIGTERM, SIGUSR2};

/// What moves the bytes, and how connections come, has no part in it.
macro_rules! in_both_modes {
    ($($case:ident),+ $(,)?) => {
        harness::in_mode!(threads, THREADS, [$($case),+]);
        harness::in_mode!(processes, PROCESSES, [$($case),+]);
    };
}

in_both_modes!(
    a_file_that_is_renamed_over_or_written_in_place_is_served_without_a_failure,
    a_change_of_a_config_map_is_served,
    a_file_that_a_link_leads_to_is_followed_where_it_lies,
    a_file_that_is_removed_is_missed_once_and_served_when_it_is_there_again,
    what_changes_nothing_reloads_nothing,
    a_file_that_is_half_written_is_not_read,
    a_file_that_is_wrong_is_rejected_once_and_the_old_one_serves_on,
    a_reload_turns_it_on_and_off,
    an_upgrade_follows_on,
    in_a_drain_nothing_is_followed,
    a_file_that_changes_all_the_time_is_reloaded_now_and_then,
);

/// Longer than a change needs to be read.
const SETTLED: Duration = Duration::from_millis(1_500);

/// A site that is followed.
fn site(mode: Mode) -> Site {
    let mut site = Site::new(mode);
    site.more = FOLLOW.into();
    site
}

const FOLLOW: &str = "supervisor.reload_on_change = true\n";

/// Its text as it would be with another answer.
fn text_with(site: &mut Site, answer: &'static str) -> String {
    site.text = answer;
    let text = site.toml();
    site.text = OLD;
    text
}

/// Waits until `count` reloads are done, and returns the last.
fn wait_reloads(server: &Server, count: usize) -> Event {
    server.journal.wait_nth("reload done", count)
}

fn count(server: &Server, name: &str) -> usize {
    server.journal.named(name).len()
}

/// The next reload's beginning says why it is.
fn assert_followed(server: &Server, nth: usize) {
    let started = server.journal.wait_nth("reload started", nth);
    assert_eq!(started.text("reason"), "the configuration file has changed");
}

/// Renamed into its place, as most editors do.
fn put(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("write a file");
    fs::rename(new, path).expect("put it in place");
}

fn a_file_that_is_renamed_over_or_written_in_place_is_served_without_a_failure(mode: Mode) {
    let mut site = site(mode);
    let server = site.start();
    assert_eq!(
        server.journal.wait_for("configuration followed").text("path"),
        site.path().to_str().expect("text")
    );
    let traffic = site.traffic();
    put(&site.path(), &text_with(&mut site, NEW));
    wait_reloads(&server, 1);
    assert_followed(&server, 1);
    assert_eq!(site.get(), NEW);
    site.write();
    wait_reloads(&server, 2);
    assert_eq!(site.get(), OLD);
    let mut file = OpenOptions::new().append(true).open(site.path()).expect("open it");
    file.write_all(b"[[route]]\npath = \"/more\"\ntext = \"more\"\n").expect("append");
    drop(file);
    wait_reloads(&server, 3);
    assert_eq!(Client::connect(site.listen[0]).get("/more").text(), "more");
    let tally = traffic.stop();
    assert_eq!(tally.failures(), 0, "{tally:?}");
    assert_eq!(server.journal.named("configuration followed").len(), 1);
}

/// A folder as a kubelet mounts a ConfigMap: what is in it are links over `..data`, which is swapped.
struct ConfigMap<'f> {
    folder: &'f Path,
    version: u32,
}

impl ConfigMap<'_> {
    fn write(&mut self, files: &[(&str, &str)]) {
        self.version += 1;
        let version = format!("..2026_11_30_{}", self.version);
        let old = fs::read_link(self.folder.join("..data")).ok();
        fs::create_dir(self.folder.join(&version)).expect("a folder");
        for (name, text) in files {
            fs::write(self.folder.join(&version).join(name), text).expect("write");
        }
        symlink(&version, self.folder.join("..data_tmp")).expect("a link");
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).expect("swap");
        for (name, _) in files {
            let _ = symlink(Path::new("..data").join(name), self.folder.join(name));
        }
        if let Some(old) = old {
            fs::remove_dir_all(self.folder.join(old)).expect("remove the old version");
        }
    }
}

fn a_change_of_a_config_map_is_served(mode: Mode) {
    let mut site = site(mode);
    let scratch = Scratch::new();
    let mut map = ConfigMap { folder: scratch.path(), version: 0 };
    let page = "[[route]]\npath = \"/page\"\nbody_file = \"page.html\"\n";
    let toml = |site: &mut Site, text| text_with(site, text) + page;
    map.write(&[("config.toml", &toml(&mut site, OLD)), ("page.html", "one")]);
    let server = Setup::bare().config_at(scratch.path().join("config.toml")).start();
    let page = || Client::connect(site.listen[0]).get("/page").text().to_owned();
    assert_eq!((site.get(), page()), (OLD.into(), "one".into()));
    let traffic = site.traffic();
    let new = toml(&mut Site { listen: site.listen.clone(), ..self::site(mode) }, NEW);
    map.write(&[("config.toml", &new), ("page.html", "one")]);
    wait_reloads(&server, 1);
    assert_eq!((site.get(), page()), (NEW.into(), "one".into()));
    // Another file of the map alone, which the configuration names.
    map.write(&[("config.toml", &new), ("page.html", "two")]);
    wait_reloads(&server, 2);
    assert_followed(&server, 2);
    assert_eq!((site.get(), page()), (NEW.into(), "two".into()));
    // The same once more.
    map.write(&[("config.toml", &new), ("page.html", "two")]);
    let_time_pass(SETTLED + SETTLED);
    assert_eq!(count(&server, "reload started"), 2);
    let tally = traffic.stop();
    assert_eq!(tally.failures(), 0, "{tally:?}");
}

fn a_file_that_a_link_leads_to_is_followed_where_it_lies(mode: Mode) {
    let mut site = site(mode);
    let (old, new) = (text_with(&mut site, OLD), text_with(&mut site, NEW));
    let at = |name: &str| site.scratch.path().join(name);
    for (release, text) in [("1", &new), ("2", &old)] {
        fs::create_dir_all(at("releases").join(release)).expect("a folder");
        fs::write(at("releases").join(release).join("config.toml"), text).expect("write");
    }
    symlink("releases/1", at("current")).expect("a link");
    fs::write(at("releases/1/config.toml"), &old).expect("write");
    let server = Setup::bare().config_at(at("current/config.toml")).start();
    fs::write(at("releases/1/config.toml"), &new).expect("write where it lies");
    wait_reloads(&server, 1);
    assert_eq!(site.get(), NEW);
    symlink("releases/2", at("next")).expect("a link");
    fs::rename(at("next"), at("current")).expect("swap the release");
    wait_reloads(&server, 2);
    assert_eq!(site.get(), OLD);
    put(&at("releases/2/config.toml"), &new);
    wait_reloads(&server, 3);
    assert_eq!(site.get(), NEW);
}

fn a_file_that_is_removed_is_missed_once_and_served_when_it_is_there_again(mode: Mode) {
    let mut site = site(mode);
    let server = site.start();
    fs::remove_file(site.path()).expect("remove it");
    let rejected = server.journal.wait_for("reload rejected");
    assert!(rejected.text("reason").contains("No such file"), "{rejected:?}");
    assert_eq!(site.get(), OLD);
    fs::write(site.path(), text_with(&mut site, NEW)).expect("write it anew");
    wait_reloads(&server, 1);
    assert_eq!(site.get(), NEW);
    // An editor that removes a file before it writes it again.
    fs::remove_file(site.path()).expect("remove it");
    fs::write(site.path(), text_with(&mut site, OLD)).expect("write it anew");
    wait_reloads(&server, 2);
    assert_eq!(site.get(), OLD);
    assert_eq!(count(&server, "reload rejected"), 1);
}

fn what_changes_nothing_reloads_nothing(mode: Mode) {
    let mut site = site(mode);
    let server = site.start();
    let pid = server.worker_pid(0);
    fs::write(site.scratch.path().join("other.toml"), "other").expect("write another file");
    let_time_pass(SETTLED);
    let same = text_with(&mut site, OLD);
    fs::write(site.path(), &same).expect("write the same");
    let_time_pass(SETTLED);
    put(&site.path(), &same);
    let_time_pass(SETTLED);
    assert_eq!(count(&server, "reload started"), 0);
    assert_eq!(server.worker_pid(0), pid);
    // And what changes something still does.
    put(&site.path(), &text_with(&mut site, NEW));
    wait_reloads(&server, 1);
    assert_eq!(site.get(), NEW);
}

fn a_file_that_is_half_written_is_not_read(mode: Mode) {
    let mut site = site(mode);
    let server = site.start();
    let new = text_with(&mut site, NEW);
    // In the middle of a value.
    let (first, second) = new.split_at(new.rfind("new generation").expect("the answer") + 3);
    let mut file = OpenOptions::new().write(true).truncate(true).open(site.path()).expect("open");
    for part in [&first[..20], &first[20..]] {
        file.write_all(part.as_bytes()).expect("write a part");
        let_time_pass(SETTLED);
    }
    assert_eq!(count(&server, "reload started"), 0);
    assert_eq!(site.get(), OLD);
    file.write_all(second.as_bytes()).expect("write the other part");
    drop(file);
    wait_reloads(&server, 1);
    assert_eq!(site.get(), NEW);
    assert_eq!(count(&server, "reload rejected"), 0);
}

fn a_file_that_is_wrong_is_rejected_once_and_the_old_one_serves_on(mode: Mode) {
    let mut site = site(mode);
    let server = site.start();
    let pid = server.worker_pid(0);
    let wrong = format!("{}[server]\nbacklogg = 5\n", FOLLOW);
    put(&site.path(), &wrong);
    let rejected = server.journal.wait_for("reload rejected");
    assert!(rejected.text("reason").contains("did you mean `backlog`?"), "{rejected:?}");
    assert_followed(&server, 1);
    fs::write(site.path(), &wrong).expect("write the same");
    let_time_pass(SETTLED + SETTLED);
    assert_eq!(count(&server, "reload rejected"), 1);
    assert_eq!(site.get(), OLD);
    assert_eq!(server.worker_pid(0), pid);
    // A blank file is none that its owner wrote.
    fs::write(site.path(), "").expect("empty it");
    let rejected = server.journal.wait_nth("reload rejected", 2);
    assert!(rejected.text("reason").contains("the file is blank"), "{rejected:?}");
    put(&site.path(), &text_with(&mut site, NEW));
    wait_reloads(&server, 1);
    assert_eq!(site.get(), NEW);
}

fn a_reload_turns_it_on_and_off(mode: Mode) {
    let mut site = Site::new(mode);
    let server = site.start();
    put(&site.path(), &text_with(&mut site, NEW));
    let_time_pass(SETTLED);
    assert_eq!(site.get(), OLD);
    site.more = FOLLOW.into();
    site.write();
    assert_eq!(reload(&server).name(), "reload done");
    server.journal.wait_for("configuration followed");
    assert!(!server.journal.wait_for("reload started").has("reason"));
    put(&site.path(), &text_with(&mut site, NEW));
    wait_reloads(&server, 2);
    assert_eq!(site.get(), NEW);
    // A change that turns it off is the last that is followed.
    site.more.clear();
    put(&site.path(), &text_with(&mut site, OLD));
    wait_reloads(&server, 3);
    put(&site.path(), &text_with(&mut site, NEW));
    let_time_pass(SETTLED + SETTLED);
    assert_eq!(site.get(), OLD);
    assert_eq!(count(&server, "reload started"), 3);
    // What its generation could not start with leaves it as it was.
    if skip_without_faults() {
        return;
    }
    site.more = FOLLOW.into();
    site.write();
    let fails = server.folder().join("fail-start");
    fs::write(&fails, "").expect("write into the server's folder");
    assert_eq!(reload(&server).name(), "reload rejected");
    fs::remove_file(fails).expect("remove it");
    put(&site.path(), &text_with(&mut site, NEW));
    let_time_pass(SETTLED);
    assert_eq!(count(&server, "reload started"), 4);
}

fn an_upgrade_follows_on(mode: Mode) {
    let mut site = site(mode);
    let server = site.start();
    let traffic = site.traffic();
    server.signal(SIGUSR2);
    let heir = server.journal.wait_for("upgrade done").pid();
    let ended = || process_state(server.pid()).is_none_or(|state| state == 'Z').then_some(());
    server.journal.wait_for("drain done");
    eventually("the old supervisor ends", ended);
    put(&site.path(), &text_with(&mut site, NEW));
    wait_reloads(&server, 1);
    assert_eq!(count(&server, "reload started"), 1);
    assert_eq!(site.get(), NEW);
    let tally = traffic.stop();
    assert_eq!(tally.failures(), 0, "{tally:?}");
    assert!(process_state(heir).is_some());
}

fn in_a_drain_nothing_is_followed(mode: Mode) {
    let mut site = site(mode);
    let mut server = site.start();
    let mut client = Client::connect(site.listen[0]);
    client.get("/");
    client.send("GET / HTTP/1.1\r\n");
    server.signal(SIGTERM);
    server.journal.wait_for("drain started");
    put(&site.path(), &text_with(&mut site, NEW));
    let_time_pass(SETTLED);
    client.send("Host: a\r\n\r\n");
    assert_eq!(client.response().text(), OLD);
    assert_eq!(server.wait_exit(), 0);
    let names = ["reload started", "reload rejected", "change waits"];
    assert_eq!(names.map(|name| count(&server, name)), [0, 0, 0]);
}

fn a_file_that_changes_all_the_time_is_reloaded_now_and_then(mode: Mode) {
    let mut site = site(mode);
    let server = site.start();
    let traffic = site.traffic();
    let texts = [text_with(&mut site, NEW), text_with(&mut site, OLD)];
    let begin = Instant::now();
    for change in 0..200 {
        put(&site.path(), &format!("{}# {change}\n", texts[change % 2]));
        let_time_pass(Duration::from_millis(20));
    }
    let reloads = count(&server, "reload started");
    let most = begin.elapsed().as_secs() / 2 + 1;
    assert!(reloads > 0 && reloads as u64 <= most, "{reloads}, not {most} at most");
    // The last of them is served in the end.
    let new =
        text_with(&mut site, NEW) + "# the last\n[[route]]\npath = \"/last\"\ntext = \"last\"\n";
    put(&site.path(), &new);
    eventually("the last change is served", || {
        (Client::connect(site.listen[0]).get("/last").status == 200).then_some(())
    });
    let tally = traffic.stop();
    assert_eq!(tally.failures(), 0, "{tally:?}");
}

#[test]
fn without_a_name_the_file_of_the_folder_that_it_was_started_in_is_followed() {
    let mut site = site(Mode::THREADS);
    let setup = Setup::bare();
    let path = setup.scratch().path().join("config.toml");
    fs::write(&path, text_with(&mut site, OLD)).expect("write");
    let server = setup.start();
    assert_eq!(site.get(), OLD);
    put(&path, &text_with(&mut site, NEW));
    wait_reloads(&server, 1);
    assert_eq!(site.get(), NEW);
}

#[test]
fn a_configuration_without_a_file_says_that_there_is_nothing_to_follow() {
    let setup = Setup::bare().set("log.format", "json").set("server.listen", "127.0.0.1:0");
    let server = setup.env("LANEWAY_SUPERVISOR__RELOAD_ON_CHANGE", "true").start();
    let warning = server.journal.wait_for("configuration warning");
    let title = "`supervisor.reload_on_change` has no effect: the configuration has no file";
    assert_eq!(warning.text("reason"), title);
    assert_eq!(count(&server, "configuration followed"), 0);
    assert_eq!(reload(&server).name(), "reload done");
}

#[test]
fn what_reads_the_file_may_hang_and_holds_up_nothing() {
    if skip_without_faults() {
        return;
    }
    let mut site = site(Mode::THREADS);
    let server = site.setup().set("supervisor.ready_timeout", "1s").start();
    let_time_pass(SETTLED);
    fs::write(server.folder().join("hang-load"), "").expect("write into the server's folder");
    put(&site.path(), &text_with(&mut site, NEW));
    let rejected = server.journal.wait_for("reload rejected");
    assert!(
        rejected.text("reason").contains("took longer than supervisor.ready_timeout"),
        "{rejected:?}"
    );
    let started = server.journal.wait_for("reload started");
    assert_eq!(started.text("reason"), "the configuration file may have changed");
    assert_eq!(site.get(), OLD);
    fs::remove_file(server.folder().join("hang-load")).expect("remove it");
    server.signal(SIGHUP);
    wait_reloads(&server, 1);
    assert_eq!(site.get(), NEW);
}
