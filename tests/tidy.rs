//! The rules that the compiler does not know: which part may depend on which, where `unsafe` and calls to the kernel
//! may stand, how long files and functions may be, what every file begins with. The rules are data at the top.

mod sources;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::slice::from_ref;
use std::sync::OnceLock;

use sources::{NamedPath, Source};

/// Each part, and the parts it may name. A path belongs to the longest part that it begins with; a
/// part may always name itself and what is below it. `lib` and `main` are the roots of the two crates: the one
/// declares all parts, and the other sees what the documents of the crate show.
const DIRECTIONS: &[(&str, &[&str])] = &[
    (
        "cli",
        &["config", "control", "supervisor", "supervisor::commands", "supervisor::loading", "sys"],
    ),
    // Of http what a field may consist of, which the fields of a route are held to.
    ("config", &["http", "sys"]),
    ("supervisor", &["supervisor::event_loop", "supervisor::loading", "supervisor::succession"]),
    (
        "supervisor::event_loop",
        &[
            "config",
            "control",
            "observe",
            "supervisor::commands",
            "supervisor::listeners",
            "supervisor::loading",
            "supervisor::log_events",
            "supervisor::policy",
            "supervisor::presence",
            "supervisor::processes",
            "supervisor::succession",
            "supervisor::token",
            "sys",
            "worker",
        ],
    ),
    (
        "supervisor::loading",
        &[
            "config",
            "control",
            "observe",
            "supervisor::commands",
            "supervisor::listeners",
            "supervisor::policy",
            "supervisor::presence",
            "supervisor::processes",
            "supervisor::token",
            "sys",
            "worker",
        ],
    ),
    (
        "supervisor::succession",
        &[
            "config",
            "control",
            "observe",
            "supervisor::commands",
            "supervisor::listeners",
            "supervisor::presence",
            "supervisor::processes",
            "supervisor::token",
            "sys",
        ],
    ),
    (
        "supervisor::commands",
        &[
            "config",
            "control",
            "observe",
            "supervisor::listeners",
            "supervisor::policy",
            "supervisor::presence",
            "supervisor::processes",
            "supervisor::token",
            "sys",
        ],
    ),
    (
        "supervisor::log_events",
        &["config", "control", "observe", "supervisor::policy", "supervisor::processes", "sys"],
    ),
    (
        "supervisor::processes",
        &[
            "config",
            "control",
            "observe",
            "supervisor::listeners",
            "supervisor::policy",
            "supervisor::token",
            "sys",
            "worker",
        ],
    ),
    ("supervisor::policy", &["config", "control"]),
    ("supervisor::listeners", &["config", "supervisor::presence", "sys"]),
    ("supervisor::presence", &["control", "sys"]),
    ("supervisor::token", &["control"]),
    ("worker", &["config", "content", "control", "http", "observe", "sys", "worker::driver"]),
    ("worker::driver", &["sys"]),
    ("control", &["sys"]),
    ("http", &[]),
    ("content", &["config", "content::files", "http"]),
    ("content::files", &["config", "content", "http", "sys"]),
    ("observe", &["config", "sys"]),
    ("sys", &[]),
];

/// What a module, and everything below it, must not name, wherever in a path it stands.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        // Sans-I/O: no socket, no file, no clock.
        "http",
        &["std::net", "std::fs", "std::os::fd", "std::thread", "Instant", "SystemTime"],
    ),
    (
        // Pure: what it knows of the world and of the time is handed to it.
        "supervisor::policy",
        &[
            "std::net",
            "std::fs",
            "std::io",
            "std::os::fd",
            "std::thread",
            "Instant::now",
            "SystemTime",
            "crate::sys",
        ],
    ),
];

/// The part that moves what answers, and names no kind of content: a new one is nothing to it.
const MOVES_CONTENT: &str = "worker";
/// What it may know of content besides the root of that part: the vocabulary that all kinds share.
const CONTENT_VOCABULARY: &str = "content::answer";

/// The only part with `unsafe` in it, and the only one that may name what calls the kernel.
const KERNEL_PART: &str = "sys";

/// What calls the kernel, by what a path begins with. What std wraps into values that own what they name (files,
/// streams, descriptors) is for every part; the number of a descriptor, to do something with it, is not.
const KERNEL: &[&str] = &[
    "core_affinity",
    "io_uring",
    "libc",
    "nix",
    "num_cpus",
    "procfs",
    "socket2",
    "terminal_size",
    "std::os::fd::AsRawFd",
    "std::os::fd::FromRawFd",
    "std::os::fd::IntoRawFd",
];

/// Most lines of a file, without its tests: a sitting.
const FILE_LINES_MAX: usize = 500;
/// Most lines of a function: a screen.
const FUNCTION_LINES_MAX: usize = 70;
/// Most files and folders side by side; in src/ the roots of the two crates don't count.
const ENTRIES_MAX: usize = 10;

/// Most items that the documents of the crate show: what is meant to be used, and room for a few more.
const FACE_ITEMS_MAX: usize = 43;

/// Which of them no example of the documents names, and why.
const WITHOUT_EXAMPLE: &[(&str, &str)] =
    &[("WorkerProcess", "an example runs one that `Outcome` has, and never needs the type's name")];

