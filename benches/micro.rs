//! What do the steps of a request cost? `cargo bench --bench micro`, two minutes; `-- --quick`, one.
//!
//! Each figure is the time of one operation: one head, one route found, one response, one deadline. They are
//! lower bounds, because everything is in the cache and every branch was seen before; what a request costs
//! beside its system calls is measured by `--bench floor`. That none of them allocates is held by
//! `tests/allocation.rs`, on the same requests and sites.

#![allow(missing_docs, reason = "criterion's macro makes a public function")]

#[path = "../tests/samples/mod.rs"]
mod samples;

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use laneway::config::{self, Options};
use laneway::internals::content::{Answer, Kept, Outcome, Reply, refusal};
use laneway::internals::http::h1::{DATE_LINE_BYTES, Receiver, Recipient, Step, Writer};
use laneway::internals::http::{Refusal, Version};
use laneway::internals::observe::ledger::Ledger;
use laneway::internals::worker::connection::Session;
use laneway::internals::worker::context::Context;
use laneway::internals::worker::event_loop::timers::Timers;
use samples::{BROWSER, By, LIMITS, MINIMAL, head, pipelined};

const DATE: &[u8; DATE_LINE_BYTES] = b"Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
const CONNECTIONS: u32 = 10_000;
const KEEP_ALIVE_MS: u64 = 75_000;
/// For each figure: it is of some nanoseconds, so that a second has millions of them.
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(3);

criterion_group!(benches, heads, routes, responses, sessions, timers);
criterion_main!(benches);

/// A group whose iterations are one operation each.
fn group<'c>(
    criterion: &'c mut Criterion,
    name: &str,
) -> BenchmarkGroup<'c, criterion::measurement::WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.throughput(Throughput::Elements(1)).warm_up_time(WARM_UP).measurement_time(MEASURED);
    group
}

fn heads(criterion: &mut Criterion) {
    let mut group = group(criterion, "head");
    for (name, request) in [("minimal", MINIMAL), ("browser", BROWSER)] {
        group.bench_function(name, |bencher| {
            let mut receiver = Receiver::default();
            bencher.iter(|| is_head(receiver.step(black_box(request), &LIMITS).1));
        });
    }
    // One head an iteration, each from its place in the batch, as one read brings it.
    let batch = pipelined(MINIMAL, 16);
    group.bench_function("minimal, 16 pipelined", |bencher| {
        let (mut receiver, mut position) = (Receiver::default(), 0);
        bencher.iter(|| {
            let (consumed, step) = receiver.step(black_box(&batch[position..]), &LIMITS);
            position = (position + consumed) % batch.len();
            is_head(step)
        });
    });
    group.finish();
}

/// Keeps the head from being optimised away.
fn is_head(step: Step<'_>) -> bool {
    matches!(black_box(step), Step::Head(_))
}

fn routes(criterion: &mut Criterion) {
    let mut group = group(criterion, "route");
    for by in By::ALL {
        for routes in [1, 100, 10_000] {
            let site = by.site(routes);
            // Many requests in turns: one alone would find its route in the cache, however many there are.
            let hits: Vec<_> =
                (0..routes).map(|number| by.request(number * 7_919 % routes)).collect();
            let misses: Vec<_> = (0..routes).map(|number| by.request(routes + number)).collect();
            for (name, requests) in [("hit", &hits), ("miss", &misses)] {
                let heads: Vec<_> = requests.iter().map(|request| head(request)).collect();
                let id = BenchmarkId::new(format!("{by:?} {name}").to_lowercase(), routes);
                group.bench_function(id, |bencher| {
                    let mut heads = heads.iter().cycle();
                    bencher.iter(|| heads.next().map(|head| site.find(&head.request).0));
                });
            }
        }
    }
    group.finish();
}

