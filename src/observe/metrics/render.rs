//! The page: which families there are, and in which order. Those of the ledger follow from its list of fields.

use super::page::{Family, Page, Type, seconds_of_ms, seconds_of_us};
use super::{Facts, Format, LaneFacts};
use crate::observe::ledger::labels::{BOUNDS_US, Label, RestartCause, values_of};
use crate::observe::ledger::{FIELDS, Field, Kind, Unit};

/// What the names of all families of this program begin with.
const PREFIX: &str = "laneway_";
/// The field of the ledger that another role than a lane has, too.
const LINES_DROPPED: &str = "access_log_dropped";

/// The page of these facts.
pub fn render(facts: &Facts, format: Format) -> String {
    let mut page = Page::new(format);
    let arch = std::env::consts::ARCH;
    page.single(
        info("laneway_build_info", "The program: its version, and what it was built for."),
        &[("version", &facts.version), ("arch", arch)],
        1,
    );
    let lanes: Vec<(String, &LaneFacts)> =
        facts.lanes.iter().map(|(lane, of)| (lane.to_string(), of)).collect();
    for field in &FIELDS {
        match field.kind {
            Kind::Counter => {
                counter(&mut page, field, &lanes);
                if field.key == LINES_DROPPED {
                    lines_given_up(&mut page, field, facts);
                }
            }
            Kind::Histogram => histogram(&mut page, field, &lanes),
            Kind::Gauge | Kind::State => {}
        }
    }
    of_lanes(&mut page, &lanes);
    queues(&mut page, facts);
    restarts(&mut page, facts);
    of_server(&mut page, facts);
    of_process(&mut page, facts);
    page.finish()
}

const fn gauge<'f>(name: &'f str, help: &'f str) -> Family<'f> {
    Family { name, help, of_type: Type::Gauge }
}

const fn counter_of<'f>(name: &'f str, help: &'f str) -> Family<'f> {
    Family { name, help, of_type: Type::Counter }
}

const fn info<'f>(name: &'f str, help: &'f str) -> Family<'f> {
    Family { name, help, of_type: Type::Info }
}

/// A counter of the ledger. One with several labels has many cells of which most are never used: of it, those that are 0
/// are left out.
fn counter(page: &mut Page, field: &Field, lanes: &[(String, &LaneFacts)]) {
    let name = format!("{PREFIX}{}", field.name);
    page.begin(counter_of(&name, field.help));
    for (lane, of_lane) in lanes {
        for (cell, count) in of_lane.counts.of_field(field).iter().enumerate() {
            if *count == 0 && field.dimensions.len() > 1 {
                continue;
            }
            let values = values_of(field.dimensions, cell);
            let labels = field.dimensions.iter().map(|of| of.name).zip(values);
            let labels: Vec<(&str, &str)> = [("lane", &**lane)].into_iter().chain(labels).collect();
            match field.unit {
                Unit::Microseconds => page.sample(&name, &labels, seconds_of_us(*count)),
                _ => page.sample(&name, &labels, count),
            }
        }
    }
}

/// Those lines that no lane has dropped.
fn lines_given_up(page: &mut Page, field: &Field, facts: &Facts) {
    let name = format!("{PREFIX}{}", field.name);
    for (role, of) in &facts.roles {
        if let Some(count) = of.lines_dropped {
            page.sample(&name, &[("role", role)], count);
        }
    }
}

/// A histogram of the ledger: its buckets, which hold what is in those before them, too, and its sum.
fn histogram(page: &mut Page, field: &Field, lanes: &[(String, &LaneFacts)]) {
    let name = format!("{PREFIX}{}", field.name);
    page.begin(Family { name: &name, help: field.help, of_type: Type::Histogram });
    let [bucket, sum, count] = ["bucket", "sum", "count"].map(|part| format!("{name}_{part}"));
    for (lane, of_lane) in lanes {
        let cells = of_lane.counts.of_field(field);
        let mut below = 0;
        for (cell, count) in cells[..=BOUNDS_US.len()].iter().enumerate() {
            below += count;
            let le = values_of(field.dimensions, cell)[0];
            page.sample(&bucket, &[("lane", lane), ("le", le)], below);
        }
        page.sample(&sum, &[("lane", lane)], seconds_of_us(cells[BOUNDS_US.len() + 1]));
        page.sample(&count, &[("lane", lane)], below);
    }
}

/// What lanes have now.
fn of_lanes(page: &mut Page, lanes: &[(String, &LaneFacts)]) {
    let open = gauge(
        "laneway_connections_open",
        "Connections open, those of workers that drain included.",
    );
    page.begin(open);
    for (lane, of_lane) in lanes {
        page.sample(open.name, &[("lane", lane)], of_lane.levels.open);
    }
    let age = gauge(
        "laneway_heartbeat_age_seconds",
        "Time since the last turn of the lane's event loop began; an idle one turns four times within supervisor.watchdog.",
    );
    page.begin(age);
    for (lane, of_lane) in lanes {
        if let Some(age_ms) = of_lane.heartbeat_age_ms {
            page.sample(age.name, &[("lane", lane)], seconds_of_ms(age_ms));
        }
    }
    let longest = gauge(
        "laneway_turn_longest_seconds",
        "The longest turn of the lane's event loop that ended in this minute or in the one before.",
    );
    page.begin(longest);
    for (lane, of_lane) in lanes {
        if let Some(longest_us) = of_lane.longest_turn_us {
            page.sample(longest.name, &[("lane", lane)], seconds_of_us(longest_us));
        }
    }
}

