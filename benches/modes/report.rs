//! The figures as tables to read, and as JSON.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::figures::{Blast, Figures, Rows};
use super::load::report::{Spread, thousands};

/// A run, with everything that its figures depend on.
pub(crate) struct Report<'r> {
    pub(crate) machine: String,
    pub(crate) commit: Option<String>,
    pub(crate) command: String,
    pub(crate) lanes: usize,
    pub(crate) server_cpus: &'r [usize],
    pub(crate) rounds: usize,
    pub(crate) measured: Duration,
    pub(crate) pace: u32,
    pub(crate) works: Vec<String>,
    pub(crate) rows: &'r Rows,
}

/// A figure of a mode under a load: its name in JSON, its head in the table, and how it is written there.
struct Column {
    name: &'static str,
    head: &'static str,
    of: fn(&Figures) -> f64,
    write: fn(Spread) -> String,
}

const COLUMNS: [Column; 8] = [
    Column {
        name: "requests_per_second",
        head: "requests/s",
        of: |figures| figures.requests_per_second,
        write: |spread| thousands(spread.median),
    },
    Column {
        name: "cpu_us_per_request",
        head: "CPU µs/request",
        of: |figures| figures.cpu_us,
        write: |spread| format!("{spread:.1}"),
    },
    Column {
        name: "p50_us",
        head: "p50 µs",
        of: |figures| figures.latencies.p50_us,
        write: |spread| thousands(spread.median),
    },
    Column {
        name: "p90_us",
        head: "p90 µs",
        of: |figures| figures.latencies.p90_us,
        write: |spread| thousands(spread.median),
    },
    Column {
        name: "p99_us",
        head: "p99 µs",
        of: |figures| figures.latencies.p99_us,
        write: |spread| format!("{spread:.0}"),
    },
    Column {
        name: "p999_us",
        head: "p99.9 µs",
        of: |figures| figures.latencies.p999_us,
        write: |spread| format!("{spread:.0}"),
    },
    Column {
        name: "connections_max_by_mean",
        head: "connections, max ÷ mean",
        of: |figures| figures.connections.0,
        write: |spread| format!("{spread:.2}"),
    },
    Column {
        name: "requests_max_by_mean",
        head: "requests, max ÷ mean",
        of: |figures| figures.requests.0,
        write: |spread| format!("{:.2}", spread.median),
    },
];

impl Report<'_> {
    /// What was run, on what.
    pub(crate) fn heading(&self) -> String {
        let cpus: Vec<String> = self.server_cpus.iter().map(ToString::to_string).collect();
        let (lanes, cpus, rounds) = (self.lanes, cpus.join(", "), self.rounds);
        format!("{}; {lanes} lanes on CPU {cpus}; {rounds} rounds", self.machine)
    }

    /// A figure of every mode under one load, over the rounds.
    pub(crate) fn spreads(&self, work: usize, of: fn(&Figures) -> f64) -> Vec<Spread> {
        let modes = self.rows.figures.iter();
        modes.map(|works| Spread::of(works[work].iter().map(of))).collect()
    }

    /// A figure of every mode with a worker killed.
    pub(crate) fn blasts(&self, of: fn(&Blast) -> f64) -> Vec<Spread> {
        self.rows.blasts.iter().map(|rounds| Spread::of(rounds.iter().map(of))).collect()
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = String::new();
        let commit = self.commit.as_deref().unwrap_or("no commit");
        let _ = writeln!(text, "{}.\nCommit {commit}; `{}`.\n", self.heading(), self.command);
        let _ = writeln!(
            text,
            "Medians (min–max) over rounds of {:?}. Requests/s and CPU: saturated. Latencies: at {} requests a second,\n\
             {} where each has its own connection, counted from when a request was due.\n",
            self.measured,
            thousands(self.pace.into()),
            thousands((self.pace / 10).into()),
        );
        for (number, work) in self.works.iter().enumerate() {
            let heads = COLUMNS.iter().map(|column| column.head.to_owned());
            let mut rows = vec![["mode".to_owned()].into_iter().chain(heads).collect::<Vec<_>>()];
            for (mode, name) in self.rows.modes.iter().enumerate() {
                let figures = &self.rows.figures[mode][number];
                let cell =
                    |column: &Column| (column.write)(Spread::of(figures.iter().map(column.of)));
                let cells = COLUMNS.iter().map(cell);
                rows.push([(*name).to_owned()].into_iter().chain(cells).collect());
            }
            let _ = writeln!(text, "### {}\n\n{}", capitalised(work), as_table(&rows));
        }
        let _ = writeln!(text, "### Memory, and a SIGKILL of one worker\n\n{}", self.blast_table());
        text
    }

    fn blast_table(&self) -> String {
        let heads = [
            "mode",
            "memory of the workers, MiB",
            "requests failed",
            "clients that noticed, %",
            "ms to full service",
        ];
        let mut rows = vec![heads.map(String::from).to_vec()];
        let failed = self.blasts(|blast| blast.failed_requests);
        let noticed = self.blasts(|blast| blast.noticed * 100.0);
        let ms = self.blasts(|blast| blast.full_service_ms);
        for (mode, name) in self.rows.modes.iter().enumerate() {
            let memory = Spread::of(self.rows.memory_bytes[mode].iter().map(|bytes| bytes / MIB));
            rows.push(vec![
                (*name).to_owned(),
                format!("{memory:.1}"),
                format!("{:.0}", failed[mode]),
                format!("{:.0}", noticed[mode]),
                format!("{:.1}", ms[mode]),
            ]);
        }
        as_table(&rows)
    }

    pub(crate) fn json(&self) -> Value {
        let each = |figures: &[Figures]| -> Value {
            let columns = COLUMNS.iter().map(|column| {
                let values: Vec<f64> = figures.iter().map(column.of).collect();
                (column.name.to_owned(), json!(values))
            });
            Value::Object(columns.collect())
        };
        let modes = self.rows.modes.iter().enumerate().map(|(mode, name)| {
            let works = self.works.iter().zip(&self.rows.figures[mode]);
            let works: serde_json::Map<String, Value> =
                works.map(|(work, figures)| (work.clone(), each(figures))).collect();
            let blasts = &self.rows.blasts[mode];
            let of =
                |figure: fn(&Blast) -> f64| -> Vec<f64> { blasts.iter().map(figure).collect() };
            json!({
                "mode": name,
                "loads": works,
                "memory_bytes": self.rows.memory_bytes[mode],
                "sigkill_of_one_worker": {
                    "failed_requests": of(|blast| blast.failed_requests),
                    "clients_that_noticed": of(|blast| blast.noticed),
                    "full_service_ms": of(|blast| blast.full_service_ms),
                },
            })
        });
        json!({
            "machine": self.machine,
            "commit": self.commit,
            "command": self.command,
            "lanes": self.lanes,
            "server_cpus": self.server_cpus,
            "rounds": self.rounds,
            "measured_ms": self.measured.as_millis() as u64,
            "pace_per_second": self.pace,
            "modes": modes.collect::<Vec<_>>(),
        })
    }
}

const MIB: f64 = 1_048_576.0;

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// A table of Markdown that can be read as it is.
fn as_table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..rows[0].len()).filter_map(width).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells =
            row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
        let _ = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rules = widths.iter().enumerate().map(|(column, width)| match column {
                0 => format!(":{}", "-".repeat(width - 1)),
                _ => format!("{}:", "-".repeat(width - 1)),
            });
            let _ = writeln!(text, "| {} |", rules.collect::<Vec<_>>().join(" | "));
        }
    }
    text
}
