//! The sockets that this process was started with, by a service manager or by the supervisor before: claimed before
//! anything is opened here, and used later.

use std::io;
use std::os::fd::OwnedFd;

use super::launcher::VARIABLE;
use super::upgrade;
use crate::control::Control;
use crate::supervisor::presence::manager;
use crate::sys::socket::inherited::{Claim, Kind};

/// What was passed. A failure is reported only where what was passed is needed.
pub struct Passed {
    /// This end of the conversation with the supervisor before, if there is one.
    pub(crate) predecessor: io::Result<Option<OwnedFd>>,
    /// The service manager's sockets.
    pub(crate) activated: io::Result<Vec<OwnedFd>>,
}

impl Passed {
    /// Claims what the environment names: the first thing that a process does, and of use once.
    pub fn claim() -> Passed {
        let Some(mut claim) = Claim::begin() else {
            return Passed { predecessor: Ok(None), activated: Ok(Vec::new()) };
        };
        let predecessor = predecessor(&mut claim);
        Passed { predecessor, activated: manager::sockets(&mut claim) }
    }

    /// Tells the supervisor before, if there is one, why this process can't follow it.
    pub fn report_failure(self, reason: &str) {
        if let Ok(Some(socket)) = self.predecessor {
            upgrade::report_failure(Some(&Control::new(socket)), reason);
        }
    }
}

fn predecessor(claim: &mut Claim) -> io::Result<Option<OwnedFd>> {
    let Some(text) = std::env::var_os(VARIABLE) else {
        return Ok(None);
    };
    let unusable = |error: io::Error| {
        let (variable, text) = (VARIABLE, text.to_string_lossy());
        let remedy = "it is set by an upgrade, for the process that it starts: unset it";
        io::Error::new(error.kind(), format!("{variable} is {text:?}: {error}; {remedy}"))
    };
    let number = text.to_str().and_then(|text| text.parse().ok());
    let number = number.ok_or(io::ErrorKind::InvalidInput).map_err(|kind| unusable(kind.into()))?;
    claim.socket(number, Kind::PacketSocket).map(Some).map_err(unusable)
}
