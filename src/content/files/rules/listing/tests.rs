//! Listings, as they are read.

use super::*;

fn entry(name: &[u8], is_folder: bool, size: u64, modified_s: i64) -> Entry {
    Entry { name: name.to_vec(), is_folder, size, modified_s }
}

fn some() -> Vec<Entry> {
    vec![
        entry(b"b.txt", false, 10, 784_111_777),
        entry(b"A.txt", false, 2048, 3),
        entry(b"zoo", true, 0, 5),
        entry(b"a.txt", false, 10, 4),
    ]
}

const FOLDER: Folder<'_> = Folder { path: b"/f/", has_parent: true, is_cut: false };

fn listed(form: Form, query: &str, entries: Vec<Entry>) -> String {
    let (response, body) = page(form, FOLDER, Some(query.as_bytes()), entries);
    assert_eq!(response.length(), Some(body.len() as u64));
    String::from_utf8(body).expect("UTF-8")
}

/// The names in the order in which they are listed.
fn names(query: &str) -> String {
    let listing = listed(Form::Json, query, some());
    let parts = listing.split("\"name\":\"").skip(1);
    parts.filter_map(|part| part.split('"').next()).collect::<Vec<_>>().join(" ")
}

#[test]
fn folders_come_first_and_the_query_says_by_what_the_files_are_sorted() {
    for (query, expected) in [
        ("", "zoo A.txt a.txt b.txt"),
        ("sort=name&order=desc", "zoo b.txt a.txt A.txt"),
        ("sort=size", "zoo a.txt b.txt A.txt"),
        ("sort=size&order=desc", "zoo A.txt b.txt a.txt"),
        ("order=asc&sort=modified", "zoo A.txt a.txt b.txt"),
        ("sort=modified&order=desc", "zoo b.txt a.txt A.txt"),
        ("sort=<script>&order=x&&=", "zoo A.txt a.txt b.txt"),
    ] {
        assert_eq!(names(query), expected, "{query}");
    }
}

#[test]
fn a_page_has_names_sizes_times_and_links() {
    let page = listed(Form::Html, "sort=size", some());
    for expected in [
        "<title>/f/</title>",
        "<a href=\"../\">Parent folder</a>",
        "<td><a href=\"./zoo/\"><bdi>zoo</bdi>/</a></td><td></td>",
        "<td><a href=\"./A.txt\"><bdi>A.txt</bdi></a></td><td><span title=\"2048 bytes\">2.0 KiB</span></td>",
        "<time datetime=\"1994-11-06T08:49:37Z\">1994-11-06 08:49:37</time>",
        "<th scope=\"col\"><a href=\"?sort=name&amp;order=asc\">Name</a></th>",
        "<th scope=\"col\" aria-sort=\"ascending\"><a href=\"?sort=size&amp;order=desc\">Size</a></th>",
    ] {
        assert!(page.contains(expected), "{expected} in {page}");
    }
    let page = listed(Form::Html, "sort=size&order=desc", some());
    let expected = " aria-sort=\"descending\"><a href=\"?sort=size&amp;order=asc\">";
    assert!(page.contains(expected), "{page}");
    assert!(listed(Form::Html, "", vec![]).contains("This folder is empty."));
}