/// Which of them can't grow without breaking code that uses them, and why.
const EXHAUSTIVE: &[(&str, &str)] = &[
    ("LogLevel", "these are the levels that there are"),
    ("Outcome", "a program that doesn't handle one of them would not serve"),
    ("Task", "a program that doesn't handle one of them would not serve"),
];

/// What comments don't say: it is a connection, a socket, a client, a worker or a process that is meant.
const VAGUE_WORDS: &[&str] = &[
    "nobody",
    "somebody",
    "anybody",
    "everybody",
    "whoever",
    "whomever",
    "he",
    "him",
    "his",
    "she",
    "her",
];

/// What doesn't hold yet: a rule, and where. An entry that isn't needed any more is a failure, too, so that the list
/// only ever becomes shorter.
const NOT_YET: &[(&str, &str)] = &[];

/// A place that breaks a rule.
#[derive(Debug)]
struct Problem {
    /// As an entry of [`NOT_YET`] names it.
    place: String,
    line: usize,
    what: String,
}

fn problem(source: &Source, line: usize, what: String) -> Problem {
    Problem { place: source.path.display().to_string(), line, what }
}

/// The part that a module belongs to: the longest in the table that its path begins with.
fn part_of(module: &[String]) -> Option<&'static str> {
    let parts = DIRECTIONS.iter().map(|&(part, _)| part);
    let owns = |part: &&str| {
        let segments: Vec<&str> = part.split("::").collect();
        module.len() >= segments.len() && module.iter().zip(segments).all(|(a, b)| a == b)
    };
    parts.filter(owns).max_by_key(|part| part.len())
}

fn check_directions(source: &Source) -> Vec<Problem> {
    if matches!(source.name().as_str(), "lib" | "main") {
        return Vec::new();
    }
    let Some(part) = part_of(&source.module) else {
        let what = "is no part that the table of tests/tidy.rs knows".to_owned();
        return vec![problem(source, 1, what)];
    };
    let row = DIRECTIONS.iter().find(|(name, _)| *name == part);
    let allowed = row.map_or(&[][..], |(_, allowed)| allowed);
    let check = |path: &NamedPath| {
        let inside = path.segments.strip_prefix(&["crate".to_owned()])?;
        if inside.is_empty() {
            return None;
        }
        let named = path.segments.join("::");
        let what = match part_of(inside) {
            None => format!("`{named}` is in no part that the table knows"),
            Some(target) if target == part || allowed.contains(&target) => return None,
            Some(target) => format!("`{part}` must not depend on `{target}` (`{named}`)"),
        };
        Some(problem(source, path.line, what))
    };
    source.paths.iter().filter_map(check).collect()
}

fn check_forbidden(source: &Source) -> Vec<Problem> {
    let parts = FORBIDDEN.iter().filter(|(part, _)| source.is_below(part));
    let found = parts.flat_map(|(part, forbidden)| {
        source.paths.iter().filter(|path| !path.in_tests).filter_map(move |path| {
            let found = forbidden.iter().find(|wanted| path.names(wanted))?;
            Some(problem(source, path.line, format!("`{part}` must not know `{found}`")))
        })
    });
    found.collect()
}

/// The names of the kinds of content: what a route can be configured to answer with, and all types of each file that
/// has a `Handler`.
fn kinds(sources: &[Source]) -> BTreeSet<String> {
    let is_kind = |source: &&Source| {
        source.is_below("content")
            && source.name() != CONTENT_VOCABULARY
            && source.implemented.contains("Handler")
    };
    let types = sources.iter().filter(is_kind).flat_map(|source| {
        let own = source.items.iter().filter(|(path, _)| path[1..].starts_with(&source.module));
        own.map(|(path, _)| path[path.len() - 1].clone())
    });
    let is_type =
        |name: &String| name.starts_with(char::is_uppercase) && *name != name.to_uppercase();
    let configured = sources.iter().filter(|source| source.is_below("config"));
    let variants = configured.flat_map(|source| &source.variants);
    let configured = variants.filter(|(of, _)| of == "Content").map(|(_, variant)| variant.clone());
    types.filter(is_type).chain(configured).collect()
}

fn check_kinds(sources: &[Source]) -> Vec<Problem> {
    let kinds = kinds(sources);
    let uses = uses(sources);
    let within = |path: &[String], part: &str| {
        let part: Vec<&str> = ["crate"].into_iter().chain(part.split("::")).collect();
        path.len() > part.len() && path.iter().zip(&part).all(|(a, b)| a == b)
    };
    let movers = sources.iter().filter(|source| source.is_below(MOVES_CONTENT));
    let found = movers.flat_map(|source| {
        let paths = source.paths.iter().filter(|path| !path.in_tests);
        let (kinds, uses) = (&kinds, &uses);
        paths.filter_map(move |path| {
            let target = match &path.segments[..] {
                [name] => {
                    let own = [&source.module[..], from_ref(name)].concat();
                    uses.get(&own).map_or(&path.segments, |path| *path)
                }
                segments => segments,
            };
            let target = followed(target, uses);
            let is_of_std = target[0] == "std";
            let is_below_content = within(&target, "content")
                && sources
                    .iter()
                    .any(|of| of.module.len() > 1 && target[1..].starts_with(&of.module));
            let is_private = is_below_content && !within(&target, CONTENT_VOCABULARY);
            let kind = target.iter().find(|name| kinds.contains(*name)).filter(|_| !is_of_std);
            let is_configured =
                within(&target, "config") && target.iter().any(|name| name == "Content");
            let what = match kind {
                Some(kind) => {
                    format!("`{MOVES_CONTENT}` must not know the kind of content `{kind}`")
                }
                None if is_private || is_configured => {
                    format!("`{MOVES_CONTENT}` must not know `{}`", target.join("::"))
                }
                None => return None,
            };
            Some(problem(source, path.line, what))
        })
    });
    found.collect()
}

