//! What the README and the pages in docs/ say is so: links lead somewhere, commands and settings are valid, figures are
//! those of docs/benchmarks.md, and the picture is what its script draws.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod harness;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use harness::Setup;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

/// The pages that a user reads.
fn pages() -> Vec<PathBuf> {
    let in_folder = |folder: &Path| {
        let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.filter(|path| path.extension().is_some_and(|ending| ending == "md"))
    };
    in_folder(root()).chain(in_folder(&root().join("docs"))).collect()
}

/// The blocks of a page between fences of this language.
fn blocks<'p>(page: &'p str, language: &str) -> Vec<&'p str> {
    let fence = format!("```{language}\n");
    page.split(fence.as_str()).skip(1).map(|text| text.split("```").next().unwrap()).collect()
}

/// The names by which headings of a page are linked to.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let slug = |line: &str| {
        let text = line.trim_start_matches('#').trim().to_lowercase();
        let kept =
            text.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(slug).collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut count = 0;
    for path in pages() {
        let page = fs::read_to_string(&path).unwrap();
        for link in page.split("](").skip(1).map(|text| text.split(')').next().unwrap()) {
            if link.contains("://") || link.contains(char::is_whitespace) {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { path.clone() } else { path.with_file_name(file) };
            assert!(target.exists(), "{}: {link}", path.display());
            if !anchor.is_empty() {
                let there = anchors(&fs::read_to_string(&target).unwrap());
                assert!(there.contains(anchor), "{}: {link}: {there:?}", path.display());
            }
            count += 1;
        }
    }
    assert!(count > 30, "{count} links were found");
}

/// Has the server's binary check these words and a configuration of its own.
fn check(folder: &Path, words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    // One command alone has no configuration to check.
    let last = if words.contains(&"files") { "--help" } else { "check" };
    command.args(words).arg(last).envs(variables.iter().copied()).current_dir(folder);
    command.output().unwrap()
}

#[test]
fn its_settings_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let readme = read("README.md");
    let blocks = blocks(&readme, "toml");
    assert!(!blocks.is_empty());
    for block in blocks {
        fs::write(folder.path().join("config.toml"), block).unwrap();
        let output = check(folder.path(), &[], &[]);
        // 1 is a port that is in use.
        assert_ne!(output.status.code(), Some(2), "{block}{output:?}");
    }
}

#[test]
fn its_command_lines_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.toml"), "").unwrap();
    let readme = read("README.md");
    let lines = blocks(&readme, "sh").into_iter().flat_map(str::lines);
    let mut count = 0;
    for line in lines.filter(|line| line.contains("target/release/server")) {
        let words = line.split('#').next().unwrap().split_whitespace();
        let (before, words): (Vec<&str>, Vec<&str>) =
            words.partition(|word| word.starts_with("LANEWAY_") || word.ends_with("/server"));
        let variables: Vec<_> = before.iter().filter_map(|word| word.split_once('=')).collect();
        let is_command = |word: &&str| ["check", "show-config", "run"].contains(word);
        let words: Vec<&str> = words.into_iter().filter(|word| !is_command(word)).collect();
        let output = check(folder.path(), &words, &variables);
        assert_ne!(output.status.code(), Some(2), "{line}: {output:?}");
        count += 1;
    }
    assert!(count > 3, "{count} lines were found");
}

#[test]
fn commands_that_the_pages_name_exist() {
    let help = Command::new(env!("CARGO_BIN_EXE_server")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for page in ["README.md", "docs/operations.md"] {
        let text = read(page);
        // A line of HAProxy's configuration begins with the same word.
        let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("HAProxy")).collect();
        for named in lines.join("\n").split("`server ").skip(1) {
            let name = named.split(['`', ' ']).next().unwrap();
            assert!(help.contains(&format!("\n  {name} ")), "{page}: server {name}");
        }
    }
}

#[test]
fn the_quick_start_answers_as_it_is_shown() {
    let readme = read("README.md");
    for line in [
        "cargo run --release -- --config config.toml",
        "curl -i http://127.0.0.1:8080/",
        "curl -i http://127.0.0.1:8080/echo -d 'hello'",
    ] {
        assert!(readme.lines().any(|shown| shown == line), "{line}");
    }
    let shipped = Setup::bare().config_at(root().join("config.toml"));
    let server = shipped.set("server.listen", "\"127.0.0.1:0\"").start();
    assert_eq!(server.get("/").text(), "Hello from laneway\n");
    let mut client = server.connect();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    assert_eq!(client.response().text(), "hello");
}

/// The rows of a page's tables, as cells.
fn rows(page: &str) -> Vec<Vec<String>> {
    let cells = |line: &str| {
        let cells = line.trim().strip_prefix('|')?.strip_suffix('|')?.split('|');
        Some(cells.map(|cell| cell.trim().trim_matches('*').to_owned()).collect())
    };
    page.lines().filter_map(cells).collect()
}

#[test]
fn its_figures_are_those_of_the_benchmarks() {
    let (readme, benchmarks) = (read("README.md"), read("docs/benchmarks.md"));
    let measured = rows(&benchmarks);
    let shown = rows(&readme);
    let head = shown.iter().position(|row| row[0] == "CPU µs/request").unwrap();
    for (label, load) in [
        ("64 keep-alive connections", "64"),
        ("512 keep-alive connections", "512"),
        ("a connection for each request", "64 new"),
    ] {
        let row = shown.iter().find(|row| row[0] == label).unwrap();
        for (server, figure) in shown[head].iter().zip(row).skip(1) {
            let is_it = |row: &&Vec<String>| row[0] == load && row[1] == *server;
            let row = measured.iter().find(is_it).unwrap();
            assert_eq!(Some(figure.as_str()), row[3].split(' ').next(), "{label}: {server}");
        }
    }
    let section = readme.split("## How fast").nth(1).unwrap().split("\n## ").next().unwrap();
    let words = section.split(|letter: char| !letter.is_ascii_digit() && letter != '.');
    for figure in words.map(|word| word.trim_matches('.')).filter(|word| word.contains('.')) {
        assert!(benchmarks.contains(figure), "{figure} is no figure of docs/benchmarks.md");
    }
}

#[test]
fn the_picture_is_what_its_script_draws() {
    if harness::skip_without("python3") {
        return;
    }
    let drawn = Command::new("python3").arg(root().join("docs/lanes.py")).output().unwrap();
    assert!(drawn.status.success(), "{drawn:?}");
    let drawn = String::from_utf8(drawn.stdout).unwrap();
    assert!(drawn == read("docs/lanes.svg"), "docs/lanes.py > docs/lanes.svg");
}