#[test]
fn no_name_becomes_anything_but_a_name() {
    let odd = [
        &b"<img src=x onerror=alert(1)>"[..],
        b"a&b'\"c",
        b"javascript:alert(1)",
        b"\xff\xfe",
        b"a\nb\x1b",
        "\u{202e}gpj.exe \u{e9}".as_bytes(),
        b"100%?#",
    ];
    let entries: Vec<_> = odd.iter().map(|name| entry(name, false, 1, i64::MIN)).collect();
    let folder = Folder { path: b"/<b>/\xff/", ..FOLDER };
    let (_, body) = page(Form::Html, folder, None, entries.clone());
    let html = String::from_utf8(body).expect("UTF-8");
    for expected in [
        "<title>/&lt;b&gt;/\u{fffd}/</title>",
        "href=\"./%3Cimg%20src=x%20onerror=alert(1)%3E\"><bdi>&lt;img src=x onerror=alert(1)&gt;</bdi>",
        "href=\"./a&amp;b&#39;%22c\"><bdi>a&amp;b&#39;&quot;c</bdi>",
        "href=\"./javascript:alert(1)\"",
        "href=\"./%FF%FE\"><bdi>\u{fffd}\u{fffd}</bdi>",
        "href=\"./a%0Ab%1B\"><bdi>a\u{fffd}b\u{fffd}</bdi>",
        "href=\"./%E2%80%AEgpj.exe%20%C3%A9\"><bdi>\u{202e}gpj.exe \u{e9}</bdi>",
        "href=\"./100%25%3F%23\"",
        "<td></td></tr>",
    ] {
        assert!(html.contains(expected), "{expected} in {html}");
    }
    assert!(!html.contains("<img") && !html.contains("<b>"), "{html}");
    let (_, body) = page(Form::Json, folder, None, entries);
    let json: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
    assert_eq!(json["path"], "/<b>/\u{fffd}/");
    let found = json["entries"].as_array().expect("a list");
    let of_bytes = found.iter().find(|item| item["href"] == "./%FF%FE").expect("all");
    assert_eq!(of_bytes["name"], "\u{fffd}\u{fffd}");
    assert_eq!(of_bytes["modified"], serde_json::Value::Null);
}

#[test]
fn json_says_the_same() {
    let expected = "{\"path\":\"/f/\",\"entries\":[\
        {\"name\":\"zoo\",\"href\":\"./zoo/\",\"type\":\"folder\",\"modified\":\"1970-01-01T00:00:05Z\"},\
        {\"name\":\"b\",\"href\":\"./b\",\"type\":\"file\",\"size\":10,\"modified\":\"1994-11-06T08:49:37Z\"}],\
        \"cut\":false}\n";
    let entries = vec![entry(b"b", false, 10, 784_111_777), entry(b"zoo", true, 0, 5)];
    assert_eq!(listed(Form::Json, "", entries), expected);
}

#[test]
fn a_listing_ends_where_it_says() {
    let many = |count: usize| {
        let entries = (0..count).map(|at| entry(format!("{at}").as_bytes(), false, 0, 0));
        listed(Form::Html, "", entries.collect())
    };
    let rows = |page: &str| page.matches("<tr><td>").count();
    let whole = many(ENTRIES_MAX);
    assert_eq!((rows(&whole), whole.contains("there are more")), (ENTRIES_MAX, false));
    let cut = many(ENTRIES_MAX + 1);
    assert_eq!((rows(&cut), cut.contains("the first 100000; there are more")), (ENTRIES_MAX, true));
    let cut = Folder { is_cut: true, ..FOLDER };
    let (_, body) = page(Form::Json, cut, None, some());
    assert!(body.ends_with(b"\"cut\":true}\n"));
}

#[test]
fn the_form_is_the_one_that_is_wanted_more() {
    use super::super::response::tests::with_request;
    for (lines, expected) in [
        ("", Form::Html),
        ("Accept: */*\r\n", Form::Html),
        ("Accept: text/html, */*;q=0.8\r\n", Form::Html),
        ("Accept: application/json\r\n", Form::Json),
        ("Accept: application/json, text/html;q=0.9\r\n", Form::Json),
        ("Accept: application/json;q=0.5, text/html;q=0.5\r\n", Form::Html),
        ("Accept: image/png\r\n", Form::Html),
    ] {
        let form = with_request("GET", "/", lines, |request| form(request.fields));
        assert_eq!(form, expected, "{lines}");
    }
}

#[test]
fn a_page_loads_and_runs_nothing_and_varies_by_what_is_accepted() {
    let of = |form| {
        let (response, _) = page(form, FOLDER, None, some());
        response.fields().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let html = of(Form::Html);
    let policy = html.iter().find(|line| line.starts_with("Content-Security-Policy: "));
    assert!(policy.expect("a policy").contains("default-src 'none'; style-src 'sha256-"));
    for fields in [&html, &of(Form::Json)] {
        for expected in
            ["Vary: Accept", "Cache-Control: no-cache", "X-Content-Type-Options: nosniff"]
        {
            assert!(fields.iter().any(|line| line == expected), "{fields:?}");
        }
    }
}
