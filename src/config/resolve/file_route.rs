//! A route that serves files: from what is written to what is served.

use std::io;
use std::path::Path;

use super::checks::{Wrong, wrong};
use super::raw;
use crate::config::settings::{FileRoute, RoutePath};
use crate::config::value::ByPattern;
use crate::http::is_field_value;

/// The file that answers for a folder if nothing else is said.
const INDEX: &str = "index.html";

/// What the route serves of the folder `root`. What is wrong with its path has been told of where that is none.
pub(super) fn file_route(
    root: &Path,
    raw: &raw::Route,
    path: Option<&RoutePath>,
) -> Result<FileRoute, Wrong> {
    if let Some(RoutePath::Exact(path)) = path {
        let title = format!("`files` is what is below a path, and \"{path}\" is one alone");
        return Err(wrong(title, "write path = \"/files/*\"; body_file answers with one file"));
    }
    check_root(root)?;
    let index = raw.index.as_ref().map_or(vec![INDEX.to_owned()], |index| index.0.clone());
    index.iter().try_for_each(|name| check_name(name, "index", false))?;
    for (key, name) in [("fallback", &raw.fallback), ("not_found", &raw.not_found)] {
        name.iter().try_for_each(|name| check_name(name, key, true))?;
    }
    let cache_control = raw.cache_control.as_ref().map(ByPattern::in_order).unwrap_or_default();
    for (pattern, value) in &cache_control {
        if value.is_empty() || !is_field_value(value) {
            let title = format!("`cache_control` of \"{pattern}\" is not a field value");
            return Err(wrong(title, "such as \"no-cache\" or \"max-age=3600\""));
        }
    }
    Ok(FileRoute {
        root: root.to_owned(),
        symlinks: raw.symlinks.unwrap_or_default(),
        index,
        listing: raw.listing.unwrap_or(false),
        fallback: raw.fallback.clone(),
        not_found: raw.not_found.clone(),
        clean_urls: raw.clean_urls.unwrap_or(false),
        dotfiles: raw.dotfiles.unwrap_or(false),
        precompressed: raw.precompressed.unwrap_or(true),
        cache_control,
    })
}

fn check_root(root: &Path) -> Result<(), Wrong> {
    const HELP: &str = "a relative path starts from the folder of the configuration file";
    let shown = root.display();
    match std::fs::metadata(root) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => {
            let title = format!("{shown} is no folder");
            Err(wrong(title, "`files` names a folder; body_file answers with one file"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(wrong(format!("there is no folder {shown}"), HELP))
        }
        Err(error) => Err(wrong(format!("cannot look at {shown}: {error}"), HELP)),
    }
}

/// A name of a file below the root, or of one in each folder.
fn check_name(name: &str, key: &str, may_be_deep: bool) -> Result<(), Wrong> {
    let is_name = |part: &str| !matches!(part, "" | "." | "..") && !part.contains('\0');
    if name.split('/').all(is_name) && (may_be_deep || !name.contains('/')) {
        return Ok(());
    }
    let title = format!("`{key}` has \"{name}\", which is no file's name");
    let help = match may_be_deep {
        true => "it starts from the folder that is served, without a slash: \"pages/404.html\"",
        false => "it is the name of a file in each folder, such as \"index.html\"",
    };
    Err(wrong(title, help))
}