fn responses(criterion: &mut Criterion) {
    let mut group = group(criterion, "response");
    let mut output = Vec::with_capacity(64 << 10);
    let site = By::Exact.site(1);
    let request = By::Exact.request(0);
    let head = head(&request);
    group.bench_function("fixed", |bencher| {
        bencher.iter(|| {
            let found = site.find(black_box(&head.request)).1;
            let Answer::Known(Outcome::Ready(reply)) =
                found.answer(&head.request, &Kept::default())
            else {
                panic!("the site answers with fixed responses");
            };
            render(&mut output, &reply, true);
        });
    });
    // Rendered when it is needed: an error ends its connection, so that no client gets many.
    group.bench_function("error", |bencher| {
        bencher.iter(|| render(&mut output, &refusal(black_box(Refusal::BODY_TOO_LARGE)), false));
    });
    group.finish();
}

/// A response as it is sent.
fn render(output: &mut Vec<u8>, reply: &Reply<'_>, keep_alive: bool) {
    output.clear();
    let to = Recipient { version: Version::Http11, is_head: false, keep_alive };
    let length = Some(reply.body.bytes().len() as u64);
    let (mut writer, _) = Writer::begin(output, black_box(&reply.response), length, to, DATE);
    writer.put(output, reply.body.bytes());
    black_box(output.as_slice());
}

/// From bytes to responses and the end of their records, without a socket.
fn sessions(criterion: &mut Criterion) {
    let mut group = group(criterion, "session");
    let mut options = Options::default();
    options.file = Some("/dev/null".into());
    let config = config::load(&options).expect("an empty configuration").config;
    let (site, ledger) = (By::Exact.site(1), Ledger::new(1).expect("a ledger"));
    let request = By::Exact.request(0);
    for (name, depth) in [("one request", 1), ("16 pipelined", 16)] {
        let mut lane = Context::new(&site, &LIMITS, &config, &ledger, 0);
        let (mut session, batch) = (Session::default(), pipelined(&request, depth));
        group.throughput(Throughput::Elements(depth as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let (consumed, _) = session.consume(black_box(&batch), 0, &mut lane);
                assert_eq!(consumed, batch.len());
                let length = black_box(lane.output.unsent().0).len();
                drop(lane.output.advance(length));
            });
        });
    }
    group.finish();
}

/// Every connection with its keep-alive deadline, `spread_ms` from the first to the last.
fn armed(now_ms: u64, spread_ms: u64) -> Timers {
    let mut timers = Timers::default();
    timers.expire(now_ms);
    for index in 0..CONNECTIONS {
        timers.arm(index, now_ms + KEEP_ALIVE_MS + u64::from(index) % spread_ms);
    }
    timers
}

fn timers(criterion: &mut Criterion) {
    let mut group = group(criterion, "deadline");
    // A connection that was just accepted, into a place that was used before.
    group.bench_function("arm and disarm", |bencher| {
        let mut timers = armed(0, 1_000);
        let mut indexes = (0..CONNECTIONS).cycle();
        bencher.iter(|| {
            if let Some(index) = indexes.next() {
                timers.disarm(black_box(index));
                timers.arm(index, black_box(KEEP_ALIVE_MS));
            }
        });
    });
    // Ten requests a millisecond: each moves its connection's deadline, and each turn looks for expired ones.
    group.bench_function("re-arm", |bencher| {
        let mut timers = armed(0, 1_000);
        let (mut indexes, mut requests) = ((0..CONNECTIONS).cycle(), 0_u64);
        bencher.iter(|| {
            if let Some(index) = indexes.next() {
                requests += 1;
                let now_ms = requests / 10;
                if requests.is_multiple_of(10) {
                    assert_eq!(timers.expire(now_ms), None);
                }
                timers.arm(black_box(index), now_ms + KEEP_ALIVE_MS);
            }
        });
    });
    group.bench_function("expire, of 10,000", |bencher| bencher.iter_custom(expire));
    group.finish();
}

/// The time of so many expiries, with the moves through the wheel that come before them.
fn expire(count: u64) -> Duration {
    let (mut time, mut left) = (Duration::ZERO, count);
    while left > 0 {
        let mut timers = armed(0, 1_000);
        let start = Instant::now();
        let expired = std::iter::from_fn(|| timers.expire(2 * KEEP_ALIVE_MS));
        let expired = expired.take(left as usize).count() as u64;
        time += start.elapsed();
        left -= expired;
    }
    time
}
