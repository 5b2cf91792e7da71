//! What is left of a run: figures in files, with what they are figures of.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::Outcome;

/// The commit that the sources are of, or `None` outside of a repository.
pub(crate) fn commit() -> Option<String> {
    let mut git = Command::new("git");
    git.args(["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "HEAD"]);
    let output = git.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().into())
}

/// The command that runs this bench again as it was run.
pub(crate) fn command(bench: &str) -> String {
    let mut command = format!("cargo bench --bench {bench}");
    let mut separator = " -- ";
    for argument in env::args_os().skip(1).filter(|it| it != "--bench") {
        command.push_str(separator);
        command.push_str(&argument.to_string_lossy());
        separator = " ";
    }
    command
}

/// A file for the results: `target/bench/NAME`.
pub(crate) fn file(name: &str) -> PathBuf {
    target_directory().join("bench").join(name)
}

/// Where cargo builds.
pub(crate) fn target_directory() -> &'static Path {
    let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
    temporary.parent().unwrap_or(temporary)
}

/// Writes a file, and the folder that it lies in.
pub(crate) fn write(file: &Path, content: impl AsRef<[u8]>) -> Outcome<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, content).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(())
}
