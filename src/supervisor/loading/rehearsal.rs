//! What a start would come to, as far as that can be told without taking a port: for `server check`. It says what the
//! start itself would say, and changes nothing.

use super::claims;
use super::file_limit::{FileLimit, check_file_limit};
use super::sockets::check_address_count;
use super::startup::LANES_SHARE_CPUS;
use crate::config::{AccessLog, Config, ListenAddress, Options};
use crate::supervisor::listeners::{Accesses, Error, PortHolders, Purpose, clashes, resolve};
use crate::supervisor::presence::socket_file::{self, NotOpened};
use crate::supervisor::processes::sizing;
use crate::sys::file::could_append;
use crate::sys::process::{Identity, ProcessId};
use crate::sys::socket::{self, Address, Bound, Sharing};

/// What a start would come to.
#[derive(Debug)]
pub struct Rehearsal {
    /// How many lanes there would be, and why.
    pub size: sizing::Size,
    /// What a start would fail with.
    pub errors: Vec<String>,
    /// What a start would warn of, each with what to do about it.
    pub warnings: Vec<(String, String)>,
    /// What is no obstacle to a reload, but to a start beside it.
    pub notes: Vec<String>,
}

/// Goes through a start of `config` with these options on this machine, as this user.
pub fn rehearse(config: &Config, options: &Options) -> Rehearsal {
    let machine = sizing::machine();
    let size = sizing::size(config.workers.count, &machine);
    let (mut errors, mut warnings) = (Vec::new(), Vec::new());
    if size.lanes > machine.cpus.len().max(1) {
        warnings.push(("more lanes than CPUs".to_owned(), LANES_SHARE_CPUS.to_owned()));
    }
    let supervisor = &config.supervisor;
    let identity = Identity::find(supervisor.user.as_deref(), supervisor.group.as_deref());
    errors.extend(identity.err().into_iter().flatten());
    match check_file_limit(config, size.lanes) {
        Ok(None) => {}
        Ok(Some(FileLimit { limit, needed, reason, remedy })) => {
            warnings.push((format!("{reason}: {needed}, and the limit is {limit}"), remedy));
        }
        Err(error) => errors.push(error),
    }
    if let Some((reason, remedy)) = config.workers.engine.abilities().warning {
        warnings.push((format!("this engine is for comparison: {reason}"), remedy.to_owned()));
    }
    errors.extend(Accesses::find(config).err());
    let claims = claims::rehearse(config, options);
    let addresses = addresses(config, claims.own, &mut errors, &mut warnings);
    for purpose in [Purpose::Serve, Purpose::Admin] {
        let count = addresses.iter().filter(|(_, of)| *of == purpose).count();
        errors.extend(check_address_count(count, purpose).err());
    }
    if let AccessLog::File(path) = &config.log.access
        && let Err(error) = could_append(path)
    {
        let reason = format!("the access log {} can't be written: {error}", path.display());
        let remedy = "the server would serve without it, and try again every second";
        warnings.push((reason, remedy.to_owned()));
    }
    errors.extend(claims.errors);
    warnings.extend(claims.warnings);
    Rehearsal { size, errors, warnings, notes: claims.notes }
}

/// The addresses that the configuration stands for, of which each can be had by itself, and what for. The server of this
/// configuration, if it runs, may have them.
fn addresses(
    config: &Config,
    own: Option<ProcessId>,
    errors: &mut Vec<String>,
    warnings: &mut Vec<(String, String)>,
) -> Vec<(Address, Purpose)> {
    let mut found: Vec<(Address, &ListenAddress, Purpose)> = Vec::new();
    let serve = config.server.listen.iter().map(|listen| (listen, Purpose::Serve));
    let admin = config.admin.listen.iter().map(|listen| (listen, Purpose::Admin));
    for (listen, purpose) in serve.chain(admin) {
        let is_name = matches!(listen, ListenAddress::Name(..));
        let addresses = match resolve(listen) {
            Ok(addresses) => addresses,
            Err(reason) => {
                errors.push(Error::unresolved(listen, reason).of(purpose).to_string());
                continue;
            }
        };
        let mut absent = Vec::new();
        let mut count = 0;
        for address in addresses {
            match may_be_had(&address, own).map_err(|error| error.of(purpose)) {
                Ok(()) => {
                    count += 1;
                    let clash = found.iter().find(|(other, ..)| clashes(other, &address));
                    match clash {
                        Some((_, other, key)) => errors.push(clash_of(listen, other, *key)),
                        None => found.push((address, listen, purpose)),
                    }
                }
                Err(error) if error.can_be_left_out(is_name) => absent.push(error),
                Err(error) => errors.push(error.to_string()),
            }
        }
        if count == 0 && is_name {
            errors.extend(absent.pop().map(|error| error.to_string()));
        }
        let left_out = "it is left out, as long as there is another address, too";
        warnings.extend(absent.iter().map(|error| (error.to_string(), left_out.to_owned())));
    }
    found.into_iter().map(|(address, _, purpose)| (address, purpose)).collect()
}

fn clash_of(one: &ListenAddress, other: &ListenAddress, of: Purpose) -> String {
    let key = of.key();
    let what = if matches!(one, ListenAddress::Unix(_)) { "path" } else { "port" };
    format!("cannot listen on {one}: {other} of {key} takes the {what}, too; leave one of them out")
}

/// Whether this process may listen on such an address. A port is left alone: another one of its address is tried.
fn may_be_had(address: &Address, own: Option<ProcessId>) -> Result<(), Error> {
    match address {
        Address::Internet(internet) => {
            let mut any_port = *internet;
            any_port.set_port(0);
            let failed = |error| Error::at(address, error, &PortHolders::WhenNeeded);
            Bound::bind(any_port, Sharing::Exclusive).map_err(failed)?;
            socket::may_bind(internet.port()).map_err(failed)
        }
        Address::Unix(path) => match socket_file::rehearse(path) {
            Err(NotOpened::Taken(pid)) if pid.is_some() && pid == own => Ok(()),
            result => result.map_err(|error| Error::at_path(path, error)),
        },
    }
}
