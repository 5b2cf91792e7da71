//! Pages as a whole, and what holds for every page.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::observe::ledger::Ledger;
use crate::observe::ledger::labels::{
    Answered, BOUNDS_US, Class, DurationPart, Label, Method, RefusedFor, TimedOut,
};

/// Two lanes, of which one was removed.
fn facts() -> Facts {
    let ledger = Ledger::new(1).expect("a ledger");
    let cells = ledger.block(0).cells();
    cells.accepted.add(3);
    cells.requests.add(5);
    cells.response_bytes.add(1_234);
    cells.busy_us.add(2_500_000);
    cells.answered.at(Answered(Method::Get, Class::Successful)).add(4);
    cells.answered.at(Answered(Method::Other, Class::ClientError)).add(1);
    cells.refused.at(RefusedFor::BadRequest).add(1);
    cells.timed_out.at(TimedOut::KeepAlive).add(2);
    cells.durations.at(DurationPart::Bucket(70)).add(4);
    cells.durations.at(DurationPart::Bucket(20_000_000)).add(1);
    cells.durations.at(DurationPart::Sum).add(20_000_280);
    cells.open.set(1);
    let lane = LaneFacts {
        counts: ledger.block(0).counts(),
        levels: cells.levels(),
        restarts: [("hung".to_owned(), 1)].into(),
        heartbeat_age_ms: Some(12),
        longest_turn_us: Some(345),
    };
    let writer = RoleFacts { lines_dropped: Some(6), ..RoleFacts::default() };
    let mut reloads = Reloads::begun(1_700_000_000_000, Reloads::default());
    reloads.count(true, 1_700_000_001_500);
    reloads.count(false, 1_700_000_002_000);
    let queue = |lane, address: &str| QueueFacts {
        lane,
        address: address.into(),
        waiting: 1,
        backlog: 4096,
    };
    Facts {
        version: "1.2.3".into(),
        generation: 2,
        lanes: [(0, lane), (1, LaneFacts::default())].into(),
        roles: [("acceptor".to_owned(), RoleFacts::default()), ("access_log".to_owned(), writer)]
            .into(),
        lane_states: [("hung", 0), ("ready", 1)].map(|(state, of)| (state.to_owned(), of)).into(),
        connections_max: 16_384,
        queues: vec![queue(Some(0), "127.0.0.1:8080"), queue(None, "[::1]:8080")],
        reloads,
        is_draining: true,
        listens: Some(Listens { overflows: 7, drops: 8 }),
        process: Some(ProcessFacts {
            cpu_us: 1_500_000,
            virtual_bytes: 1 << 20,
            resident_bytes: 1 << 12,
            open_fds: 9,
            max_fds: 1024,
            start_ms: 1_700_000_000_000,
        }),
    }
}

#[test]
fn the_page_is_what_it_was() {
    for (format, expected) in [
        (Format::Text, include_str!("page.txt")),
        (Format::OpenMetrics, include_str!("page.openmetrics.txt")),
    ] {
        let page = render(&facts(), format);
        if page != expected {
            let folder = std::env::temp_dir().join("laneway-page.txt");
            std::fs::write(&folder, &page).expect("room");
            panic!("{format:?} is another one, in {}", folder.display());
        }
    }
}

#[test]
fn facts_are_read_as_they_were_told() {
    let told = serde_json::to_string(&facts()).expect("JSON");
    assert_eq!(serde_json::from_str::<Facts>(&told).expect("facts"), facts());
}

/// A page in the format 0.0.4, taken apart: types by the names of families, and values by the series.
struct Parsed<'p> {
    types: BTreeMap<&'p str, &'p str>,
    helped: BTreeSet<&'p str>,
    values: BTreeMap<&'p str, f64>,
}