fn check_unsafe(source: &Source) -> Vec<Problem> {
    let lines = source.unsafe_lines.iter().filter(|_| !source.is_below(KERNEL_PART));
    let what = || format!("`unsafe` outside of `{KERNEL_PART}`");
    lines.map(|line| problem(source, *line, what())).collect()
}

/// Tests may name the kernel's errors.
fn check_kernel(source: &Source) -> Vec<Problem> {
    let paths = source.paths.iter().filter(|path| !path.in_tests);
    let found = paths.filter(|_| !source.is_below(KERNEL_PART)).filter_map(|path| {
        // A name that stands alone is something of the file's own.
        let found = KERNEL.iter().find(|of| path.begins(of) && path.segments.len() > 1)?;
        Some(problem(source, path.line, format!("`{found}` outside of `{KERNEL_PART}`")))
    });
    found.collect()
}

fn check_header(source: &Source) -> Vec<Problem> {
    let rest = source.first_line.strip_prefix("//!");
    let says_something = rest.is_some_and(|rest| !rest.trim().is_empty());
    let what = "does not begin with `//!` and what it is for".to_owned();
    (!says_something).then(|| problem(source, 1, what)).into_iter().collect()
}

fn check_length(source: &Source) -> Vec<Problem> {
    let what = format!("has {} lines without tests; at most {FILE_LINES_MAX}", source.lines);
    let is_long = source.lines > FILE_LINES_MAX;
    is_long.then(|| problem(source, 1, what)).into_iter().collect()
}

fn check_functions(source: &Source) -> Vec<Problem> {
    let long = source.functions.iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
    let found = long.map(|function| {
        let place = format!("{} {}", source.path.display(), function.name);
        let what = format!("has {} lines; at most {FUNCTION_LINES_MAX}", function.lines);
        Problem { place, line: function.line, what }
    });
    found.collect()
}

fn check_folders(sources: &[Source]) -> Vec<Problem> {
    let mut folders: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for source in sources {
        let is_root = matches!(source.name().as_str(), "lib" | "main");
        for path in source.path.ancestors().filter(|path| !path.as_os_str().is_empty() && !is_root)
        {
            folders.entry(path.parent().unwrap_or(Path::new(""))).or_default().insert(path);
        }
    }
    let full = folders.iter().filter(|(_, entries)| entries.len() > ENTRIES_MAX);
    let found = full.map(|(folder, entries)| Problem {
        place: folder.display().to_string(),
        line: 0,
        what: format!("has {} entries side by side; at most {ENTRIES_MAX}", entries.len()),
    });
    found.collect()
}

/// What the `use` declarations of all files call what.
type Uses<'s> = BTreeMap<&'s Vec<String>, &'s Vec<String>>;

fn uses(sources: &[Source]) -> Uses<'_> {
    sources.iter().flat_map(|source| &source.uses).collect()
}

/// Where the item that a path leads to is declared.
fn followed(path: &[String], uses: &Uses<'_>) -> Vec<String> {
    let mut segments = path.to_vec();
    // A few steps are enough: names that stand for each other don't compile.
    for _ in 0..4 {
        let Some(inside) = segments.strip_prefix(&["crate".to_owned()]) else { break };
        let renamed = (1..=inside.len()).find_map(|end| {
            let target = uses.get(&inside[..end].to_vec())?;
            // A function that is called as its module leads nowhere else.
            let is_own = target[1..].starts_with(&inside[..end]);
            (target[0] == "crate" && !is_own).then(|| [target, &inside[end..]].concat())
        });
        let Some(renamed) = renamed.filter(|renamed| *renamed != segments) else { break };
        segments = renamed;
    }
    segments
}

/// Which module names which of its siblings, by the module that both are in; the way may lead over a `pub use` of
/// theirs. The items of that module's own file count among them, as `self::Item`; a module that is a part of such an
/// item, because it has an `impl` of it, doesn't name it.
fn siblings(sources: &[Source]) -> BTreeMap<Vec<String>, BTreeSet<(String, String)>> {
    let uses = uses(sources);
    let items: BTreeSet<&[String]> =
        sources.iter().flat_map(|source| &source.items).map(|(path, _)| &path[..]).collect();
    let modules: BTreeSet<&[String]> = sources
        .iter()
        .flat_map(|source| (1..=source.module.len()).map(|end| &source.module[..end]))
        .collect();
    let mut named: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.name() != "lib") {
        for path in source.paths.iter().filter(|path| !path.in_tests) {
            let segments = match &path.segments[..] {
                // A name that stands alone is one of the file's own, or one that a `use` has brought.
                [name] => [&["crate".to_owned()], &source.module[..], from_ref(name)].concat(),
                _ => path.segments.clone(),
            };
            let segments = followed(&segments, &uses);
            let Some(inside) = segments.strip_prefix(&["crate".to_owned()]) else { continue };
            let same = source.module.iter().zip(inside).take_while(|(a, b)| a == b).count();
            let Some(other) = inside.get(same) else { continue };
            let parent = source.module[..same].to_vec();
            let named_item = &segments[..same + 2];
            let is_item = items.contains(named_item);
            let is_part = is_item && source.items.iter().any(|(item, _)| item == named_item);
            let own = match source.module.get(same) {
                Some(_) if is_part => continue,
                Some(child) => child.clone(),
                None => {
                    let item = source.items.iter().find(|(_, lines)| lines.contains(&path.line));
                    let Some((item, _)) = item else { continue };
                    format!("self::{}", item[item.len() - 1])
                }
            };
            let other = match is_item {
                true => format!("self::{other}"),
                false if modules.contains(&inside[..=same]) => other.clone(),
                false => continue,
            };
            named.entry(parent).or_default().insert((own, other));
        }
    }
    named
}

