//! The arguments that benches have in common.

use std::path::PathBuf;

use clap::Args;

const BUILT: &str = env!("CARGO_BIN_EXE_server");

/// What every bench is told.
#[derive(Args)]
pub(crate) struct Common {
    /// Fewer and shorter rounds: shows that everything works; its figures are rough
    #[arg(long)]
    pub(crate) quick: bool,
    /// The CPU of the client
    #[arg(long, value_name = "CPU", default_value_t = 1)]
    pub(crate) client_cpu: usize,
    /// Given by `cargo bench`, and by nothing that only tests
    #[arg(long, hide = true)]
    bench: bool,
}

impl Common {
    /// Whether `bench` is to measure; says so if it isn't.
    pub(crate) fn measures(&self, bench: &str) -> bool {
        if !self.bench {
            println!("{bench}: measures only under `cargo bench --bench {bench}`");
        }
        self.bench
    }
}

/// Of a bench whose servers have one CPU.
#[derive(Args)]
pub(crate) struct OneCpu {
    /// The CPU of the server under test
    #[arg(long, value_name = "CPU", default_value_t = 0)]
    pub(crate) server_cpu: usize,
}

/// Of a bench of one binary.
#[derive(Args)]
pub(crate) struct OneServer {
    /// A laneway binary instead of the one just built
    #[arg(long, value_name = "PATH", default_value = BUILT)]
    pub(crate) server: PathBuf,
}

/// Of a bench that compares servers, in turns.
#[derive(Args)]
pub(crate) struct Servers {
    /// A laneway binary instead of the one just built; several are compared in one run
    #[arg(long, value_name = "PATH")]
    server: Vec<PathBuf>,
    /// How often every server is measured under every load
    #[arg(long, value_name = "N")]
    pub(crate) rounds: Option<usize>,
}

impl Servers {
    /// The laneway binaries to measure.
    pub(crate) fn binaries(&self) -> Vec<PathBuf> {
        if self.server.is_empty() { vec![BUILT.into()] } else { self.server.clone() }
    }
}
