//! Programs of others that judge what the server says.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{skip_without, skipped};

/// What `program` says of `input`, which it reads from its standard input: an error has all that it wrote. It may not
/// write more than fits into a pipe before it has read everything.
pub(crate) fn checked_by(program: &mut Command, input: &[u8]) -> Result<String, String> {
    let piped = program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("start the program");
    // One that finds something wrong may end before it has read everything.
    let _ = child.stdin.take().expect("its standard input").write_all(input);
    let output = child.wait_with_output().expect("its output");
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    if output.status.success() { Ok(told) } else { Err(told) }
}

/// A program that `.ci/run` installs from PyPI, or that is on the path. None, with a visible reason, without it.
pub(crate) fn installed(program: &str) -> Option<PathBuf> {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/python/bin").join(program);
    match ours.is_file() {
        true => Some(ours),
        false => (!skip_without(program)).then(|| program.into()),
    }
}

/// A Python that has `module`. None, with a visible reason, without it.
pub(crate) fn python_with(module: &str) -> Option<PathBuf> {
    let python = installed("python")?;
    let import = format!("import {module}");
    let run = Command::new(&python).args(["-c", &import]).stderr(Stdio::null()).status();
    if !run.is_ok_and(|status| status.success()) {
        skipped(format_args!("no Python has `{module}` (.ci/run installs it)"));
        return None;
    }
    Some(python)
}