fn check_circles(sources: &[Source]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (parent, named) in siblings(sources) {
        // Everything that can be reached from each.
        let mut reached = named.clone();
        loop {
            let further = reached.iter().flat_map(|(from, over)| {
                named
                    .iter()
                    .filter(move |(of, _)| of == over)
                    .map(|(_, to)| (from.clone(), to.clone()))
            });
            let all: BTreeSet<_> =
                reached.iter().cloned().chain(further.collect::<Vec<_>>()).collect();
            if all.len() == reached.len() {
                break;
            }
            reached = all;
        }
        let round = |(a, b): &&(String, String)| {
            let is_own = a.starts_with("self::") && b.starts_with("self::");
            a < b && !is_own && reached.contains(&(b.clone(), a.clone()))
        };
        let circles: Vec<_> =
            reached.iter().filter(round).map(|(a, b)| format!("{a} ↔ {b}")).collect();
        if !circles.is_empty() {
            let what = format!("depend on each other: {}", circles.join(", "));
            problems.push(Problem { place: parent.join("::"), line: 0, what });
        }
    }
    problems
}

/// What the documents of the crate show, as their page of all items counts it: from its root on, over public modules
/// and over `pub use`.
fn face(sources: &[Source]) -> BTreeSet<String> {
    let uses = uses(sources);
    let (mut shown, mut ahead) = (BTreeSet::new(), vec![vec!["lib".to_owned()]]);
    while let Some(module) = ahead.pop() {
        let source = sources.iter().find(|source| source.module == module);
        let source = source.unwrap_or_else(|| panic!("no file of {}", module.join("::")));
        let name = module.join("::");
        let items = source.public.iter().filter(|item| item.owner.is_none());
        shown.extend(items.map(|item| format!("{name}::{}", item.name)));
        for path in &source.public_paths {
            let path = &followed(path, &uses)[..];
            let path = path.strip_prefix(&["crate".to_owned()]).unwrap_or(path);
            match sources.iter().any(|source| source.module == path) {
                true => ahead.push(path.to_vec()),
                false => drop(shown.insert(path.join("::"))),
            }
        }
    }
    shown
}

/// Of what the documents show, every item and method that no example of theirs names, and every item that can't grow;
/// each with its name.
fn unshown_and_exhaustive(sources: &[Source]) -> (BTreeSet<String>, BTreeSet<String>) {
    let shown = face(sources);
    let words: BTreeSet<_> = sources.iter().flat_map(|of| &of.example_words).collect();
    let (mut unshown, mut exhaustive) = (BTreeSet::new(), BTreeSet::new());
    for source in sources {
        for item in &source.public {
            let place = format!("{}::{}", source.name(), item.owner.as_ref().unwrap_or(&item.name));
            if !shown.contains(&place) {
                continue;
            }
            if !words.contains(&item.name) {
                unshown.insert(item.name.clone());
            }
            if item.is_exhaustive {
                exhaustive.insert(item.name.clone());
            }
        }
    }
    (unshown, exhaustive)
}

/// Every Rust file of the folder, by its path below it, with its text.
fn rust_files(root: &Path) -> Vec<(PathBuf, String)> {
    let (mut found, mut ahead) = (Vec::new(), vec![root.to_owned()]);
    while let Some(folder) = ahead.pop() {
        for entry in fs::read_dir(folder).expect("read a folder of sources") {
            let path = entry.expect("an entry of a folder").path();
            if path.is_dir() {
                // What a build leaves is in one of this name.
                ahead.extend(Some(path).filter(|path| !path.ends_with("target")));
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("read a source file");
                found.push((path.strip_prefix(root).expect("a path below it").to_owned(), text));
            }
        }
    }
    found
}

/// Each of [`VAGUE_WORDS`] in the comments of a file, with its line.
fn vague_words(text: &str) -> Vec<(usize, &'static str)> {
    let comments = text.lines().enumerate().filter_map(|(index, line)| {
        let start = if line.trim_start().starts_with("//") { Some(0) } else { line.find(" // ") };
        Some((index + 1, line[start?..].to_lowercase()))
    });
    let found = comments.flat_map(|(line, comment)| {
        let is_said =
            |word: &str| comment.split(|of: char| !of.is_alphanumeric()).any(|of| of == word);
        let said: Vec<_> = VAGUE_WORDS.iter().filter(|word| is_said(word)).collect();
        said.into_iter().map(move |word| (line, *word))
    });
    found.collect()
}