impl<'p> Parsed<'p> {
    /// Of a page whose families follow each other whole.
    fn of(page: &'p str) -> Parsed<'p> {
        let (mut types, mut helped, mut values) =
            (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        let mut current = "";
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                current = help.split(' ').next().expect("a name");
                assert!(helped.insert(current), "{current} has help twice");
            } else if let Some(of_type) = line.strip_prefix("# TYPE ") {
                let (name, of_type) = of_type.split_once(' ').expect("a type");
                assert_eq!(name, current);
                assert!(types.insert(name, of_type).is_none(), "{name} has a type twice");
            } else {
                let (series, value) = line.rsplit_once(' ').expect("a value");
                let name = series.split('{').next().expect("a name");
                let parts = ["_bucket", "_sum", "_count"].map(|part| format!("{current}{part}"));
                assert!(
                    name == current || parts.iter().any(|part| part == name),
                    "{name} in {current}"
                );
                let value = value.parse().expect("a number");
                assert!(values.insert(series, value).is_none(), "{series} stands twice");
            }
        }
        Parsed { types, helped, values }
    }
}

proptest! {
    #[test]
    fn every_family_is_described_every_series_is_one_and_buckets_hold_those_below(
        cells in proptest::collection::vec((0..4_usize, 0..200_usize, 0..1_000_000_u64), 0..50),
    ) {
        let ledger = Ledger::new(4).expect("a ledger");
        for (block, field, count) in cells {
            let cells = ledger.block(block).cells();
            match field {
                0..100 => cells.durations.at(DurationPart::Bucket(count << (field % 12))).add(1 + count),
                100..150 => cells.refused.at(RefusedFor::Version).add(count),
                _ => cells.answered.at(Answered(Method::Put, Class::of(100 + (field as u16 * 3)))).add(count),
            }
        }
        let lanes = (0..4).map(|block| {
            (block, LaneFacts { counts: ledger.block(block).counts(), ..LaneFacts::default() })
        });
        let facts = Facts { lanes: lanes.collect(), ..facts() };
        let page = render(&facts, Format::Text);
        let parsed = Parsed::of(&page);
        prop_assert_eq!(parsed.types.keys().copied().collect::<BTreeSet<_>>(), parsed.helped);
        let le = &DurationPart::DIMENSIONS[0].values[..=BOUNDS_US.len()];
        for lane in 0..4 {
            let bucket = |le| parsed.values[&*format!("laneway_request_duration_seconds_bucket{{lane=\"{lane}\",le=\"{le}\"}}")];
            let counts: Vec<f64> = le.iter().copied().map(bucket).collect();
            prop_assert!(counts.is_sorted());
            let count = parsed.values[&*format!("laneway_request_duration_seconds_count{{lane=\"{lane}\"}}")];
            prop_assert_eq!(counts.last(), Some(&count));
        }
    }
}

/// The rows of the table in docs/metrics.md, as the page has them.
fn rows(page: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for (at, _) in page.match_indices("# HELP ") {
        let mut lines = page[at..].lines();
        let (help, of_type) = (lines.next().expect("help"), lines.next().expect("a type"));
        let (name, help) = help["# HELP ".len()..].split_once(' ').expect("a text");
        let of_type = of_type.rsplit(' ').next().expect("a type");
        let mut all = Vec::new();
        for sample in lines.take_while(|line| !line.starts_with('#')) {
            let (_, labels) = sample.split_once('{').unwrap_or_default();
            let labels = labels.split("\",").filter_map(|label| label.split_once("=\""));
            for label in labels.map(|(name, _)| format!("`{name}`")) {
                // Of a histogram `le` is how it is written.
                if label != "`le`" && !all.contains(&label) {
                    all.push(label);
                }
            }
        }
        rows.push(format!("| `{name}` | {of_type} | {} | {help} |", all.join(", ")));
    }
    rows
}

#[test]
fn the_documents_have_every_family_and_no_other() {
    let documents = include_str!("../../../docs/metrics.md");
    let table = documents.lines().filter(|line| line.starts_with("| `"));
    assert_eq!(table.collect::<Vec<_>>(), rows(&render(&facts(), Format::Text)));
}

#[test]
fn the_documents_ask_for_families_that_there_are() {
    let page = render(&facts(), Format::Text);
    let documents = include_str!("../../../docs/metrics.md");
    let words = documents.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names: BTreeSet<&str> = words.filter(|word| word.starts_with("laneway_")).collect();
    assert!(names.len() > 20, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("\n{name}")), "{name}");
    }
}