fn queues(page: &mut Page, facts: &Facts) {
    let length = gauge("laneway_accept_queue_length", "Connections that wait to be accepted.");
    let backlog = gauge(
        "laneway_accept_backlog",
        "Connections that may wait: the backlog that the kernel has granted.",
    );
    for (family, value) in [(length, 0), (backlog, 1)] {
        page.begin(family);
        for queue in &facts.queues {
            // One that all lanes share is of no lane.
            let lane = queue.lane.map(|lane| lane.to_string());
            let lane = lane.iter().map(|lane| ("lane", &**lane));
            let labels: Vec<(&str, &str)> = lane.chain([("address", &*queue.address)]).collect();
            page.sample(family.name, &labels, [queue.waiting, queue.backlog][value]);
        }
    }
}

fn restarts(page: &mut Page, facts: &Facts) {
    let family = counter_of(
        "laneway_worker_restarts_total",
        "Workers restarted, by cause: those of a lane, and those of another role.",
    );
    page.begin(family);
    let lanes = facts.lanes.iter().map(|(lane, of)| ("lane", lane.to_string(), &of.restarts));
    let roles = facts.roles.iter().map(|(role, of)| ("role", role.clone(), &of.restarts));
    for (label, of, restarts) in lanes.chain(roles) {
        for cause in RestartCause::DIMENSION.values {
            let count = restarts.get(*cause).copied().unwrap_or(0);
            // That one is of servers that were upgraded from a version which didn't tell.
            if count > 0 || *cause != RestartCause::DIMENSION.values[RestartCause::Unknown.cell()] {
                page.sample(family.name, &[(label, &of), ("cause", cause)], count);
            }
        }
    }
}

fn of_server(page: &mut Page, facts: &Facts) {
    let states = gauge("laneway_lanes", "Lanes, by the state of their workers.");
    page.begin(states);
    for (state, count) in &facts.lane_states {
        page.sample(states.name, &[("state", state)], *count);
    }
    let max = gauge(
        "laneway_lane_connections_max",
        "Connections that each lane may have open: workers.max_connections.",
    );
    page.single(max, &[], facts.connections_max);
    let generation = gauge(
        "laneway_generation",
        "The number of the generation that serves; an upgrade begins at 1 again.",
    );
    page.single(generation, &[], facts.generation);
    let reloads =
        counter_of("laneway_reloads_total", "Reloads of the configuration, by what came of them.");
    page.begin(reloads);
    for (outcome, count) in [("done", facts.reloads.done), ("rejected", facts.reloads.rejected)] {
        page.sample(reloads.name, &[("outcome", outcome)], count);
    }
    let successful = gauge(
        "laneway_last_reload_successful",
        "Whether the last reload was taken: 1, also before the first one, or 0.",
    );
    page.single(successful, &[], u64::from(!facts.reloads.has_failed));
    let time = gauge(
        "laneway_last_reload_success_timestamp_seconds",
        "When the configuration that serves was taken, in seconds since 1970.",
    );
    page.single(time, &[], seconds_of_ms(facts.reloads.success_ms));
    let draining = gauge("laneway_draining", "Whether the server was told to stop: 0 or 1.");
    page.single(draining, &[], u64::from(facts.is_draining));
    if let Some(listens) = facts.listens {
        let overflows = counter_of(
            "laneway_netns_listen_overflows_total",
            "Connections that found an accept queue full, of all programs in this network namespace (TcpExt ListenOverflows).",
        );
        page.single(overflows, &[], listens.overflows);
        let drops = counter_of(
            "laneway_netns_listen_drops_total",
            "Connections dropped on their way into an accept queue, of all programs in this network namespace (TcpExt ListenDrops).",
        );
        page.single(drops, &[], listens.drops);
    }
}

/// The supervisor's process, by the names that client libraries use, which have no prefix.
fn of_process(page: &mut Page, facts: &Facts) {
    let Some(process) = facts.process else {
        return;
    };
    let cpu = counter_of("process_cpu_seconds_total", "Time on a CPU, of the supervisor alone.");
    page.single(cpu, &[], seconds_of_us(process.cpu_us));
    for (name, help, value) in [
        ("process_open_fds", "Open descriptors of the supervisor.", process.open_fds),
        ("process_max_fds", "Descriptors that the supervisor may have open.", process.max_fds),
        ("process_virtual_memory_bytes", "Memory mapped by the supervisor.", process.virtual_bytes),
        (
            "process_resident_memory_bytes",
            "Memory of the supervisor that is resident.",
            process.resident_bytes,
        ),
    ] {
        page.single(gauge(name, help), &[], value);
    }
    let start =
        gauge("process_start_time_seconds", "When the supervisor started, in seconds since 1970.");
    page.single(start, &[], seconds_of_ms(process.start_ms));
}