/// Every file of `src`, read once.
fn sources() -> &'static [Source] {
    static SOURCES: OnceLock<Vec<Source>> = OnceLock::new();
    SOURCES.get_or_init(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let files = rust_files(&root).into_iter();
        let found: Vec<_> = files.map(|(path, text)| Source::new(&path, &text)).collect();
        assert!(found.iter().any(|source| source.name() == "lib"), "the sources were not found");
        found
    })
}

/// Fails with every problem that [`NOT_YET`] has no entry of this rule for, and with every entry that has no problem.
fn assert_none(rule: &str, problems: Vec<Problem>) {
    let excepted = |place: &str| NOT_YET.contains(&(rule, place));
    let told = problems.iter().filter(|problem| !excepted(&problem.place));
    let mut told: Vec<String> =
        told.map(|of| format!("src/{}:{}: {}", of.place, of.line, of.what)).collect();
    let of_rule = NOT_YET.iter().filter(|(of, _)| *of == rule);
    let done = of_rule.filter(|(_, place)| problems.iter().all(|problem| problem.place != *place));
    told.extend(done.map(|(_, place)| format!("{place} is mended: take it out of NOT_YET")));
    told.sort();
    assert!(told.is_empty(), "\n{}", told.join("\n"));
}

fn in_each(check: fn(&Source) -> Vec<Problem>) -> Vec<Problem> {
    sources().iter().flat_map(check).collect()
}

#[test]
fn every_part_depends_only_on_the_parts_it_may() {
    assert_none("directions", in_each(check_directions));
}

#[test]
fn no_part_knows_what_it_must_not() {
    assert_none("forbidden", in_each(check_forbidden));
}

#[test]
fn what_moves_content_names_no_kind_of_it() {
    let kinds = kinds(sources());
    for kind in ["Echo", "EchoBody", "EchoRequest", "Fixed", "Redirect"] {
        assert!(kinds.contains(kind), "the kinds of content were not found: {kinds:?}");
    }
    assert_none("kinds", check_kinds(sources()));
}

#[test]
fn unsafe_stands_in_sys_alone() {
    assert_none("unsafe", in_each(check_unsafe));
}

#[test]
fn the_kernel_is_called_in_sys_alone() {
    assert_none("kernel", in_each(check_kernel));
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    assert_none("header", in_each(check_header));
}

#[test]
fn comments_say_what_is_meant() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = ["src", "tests", "benches", "fuzz"].iter().flat_map(|folder| {
        let files = rust_files(&root.join(folder)).into_iter();
        files.map(move |(path, text)| (Path::new(folder).join(path), text))
    });
    let found: Vec<String> = files
        .flat_map(|(path, text)| {
            let words = vague_words(&text).into_iter();
            words.map(move |(line, word)| format!("{}:{line}: {word}", path.display()))
        })
        .collect();
    assert!(found.is_empty(), "name the connection, socket, client …:\n{}", found.join("\n"));
}

#[test]
fn no_file_is_longer_than_a_sitting() {
    assert_none("length", in_each(check_length));
}

#[test]
fn no_function_is_longer_than_a_screen() {
    assert_none("function", in_each(check_functions));
}

#[test]
fn no_folder_has_more_than_one_can_see_at_once() {
    assert_none("folder", check_folders(sources()));
}

#[test]
fn what_the_documents_show_is_little_enough_to_be_meant() {
    let shown = face(sources());
    assert!(shown.len() <= FACE_ITEMS_MAX, "{} items: {shown:#?}", shown.len());
    assert!(shown.iter().all(|item| !item.ends_with('*')), "named one by one: {shown:#?}");
    assert!(shown.contains("config::load::load"), "the root's modules were not found: {shown:#?}");
}

#[test]
fn what_the_documents_show_is_used_in_an_example_and_can_grow() {
    let (unshown, exhaustive) = unshown_and_exhaustive(sources());
    let names = |list: &[(&str, &str)]| list.iter().map(|(name, _)| (*name).to_owned()).collect();
    let expected: BTreeSet<String> = names(WITHOUT_EXAMPLE);
    assert_eq!(unshown, expected, "give it an example, or a reason in WITHOUT_EXAMPLE");
    let expected: BTreeSet<String> = names(EXHAUSTIVE);
    assert_eq!(exhaustive, expected, "make it `non_exhaustive`, or give a reason in EXHAUSTIVE");
}

#[test]
fn no_siblings_depend_on_each_other() {
    assert_none("circle", check_circles(sources()));
}

#[test]
fn the_map_names_what_there_is() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).expect("read the map");
    let rows: Vec<&str> = map.lines().filter(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 20, "the map has lost its rows");
    let mut missing = Vec::new();
    for row in rows {
        // What follows a file, in parentheses, is in it.
        let mut text = String::new();
        for name in row.split('`').skip(1).step_by(2) {
            let is_path = name.ends_with(".rs") || name.ends_with(".md") || name.ends_with('/');
            let places = [root.join(name), root.join("src").join(name)];
            let place = places.iter().find(|place| place.exists());
            let is_there = match (is_path, place) {
                (true, Some(place)) => {
                    text = fs::read_to_string(place).unwrap_or_default();
                    true
                }
                (true, None) => false,
                (false, _) => {
                    let item = name.rsplit("::").next().unwrap_or_default();
                    let kinds = ["fn", "struct", "enum", "trait"];
                    let declared = |kind: &&str| text.contains(&format!("{kind} {item}"));
                    text.is_empty() || kinds.iter().any(declared)
                }
            };
            if !is_there {
                missing.push(format!("{name}: {row}"));
            }
        }
    }
    assert!(missing.is_empty(), "the map names what isn't there:\n{}", missing.join("\n"));
}

