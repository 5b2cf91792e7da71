//! deploy/grafana/laneway.json: what it asks for exists, is asked for in the right way, and is laid out so that it can be
//! seen.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails there")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// An expression of the dashboard, and the text that says what of its result is shown.
struct Asked {
    of: String,
    expression: String,
    legend: String,
}

fn dashboard() -> Value {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/grafana/laneway.json");
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

fn list<'v>(value: &'v Value, pointer: &str) -> Vec<&'v Value> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten().collect()
}

/// Every expression of panels, annotations and variables.
fn asked(dashboard: &Value) -> Vec<Asked> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let panels = list(dashboard, "/panels").into_iter().flat_map(|panel| {
        list(panel, "/targets").into_iter().map(|target| Asked {
            of: text(&panel["title"]),
            expression: text(&target["expr"]),
            legend: text(&target["legendFormat"]),
        })
    });
    let notes = list(dashboard, "/annotations/list").into_iter().map(|note| Asked {
        of: text(&note["name"]),
        expression: text(&note["expr"]),
        legend: text(&note["textFormat"]),
    });
    let variables = list(dashboard, "/templating/list").into_iter().map(|variable| {
        let query = text(&variable["query"]["query"]);
        let asked = query.strip_prefix("label_values(").and_then(|of| of.rsplit_once(", "));
        let (metric, label) = asked.unwrap_or_default();
        let label = label.trim_end_matches(')');
        let of = text(&variable["name"]);
        // As an expression: the values of the label are those of its groups.
        let all = if metric.contains('{') { "" } else { "{}" };
        let expression = format!("group by ({label}) ({metric}{all})");
        Asked { of, expression, legend: format!("{{{{{label}}}}}") }
    });
    let all = panels.chain(notes).chain(variables.filter(|of| of.of != "datasource"));
    all.filter(|asked| !asked.expression.is_empty()).collect()
}

/// An expression as Prometheus gets it: with something in the place of each variable.
fn filled(expression: &str) -> String {
    const VALUES: [(&str, &str); 6] = [
        ("$__rate_interval", "5m"),
        ("$__interval", "1m"),
        ("$__range", "1h"),
        ("$job", "laneway"),
        ("$instance", ".*"),
        ("$lane", ".*"),
    ];
    VALUES.iter().fold(expression.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// The metrics of an expression, each with the labels that it is picked or summed by.
fn metrics(expression: &str) -> Vec<(String, BTreeSet<String>)> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let after = expression.split("by (").skip(1);
    let by = after.flat_map(|text| text.split(')').next().unwrap_or_default().split(','));
    let by: BTreeSet<String> = by.map(|label| label.trim().to_owned()).collect();
    let mut found = Vec::new();
    for (at, _) in expression.match_indices(['{', '[']) {
        let start = expression[..at].rfind(|letter| !is_name(letter)).map_or(0, |end| end + 1);
        let name = &expression[start..at];
        if name.is_empty() || !expression[at..].starts_with('{') {
            continue;
        }
        let picked = expression[at + 1..].split('}').next().unwrap_or_default();
        let picked = picked.split(", ").filter_map(|one| one.split(['=', '!']).next());
        let labels = picked.filter(|label| !label.is_empty()).map(str::to_owned);
        found.push((name.to_owned(), labels.chain(by.clone()).collect()));
    }
    found
}

/// Every metric that there can be, with its labels; of a histogram, each of its series. A page of them is compared with
/// what the code renders, by a test beside it.
fn known() -> BTreeMap<String, BTreeSet<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/observe/metrics/page.txt");
    let page = fs::read_to_string(file).unwrap();
    let mut known: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let labels = labels
            .split("\",")
            .filter_map(|label| label.split_once('='))
            .map(|(name, _)| name.to_owned());
        known.entry(name.to_owned()).or_default().extend(labels);
    }
    known
}

