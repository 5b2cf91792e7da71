//! What the supervisor tells the admin worker when it is asked: the server at one moment. It says nothing of how it is shown.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};

use serde::{Deserialize, Serialize};

use crate::observe::metrics::Facts;
use crate::sys::memory;

/// Longest snapshot that is read, in bytes: some times what as many lanes as there can be come to.
const BYTES_MAX: u64 = 64 << 20;

/// The server at one moment, as far as it was asked for: how it is costs little, and all else grows with the lanes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// How it is.
    pub health: Health,
    /// Its status, as JSON, as `server status --json` prints it; none while no generation serves, too.
    pub status: Option<String>,
    /// What a page of metrics is made of.
    pub metrics: Option<Facts>,
}

/// How the server is, in a few words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)] // `server healthcheck` may ask a server of another version.
pub struct Health {
    /// How many lanes there are.
    pub lanes: usize,
    /// How many of them are ready, and can accept.
    pub lanes_ready: usize,
    /// The addresses that it serves.
    pub addresses: Vec<AddressHealth>,
    /// Why no lane works, if none does.
    pub dead: Option<String>,
    /// Why it should get no requests, if it shouldn't.
    pub unready: Option<String>,
    /// What of it isn't as it should be.
    pub degraded: Vec<String>,
    /// What is about to change, which is no fault.
    pub change: Option<String>,
}

/// How one of its addresses is served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressHealth {
    /// Where it listens.
    pub address: String,
    /// How many lanes that have a socket there are ready, and can accept.
    pub lanes_ready: usize,
}

impl Snapshot {
    /// Puts it into a file in memory.
    pub fn write(&self) -> io::Result<File> {
        let mut file = BufWriter::new(memory::file("laneway snapshot")?);
        serde_json::to_writer(&mut file, self)?;
        file.flush()?;
        file.into_inner().map_err(io::IntoInnerError::into_error)
    }

    /// Takes it out again.
    pub fn read(mut file: File) -> io::Result<Snapshot> {
        file.rewind()?;
        let mut bytes = Vec::new();
        file.take(BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_what_is_read_however_long_it_is() {
        let status = Some("é\"\n".repeat(1 << 20));
        let health = Health { degraded: vec!["lane 1 is hung".into()], ..Health::default() };
        let metrics = Some(Facts { generation: 7, ..Facts::default() });
        let snapshot =
            Snapshot { status: status.clone(), health: health.clone(), metrics: metrics.clone() };
        let file = snapshot.write().unwrap();
        let read = Snapshot::read(file).unwrap();
        assert_eq!((read.status, read.health, read.metrics), (status, health, metrics));
    }

    #[test]
    fn what_is_cut_short_is_an_error() {
        let file = Snapshot::default().write().unwrap();
        file.set_len(file.metadata().unwrap().len() - 1).unwrap();
        assert!(Snapshot::read(file).is_err());
    }
}