/// The effective configuration, from `server show-config` in a folder without a `config.toml`.
fn shown_configuration(arguments: &[&Path]) -> toml::Table {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    command.args(arguments).arg("show-config").current_dir(env!("CARGO_TARGET_TMPDIR"));
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"LANEWAY_") {
            command.env_remove(name);
        }
    }
    let output = command.output().expect("run the server");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("TOML in UTF-8");
    text.parse().expect("the shown configuration is TOML")
}

/// Every setting but the routes, by `table.key`.
fn settings(configuration: &toml::Table) -> BTreeMap<String, toml::Value> {
    let tables = configuration.iter().filter_map(|(name, value)| Some((name, value.as_table()?)));
    let settings = tables.flat_map(|(name, table)| {
        table.iter().map(move |(key, value)| (format!("{name}.{key}"), value.clone()))
    });
    // Built in, it greets this host alone; the file that people start from listens to all.
    settings.filter(|(key, _)| key != "server.listen").collect()
}

#[test]
fn the_shipped_configuration_states_every_key_with_its_real_default() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.toml");
    let defaults = settings(&shown_configuration(&[]));
    let effective = settings(&shown_configuration(&[Path::new("--config"), &file]));
    assert_eq!(effective, defaults, "config.toml changes a default");
    let stated: toml::Table =
        fs::read_to_string(&file).expect("read config.toml").parse().expect("config.toml is TOML");
    let stated: Vec<String> = settings(&stated).into_keys().collect();
    let known: Vec<String> = defaults.into_keys().collect();
    assert_eq!(stated, known, "the keys that config.toml states");
}

fn source(path: &str, text: &str) -> Source {
    Source::new(Path::new(path), text)
}

/// What `check` finds in each of these files.
fn assert_found(check: fn(&Source) -> Vec<Problem>, cases: &[(&str, &str, usize)]) {
    for (path, text, count) in cases {
        let problems = check(&source(path, text));
        assert_eq!(problems.len(), *count, "{path}: {text}: {problems:?}");
    }
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = r##"
        // unsafe
        /* unsafe /* unsafe */ unsafe */
        const A: (&str, &str) = ("unsafe \" unsafe", r#"unsafe " unsafe"#);
        const B: (&[u8], char, char, char) = (b"unsafe", '"', 'u', '\'');
        fn f<'a>(x: &'a str) -> &'a str { x } // unsafe
    "##;
    assert_eq!(check_unsafe(&source("http/mod.rs", text)).len(), 0);
    for code in ["fn g() { unsafe {} }", "unsafe fn g() {}", "fn g() { vec![unsafe { h() }]; }"] {
        let text = format!("{text}\n{code}");
        let found = check_unsafe(&source("http/mod.rs", &text));
        assert_eq!(found.iter().map(|of| of.line).collect::<Vec<_>>(), [text.lines().count()]);
        assert_eq!(check_unsafe(&source("sys/fd.rs", &text)).len(), 0);
    }
}

#[test]
fn a_vague_word_is_found_in_comments_alone() {
    let comment = |words: &str| format!("let her = \"him\"; {}{words}\n", "// ");
    let text = format!("//{}\n{}{}", "! Nobody.", comment("His."), comment("The others."));
    assert_eq!(vague_words(&text), [(1, "nobody"), (2, "his")]);
}

#[test]
fn a_wrong_direction_is_found_however_it_is_written() {
    let cases = [
        ("http/parse.rs", "use crate::config::Limits;", 1),
        ("http/parse.rs", "fn f(l: &super::super::config::Limits) {}", 1),
        ("config/file.rs", "use crate::{config::Raw, worker};", 1),
        ("config/file.rs", "mod tests { use super::super::super::worker::Head; }", 1),
        (
            "config/file.rs",
            "fn f() { assert!(crate::content::f(), \"{}\", crate::worker::g()) }",
            2,
        ),
        ("worker/driver/epoll.rs", "use crate::worker::connection::Slab;", 1),
        ("worker/driver/mod.rs", "use super::connection::Slab;", 1),
        ("supervisor/mod.rs", "fn f() { crate::content::f::<u8>() }", 1),
        ("supervisor/processes/mod.rs", "use crate::supervisor::log_events;", 1),
        ("content/mod.rs", "pub(in crate::observe) fn f() {}", 1),
        ("sys/mod.rs", "use crate::Config;", 1),
        ("util.rs", "", 1),
        // What is allowed is left alone.
        ("http/parse.rs", "use super::{head::Head, Limits}; use crate::http::{self, body};", 0),
        ("config/file.rs", "mod tests { use super::*; use super::super::Config; }", 0),
        (
            "worker/mod.rs",
            "use self::driver::epoll; use crate::{http, sys::{fd::Fd, epoll as e}};",
            0,
        ),
        ("worker/driver/epoll.rs", "use super::Event; use crate::sys;", 0),
        (
            "supervisor/event_loop/mod.rs",
            "use crate::worker; fn f() { if a { crate::sys::f() } }",
            0,
        ),
        ("main.rs", "use laneway::cli; fn f() { laneway::run() }", 0),
        ("lib.rs", "pub mod sys; pub use crate::config::Config;", 0),
    ];
    assert_found(check_directions, &cases);
}

