//! What the supervisor knows of a generation: its configuration, and how its workers are to be started. It starts none.

use crate::control::GenerationNumber;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::sizing::Size;
use crate::supervisor::listeners::{Accesses, RequestedAddress};
use crate::sys::process::Identity;
use crate::worker::Generation;

/// A generation whose workers can be started: everything that exists before its first fork.
#[derive(Clone)]
pub(crate) struct PreparedGeneration {
    pub(crate) generation: Generation,
    /// The addresses that it serves, as they were asked for.
    pub(crate) addresses: Vec<RequestedAddress>,
    /// Its admin addresses, as they were asked for.
    pub(crate) admin_addresses: Vec<RequestedAddress>,
    /// How its lanes came to be so many.
    pub(crate) size: Size,
    /// The CPUs that its lanes are pinned to in turn; none if they are not pinned.
    pub(crate) cpus: Vec<usize>,
    /// The user and group that its workers run as, if not the supervisor's.
    pub(crate) identity: Option<Identity>,
    /// Whose its Unix sockets are.
    pub(crate) accesses: Accesses,
}

impl PreparedGeneration {
    /// The CPU that a lane is pinned to.
    pub(super) fn cpu_of(&self, lane: usize) -> Option<usize> {
        self.cpus.get(lane % self.cpus.len().max(1)).copied()
    }
}

/// The generations, by their numbers, until they are forgotten.
#[derive(Default)]
pub(crate) struct Generations(BTreeMap<GenerationNumber, PreparedGeneration>);

impl Generations {
    /// Makes a generation known.
    pub(crate) fn add(&mut self, prepared: PreparedGeneration) {
        self.0.insert(prepared.generation.number, prepared);
    }

    /// Makes a generation known that is the same as generation `of` but for its number.
    pub(crate) fn renew(&mut self, number: GenerationNumber, of: GenerationNumber) {
        if let Some(prepared) = self.0.get(&of) {
            let mut generation = Generation { number, ..prepared.generation.clone() };
            if let Some(rings) = &prepared.generation.access_log {
                // A ring has one reader: each generation's writer has rings of its own.
                let rings = rings.another().inspect_err(|error| {
                    tracing::error!(generation = number.0, reason = %error, "access log failed");
                });
                generation.access_log = rings.ok().map(Arc::new);
            }
            self.add(PreparedGeneration { generation, ..prepared.clone() });
        }
    }

    pub(super) fn forget(&mut self, number: GenerationNumber) {
        self.0.remove(&number);
    }

    pub(crate) fn get(&self, number: GenerationNumber) -> Option<&PreparedGeneration> {
        self.0.get(&number)
    }

    pub(crate) fn get_mut(&mut self, number: GenerationNumber) -> Option<&mut PreparedGeneration> {
        self.0.get_mut(&number)
    }

    /// The admin addresses of this generation and of all that came after it, as they were asked for.
    pub(crate) fn admin_addresses_from(&self, number: GenerationNumber) -> Vec<RequestedAddress> {
        self.0.range(number..).flat_map(|(_, prepared)| prepared.admin_addresses.clone()).collect()
    }

    /// The addresses of this generation and of all that came after it, as they were asked for.
    pub(crate) fn addresses_from(&self, number: GenerationNumber) -> Vec<RequestedAddress> {
        self.0.range(number..).flat_map(|(_, prepared)| prepared.addresses.clone()).collect()
    }
}
