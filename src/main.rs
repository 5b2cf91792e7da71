//! The binary: reads what is asked for, has it done, and exits with the code that says how it went.

use laneway::cli::{self, Task};
use laneway::{Outcome, Passed, log, panics};

fn main() {
    // First: what is opened here could be taken for what was passed.
    let passed = Passed::claim();
    let (config, options) = match cli::parse() {
        Task::Serve(config, options) => (config, options),
        Task::Done(code) => std::process::exit(code),
        Task::Failed(code, reason) => {
            passed.report_failure(&reason);
            std::process::exit(code)
        }
    };
    panics::install();
    log::start(&config.log, config.colour);
    let code = match laneway::run(*config, *options, passed) {
        Outcome::Exit(code) => code,
        Outcome::Worker(worker) => worker.run(),
        Outcome::Loader(loader) => loader.run(),
        Outcome::Launcher(launcher) => launcher.run(),
    };
    std::process::exit(code);
}
