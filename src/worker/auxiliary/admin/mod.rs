//! The admin worker: a lane's event loop on the admin address, with pages and limits of its own.

mod pages;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Accept, Config, Driver, Limits, Timeouts};
use crate::content::Site;
use crate::control::{Assignment, Control, WorkerEvent};
use crate::sys::cpu::{self, OTHER_FILES};
use crate::worker::context::Context;
use crate::worker::context::clients::Clients;
use crate::worker::context::inquiries::Inquiries;
use crate::worker::event_loop::EventLoop;
use crate::worker::{Generation, limits, open_driver};
use pages::Pages;

/// Most open connections: each probe, scraper and person has one. With so many, the one that is idle longest is closed.
const CONNECTIONS_MAX: u32 = 512;

/// Does the admin worker's work until a drain is over.
pub fn run(
    assignment: &Assignment,
    generation: &Generation,
    control: &Control,
) -> Result<(), String> {
    let Assignment { worker, block, .. } = *assignment;
    let config = own(&generation.config)
        .map_err(|error| format!("cannot tell the limit on open files: {error}"))?;
    let own_control = control.try_clone();
    let own_control =
        own_control.map_err(|error| format!("cannot set up the admin worker: {error}"))?;
    let inquiries = Arc::new(Inquiries::new(worker, own_control));
    let pages = Pages::new(Arc::clone(&inquiries), config.admin.hosts.clone());
    let (limits, site) = (limits(&config), Site::of(Box::new(pages)).read_alone());
    let mut context = Context::new(&site, &limits, &config, &generation.ledger, block);
    context.clients = Some(Clients::without_proxies());
    let (driver, reason) = open_driver(&config.workers)
        .map_err(|error| format!("cannot set up the driver of the admin worker: {error}"))?;
    let name = Some(driver.name().to_owned());
    let mut event_loop = EventLoop::new(worker, &config, driver, control, context, None)
        .map_err(|error| format!("cannot set up the event loop of the admin worker: {error}"))?;
    event_loop.inquire(inquiries);
    event_loop.make_room();
    control.report(worker, WorkerEvent::Ready { driver: name, reason });
    event_loop.run().map_err(|error| format!("the event loop of the admin worker failed: {error}"))
}

/// The configuration that the admin worker goes by: small limits, whatever the lanes' are.
fn own(config: &Config) -> io::Result<Config> {
    let mut own = config.clone();
    own.workers.accept = Accept::Reuseport;
    // At the limit on descriptors it could close one for another only by chance.
    let affordable = cpu::file_limit()?.saturating_sub(OTHER_FILES).max(2);
    own.workers.max_connections = affordable.min(CONNECTIONS_MAX.into()) as u32;
    // It may not be kept from answering by what keeps a ring from lanes.
    own.workers.driver = Driver::Epoll;
    own.limits = Limits {
        request_line: 2 << 10,
        header_bytes: 8 << 10,
        headers: 64,
        // A method that takes one is refused with it.
        body: 64 << 10,
        requests_per_connection: 0,
        ..Limits::default()
    };
    own.timeouts = Timeouts {
        header: Duration::from_secs(5),
        body: Duration::from_secs(5),
        keep_alive: Duration::from_secs(20),
        write: Duration::from_secs(10),
    };
    Ok(own)
}