#[test]
fn every_metric_and_label_that_is_asked_for_exists() {
    let known = known();
    let mut wrong = Vec::new();
    for Asked { of, expression, .. } in asked(&dashboard()) {
        let metrics = metrics(&expression);
        assert!(!metrics.is_empty(), "{of}: {expression}");
        for (name, labels) in metrics {
            let Some(known) = known.get(&name) else {
                wrong.push(format!("{of}: no metric {name}"));
                continue;
            };
            // These two Prometheus adds to whatever it scrapes.
            let is_known =
                |label: &String| known.contains(label) || label == "job" || label == "instance";
            let unknown: Vec<_> = labels.into_iter().filter(|label| !is_known(label)).collect();
            if !unknown.is_empty() {
                wrong.push(format!("{of}: {name} has no label {}", unknown.join(", ")));
            }
        }
    }
    assert!(wrong.is_empty(), "deploy/grafana/laneway.json:\n{}", wrong.join("\n"));
}

/// What is missing on a dashboard is missed when it is needed. A state of the server that others tell of better is left out.
#[test]
fn every_metric_is_shown_but_for_a_few() {
    let shown: BTreeSet<String> = asked(&dashboard())
        .iter()
        .flat_map(|of| metrics(&of.expression))
        .map(|(name, _)| name)
        .collect();
    // The count and the sum of a histogram, what responses tell better than they, and what a supervisor hardly changes.
    let not_shown = [
        "laneway_request_duration_seconds_count",
        "laneway_request_duration_seconds_sum",
        "laneway_requests_begun_total",
        "laneway_responses_total",
        "laneway_last_reload_success_timestamp_seconds",
        "process_cpu_seconds_total",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    ];
    let missing: Vec<String> = known().into_keys().filter(|name| !shown.contains(name)).collect();
    let expected: BTreeSet<&str> = not_shown.into();
    assert_eq!(missing.iter().map(String::as_str).collect::<BTreeSet<_>>(), expected);
}

#[test]
fn what_a_legend_names_is_left_by_its_expression() {
    for Asked { of, expression, legend } in asked(&dashboard()) {
        let named = legend.split("{{").skip(1).map(|text| text.split("}}").next().unwrap());
        for label in named {
            // Without a sum, every label is left.
            let labels =
                expression.rsplit_once("by (").map(|(_, text)| text.split(')').next().unwrap());
            let is_left = labels.is_none_or(|labels| labels.split(", ").any(|left| left == label));
            assert!(is_left, "{of}: {expression} has no {label} for {legend}");
        }
    }
}

#[test]
fn prometheus_understands_every_expression() {
    if harness::skip_without("promtool") {
        return;
    }
    let rules: Vec<_> = asked(&dashboard())
        .iter()
        .enumerate()
        .map(|(number, asked)| {
            let record = format!("dashboard:{number}");
            serde_json::json!({ "record": record, "expr": filled(&asked.expression) })
        })
        .collect();
    assert!(rules.len() > 30, "{}", rules.len());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rules.yml");
    // JSON is YAML.
    let text = serde_json::json!({ "groups": [{ "name": "dashboard", "rules": rules }] });
    fs::write(&file, text.to_string()).unwrap();
    let mut promtool = Command::new("promtool");
    let told = harness::checked_by(promtool.args(["check", "rules"]).arg(&file), b"").unwrap();
    assert!(told.contains(&format!("SUCCESS: {} rules found", rules.len())), "{told}");
}

#[test]
fn every_panel_has_a_place_and_a_number_of_its_own_and_says_what_it_shows() {
    let dashboard = dashboard();
    let (mut numbers, mut taken) = (BTreeSet::new(), BTreeSet::new());
    for panel in list(&dashboard, "/panels") {
        let title = panel["title"].as_str().unwrap();
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{title}");
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|of| panel["gridPos"][of].as_u64().unwrap());
        assert!(w > 0 && x + w <= 24, "{title}");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "{title} lies over another");
        }
        if panel["type"] != "row" {
            assert!(panel["description"].as_str().unwrap().ends_with('.'), "{title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}

#[test]
fn metrics_are_found_in_an_expression() {
    let expression = "histogram_quantile(0.9, sum by (le, lane) (rate(a_bucket{job=~\"$job\", \
                      lane!=\"1\"}[$__rate_interval]))) / max(b{})";
    let labels = |labels: &[&str]| labels.iter().map(ToString::to_string).collect();
    let expected = [
        ("a_bucket".to_owned(), labels(&["job", "lane", "le"])),
        ("b".to_owned(), labels(&["lane", "le"])),
    ];
    assert_eq!(metrics(expression), expected);
}