#[test]
fn what_a_part_must_not_know_is_found() {
    let cases = [
        ("http/date.rs", "use std::time::{Duration, Instant};", 1),
        ("http/date.rs", "use std::{fs, net::TcpStream};", 2),
        ("http/date.rs", "use std::time::Duration; use std::fmt;", 0),
        ("supervisor/policy/mod.rs", "use std::time::Instant; fn f(now: Instant) {}", 0),
        ("supervisor/policy/mod.rs", "fn f() { Instant::now(); std::time::Instant::now(); }", 2),
        ("supervisor/policy/state.rs", "use crate::{config, sys::Pid};", 1),
        ("supervisor/mod.rs", "use std::{fs, io}; use crate::sys;", 0),
    ];
    assert_found(check_forbidden, &cases);
}

#[test]
fn a_kind_of_content_is_found_where_it_must_not_be_known() {
    let found = |worker: &str| {
        let files = [
            ("config/settings.rs", "pub enum Content { Fixed, Files(u8) }"),
            ("config/mod.rs", "mod settings; pub use settings::{Content, Limits};"),
            (
                "content/mod.rs",
                "mod answer; mod files; mod routes; pub use answer::Handler;\npub struct Site;",
            ),
            ("content/answer.rs", "pub trait Handler {} impl Handler for Box<dyn Handler> {}"),
            ("content/files.rs", "pub struct Span; struct File; impl super::Handler for File {}"),
            ("content/routes.rs", "pub struct Routes;"),
            ("worker/mod.rs", worker),
        ];
        let files: Vec<_> = files.iter().map(|(path, text)| source(path, text)).collect();
        check_kinds(&files).len()
    };
    for worker in [
        "fn f(a: A) -> bool { matches!(a, A::Files(_)) }",
        "fn f(file: File) {}",
        "use crate::content::Span;",
        "use crate::content::files;",
        "use crate::content::routes::Routes;",
        "use crate::config::Content;",
    ] {
        assert_eq!(found(worker), 1, "{worker}");
    }
    for worker in [
        "use crate::content::{Handler, Site, answer::Handler as Other}; fn f(site: Site) {}",
        "use crate::config::Limits; use crate::content;",
        "use std::fs::File; fn f(file: File) {}",
        "#[cfg(test)] mod tests { use crate::content::files; }",
    ] {
        assert_eq!(found(worker), 0, "{worker}");
    }
}

#[test]
fn a_call_to_the_kernel_is_found() {
    let cases = [
        ("worker/mod.rs", "use nix::errno::Errno;", 1),
        ("worker/mod.rs", "use std::os::fd::{AsFd, AsRawFd, OwnedFd};", 1),
        ("worker/mod.rs", "fn f(e: i32) -> bool { matches!(e, libc::EAGAIN) }", 1),
        ("worker/mod.rs", "mod io_uring; fn f() { io_uring::enter() }", 0),
        ("worker/mod.rs", "#[test] fn f() { g(libc::EAGAIN) }", 0),
        ("sys/fd.rs", "use nix::errno::Errno;", 0),
    ];
    assert_found(check_kernel, &cases);
}

#[test]
fn a_file_without_a_header_or_with_too_many_lines_is_found() {
    assert_found(check_header, &[("a.rs", "//! Does it.\n", 0)]);
    for text in ["", "use std::fs;\n", "//!\n", "// Does it.\n"] {
        assert_found(check_header, &[("a.rs", text, 1)]);
    }
    let longest = "// x\n".repeat(FILE_LINES_MAX);
    let tests = format!("{longest}#[cfg(test)]\nmod tests {{\n{longest}}}\n");
    assert_found(check_length, &[("a.rs", &longest, 0), ("a.rs", &tests, 0)]);
    let longer = format!("// x\n{tests}");
    assert_found(check_length, &[("a.rs", &longer, 1), ("a/tests.rs", &longer, 0)]);
}

#[test]
fn a_function_with_too_many_lines_is_found() {
    let of = |lines: usize| {
        let function = format!("/// It\n/// does.\nfn f() {{\n{}}}", "// x\n".repeat(lines - 2));
        [format!("mod a {{ struct A; impl A {{\n{function}\n}} }}"), function]
    };
    for text in of(FUNCTION_LINES_MAX) {
        assert_found(check_functions, &[("a.rs", &text, 0)]);
    }
    for text in of(FUNCTION_LINES_MAX + 1) {
        assert_found(check_functions, &[("a.rs", &text, 1)]);
    }
}

#[test]
fn a_full_folder_is_found() {
    let of = |entries: usize| {
        let files = (1..entries).map(|file| source(&format!("a/{file}.rs"), ""));
        files.chain([source("a/b/mod.rs", ""), source("a/b/c.rs", "")]).collect::<Vec<_>>()
    };
    assert_eq!(check_folders(&of(ENTRIES_MAX)).len(), 0);
    assert_eq!(check_folders(&of(ENTRIES_MAX + 1)).len(), 1);
}

