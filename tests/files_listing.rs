//! `server files`, which serves a folder and needs no configuration, and its listings as a browser shows them.

mod harness;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use harness::{Scratch, Server, Setup, eventually, skip_without};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// A server of the folder `shared` of its own folder, started as on a command line, beside a configuration that isn't its
/// own.
fn serve(fill: impl FnOnce(&Path)) -> Server {
    let setup = Setup::bare().set("log.format", "json");
    setup.scratch().write("config.toml", "this is no configuration of a server");
    let shared = setup.scratch().path().join("shared");
    fs::create_dir(&shared).expect("a folder");
    fill(&shared);
    setup.arguments(&["files", "shared", "--listen", "127.0.0.1:0"]).start()
}

#[test]
fn a_folder_is_served_without_a_configuration_file() {
    let mut server = serve(|folder| {
        fs::create_dir(folder.join("empty")).expect("a folder");
        fs::write(folder.join("a.txt"), "a").expect("a file");
    });
    // Another one beside it doesn't get in its way.
    let other = serve(|folder| fs::write(folder.join("b.txt"), "b").expect("a file"));
    assert_eq!(server.get("/a.txt").text(), "a");
    assert_eq!(other.get("/b.txt").text(), "b");
    assert!(server.get("/").text().contains("href=\"./a.txt\""));
    assert!(server.get("/empty/").text().contains("This folder is empty."));
    assert_eq!(server.get("/config.toml").status, 404);
    server.signal(Signal::SIGINT);
    assert_eq!(server.wait_exit(), 0);
}

#[test]
fn a_folder_that_is_not_there_is_told() {
    let scratch = Scratch::new();
    let file = scratch.write("a.txt", "a");
    for (folder, told) in
        [(scratch.path().join("none"), "there is no folder"), (file, "a.txt is no folder")]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
        let output = command.arg("files").arg(&folder).output().expect("the command");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(told), "{said}");
    }
}

/// A page in a headless Chromium, which is told what to do through a pipe.
struct Page {
    browser: Child,
    to_browser: ChildStdin,
    from_browser: BufReader<ChildStdout>,
    session: String,
    calls: u64,
    _profile: Scratch,
}

impl Page {
    /// None, with a visible reason, without the program.
    fn open(address: SocketAddr, path: &str) -> Option<Page> {
        if skip_without("chromium") {
            return None;
        }
        let profile = Scratch::new();
        // Its commands come on descriptor 3, and its answers go to 4.
        let script = "exec chromium --headless --no-sandbox --disable-gpu --disable-dev-shm-usage \
                      --no-first-run --user-data-dir=\"$1\" --remote-debugging-pipe about:blank \
                      3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut browser = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the browser");
        let to_browser = browser.stdin.take().expect("a pipe");
        let from_browser = BufReader::new(browser.stdout.take().expect("a pipe"));
        let mut page = Page {
            browser,
            to_browser,
            from_browser,
            session: String::new(),
            calls: 0,
            _profile: profile,
        };
        let url = format!("http://{address}{path}");
        let target = page.call("Target.createTarget", json!({ "url": url }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = page.call("Target.attachToTarget", attach);
        page.session = attached["sessionId"].as_str().expect("a session").to_owned();
        Some(page)
    }

    /// Calls a method of the browser, and waits for what it returns.
    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let text = format!("{message}\0");
        self.to_browser.write_all(text.as_bytes()).expect("a browser that reads");
        loop {
            let mut answer = Vec::new();
            self.from_browser.read_until(0, &mut answer).expect("a browser that answers");
            assert_eq!(answer.pop(), Some(0), "the browser has ended");
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            if answer["id"] == json!(self.calls) {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// What an expression is on the page.
    fn value_of(&mut self, expression: &str) -> Value {
        let evaluated = self.call("Runtime.evaluate", json!({ "expression": expression }));
        evaluated["result"]["value"].clone()
    }

    /// Waits until an expression is this text.
    #[track_caller]
    fn becomes(&mut self, expression: &str, text: &str) {
        eventually(&format!("{expression} is {text:?}"), || {
            // While another page is loaded there may be none.
            (self.value_of(expression) == json!(text)).then_some(())
        });
    }

    fn click(&mut self, selector: &str) {
        self.value_of(&format!("document.querySelector({selector:?}).click()"));
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // It ends its own processes when its main one is told to.
        self.calls += 1;
        let close = format!("{{\"id\":{},\"method\":\"Browser.close\"}}\0", self.calls);
        if self.to_browser.write_all(close.as_bytes()).is_err() {
            let _ = self.browser.kill();
        }
        let _ = self.browser.wait();
    }
}

#[test]
fn a_browser_shows_the_listing_sorts_it_and_follows_a_link() {
    let server = serve(|folder| {
        for (name, size) in [("b <i>&'\".txt", 3), ("a.txt", 20_000), ("c \u{fc}.txt", 100)] {
            fs::write(folder.join(name), vec![b'x'; size]).expect("a file");
        }
        fs::create_dir(folder.join("a folder")).expect("a folder");
        fs::write(folder.join("a folder/inside.txt"), "found").expect("a file");
    });
    let Some(mut page) = Page::open(server.address(), "/") else { return };
    let names = "[...document.querySelectorAll('td a')].map(a => a.textContent).join('|')";
    page.becomes(names, "a folder/|a.txt|b <i>&'\".txt|c \u{fc}.txt");
    // The style is the one that its policy allows, and follows what the reader prefers.
    page.becomes("getComputedStyle(document.querySelector('table')).borderCollapse", "collapse");
    for (scheme, colour) in [("light", "rgb(11, 87, 208)"), ("dark", "rgb(138, 180, 248)")] {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        page.call("Emulation.setEmulatedMedia", json!({ "features": features }));
        page.becomes("getComputedStyle(document.querySelector('td a')).color", colour);
    }
    page.click("th:nth-child(2) a");
    page.becomes(names, "a folder/|b <i>&'\".txt|c \u{fc}.txt|a.txt");
    page.becomes("document.querySelector('th[aria-sort=ascending]').textContent", "Size");
    page.click("th:nth-child(2) a");
    page.becomes(names, "a folder/|a.txt|c \u{fc}.txt|b <i>&'\".txt");
    page.click("td a");
    page.becomes(names, "inside.txt");
    page.becomes("document.querySelector('h1').textContent", "/a folder/");
    page.click("td a");
    page.becomes("document.body.textContent", "found");
    page.value_of("history.go(-2)");
    page.becomes("document.querySelector('h1').textContent", "/");
    page.click("tr:nth-child(4) td a");
    page.becomes("document.body.textContent", "xxx");
}