#[test]
fn a_circle_of_siblings_is_found_wherever_it_leads() {
    let circles = |files: &[(&str, &str)]| {
        let files: Vec<_> = files.iter().map(|(path, text)| source(path, text)).collect();
        check_circles(&files).into_iter().map(|problem| problem.place).collect::<Vec<_>>()
    };
    assert_eq!(
        circles(&[("a/b.rs", "use super::c::C;"), ("a/c.rs", "fn f(b: super::b::B) {}")]),
        ["a"]
    );
    let three =
        [("b.rs", "use crate::c;"), ("c.rs", "use crate::d::D;"), ("d/e.rs", "use crate::b::B;")];
    assert_eq!(circles(&three), [""]);
    // By the name that their parent gives it.
    let renamed = [
        ("a/mod.rs", "mod b; mod c; pub use b::B;"),
        ("a/b.rs", "use super::c::C;"),
        ("a/c.rs", "use super::B;"),
    ];
    assert_eq!(circles(&renamed), ["a"]);
    // Tests may look around.
    let fine = [
        ("a/mod.rs", "mod b; mod c; pub struct A;"),
        ("a/b.rs", "use super::{A, c::C};"),
        ("a/c.rs", "use super::A; #[cfg(test)] mod tests { use crate::a::b::B; }"),
    ];
    assert_eq!(circles(&fine), Vec::<String>::new());
}

#[test]
fn a_circle_of_a_module_and_an_item_of_its_parents_file_is_found() {
    let circles = |parent: &str, b: &str, c: &str| {
        let parent = parent.replace("; ", ";\n").replace("} ", "}\n");
        let files = [("a/mod.rs", parent.as_str()), ("a/b.rs", b), ("a/c.rs", c)];
        let files: Vec<_> = files.iter().map(|(path, text)| source(path, text)).collect();
        check_circles(&files).into_iter().map(|problem| problem.what).collect::<Vec<_>>()
    };
    let of = |circle: &str| vec![format!("depend on each other: {circle}")];
    let calls = "mod b; mod c; fn f() { b::g() }";
    assert_eq!(circles(calls, "fn g() { super::f() }", ""), of("b ↔ self::f"));
    // By a type, with a name that a `use` brings.
    let holds = "mod b; mod c; use b::B; pub struct A { b: B } pub struct Plain;";
    assert_eq!(circles(holds, "use super::A; pub struct B;", ""), of("b ↔ self::A"));
    assert_eq!(circles(holds, "use super::Plain; pub struct B;", ""), Vec::<String>::new());
    // Over another item, and over a sibling.
    let two = "mod b; mod c; fn f() { g() } fn g() { b::h() }";
    assert_eq!(circles(two, "fn h() { super::f() }", ""), of("b ↔ self::f, b ↔ self::g"));
    let sibling = circles(calls, "use super::c::h;", "fn h() { super::f() }");
    assert_eq!(sibling, of("b ↔ c, b ↔ self::f, c ↔ self::f"));
    // A part of a type stands where it likes, and two items of one file may name each other.
    let part = "use super::A; pub struct B; impl A { fn f(&self) {} }";
    assert_eq!(circles(holds, part, ""), Vec::<String>::new());
    assert_eq!(circles("fn f() { g() } fn g() { f() }", "", ""), Vec::<String>::new());
}

#[test]
fn the_face_of_a_crate_is_what_its_public_modules_and_uses_name() {
    let files = [
        (
            "lib.rs",
            "pub mod a; mod b; pub(crate) mod c; pub use b::{B, d}; #[doc(hidden)] pub mod e {}",
        ),
        ("a.rs", "pub struct A; pub(crate) struct Own; pub fn f() {} mod tests { pub struct T; }"),
        ("b/mod.rs", "pub mod d; mod e; pub use e::B; pub struct Unseen;"),
        ("b/e.rs", "pub struct B;"),
        ("b/d.rs", "pub enum D {}"),
        ("c.rs", "pub struct C;"),
    ];
    let files: Vec<_> = files.iter().map(|(path, text)| source(path, text)).collect();
    let shown: Vec<_> = face(&files).into_iter().collect();
    assert_eq!(shown, ["a::A", "a::f", "b::d::D", "b::e::B"]);
}

#[test]
fn an_item_without_an_example_and_one_that_can_not_grow_are_found() {
    let text = "
        /// It is `Undone`.
        /// ```text
        /// Undone::undone()
        /// ```
        /// ```
        /// A::new().done(); // undone()
        /// ```
        #[non_exhaustive]
        pub struct A { pub a: u8 }
        pub struct Undone { a: u8 }
        pub enum E {}
        impl A { pub fn new() {} pub fn done() {} pub fn undone() {} pub(crate) fn own() {} }
        impl Unseen { pub fn unseen() {} }
        pub(crate) struct Unseen;
    ";
    let (unshown, exhaustive) = unshown_and_exhaustive(&[source("lib.rs", text)]);
    assert_eq!(unshown.into_iter().collect::<Vec<_>>(), ["E", "Undone", "undone"]);
    assert_eq!(exhaustive.into_iter().collect::<Vec<_>>(), ["E"]);
}
