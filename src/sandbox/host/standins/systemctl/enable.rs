//! Enabling: the links in the `.wants` folders, which `systemctl` makes itself.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::super::{err, out};
use super::{Options, job};
use crate::host::systemd::protocol::{Request, Verb, ask};
use crate::host::systemd::unit::{LoadError, Unit};

const ENABLED: &str = "/etc/systemd/system";

/// The links that enabling a unit makes: link → the unit's file.
fn links(unit: &Unit) -> Vec<PathBuf> {
    let folder = Path::new(ENABLED);
    let wanted = unit
        .names("Install", "WantedBy")
        .into_iter()
        .map(|target| folder.join(format!("{target}.wants")).join(&unit.name));
    let required = unit
        .names("Install", "RequiredBy")
        .into_iter()
        .map(|target| folder.join(format!("{target}.requires")).join(&unit.name));
    let aliases = unit
        .names("Install", "Alias")
        .into_iter()
        .map(|alias| folder.join(alias));
    wanted.chain(required).chain(aliases).collect()
}

fn load(name: &str, word: &str) -> Option<Unit> {
    match Unit::load(name) {
        Ok(unit) => Some(unit),
        Err(LoadError::NotFound) => {
            err(format!(
                "Failed to {word} unit: Unit file {name} does not exist."
            ));
            None
        }
        Err(LoadError::Masked) => {
            err(format!(
                "Failed to {word} unit: Unit file {ENABLED}/{name} is masked."
            ));
            None
        }
    }
}

fn make_links(unit: &Unit, quiet: bool) -> io::Result<()> {
    let Some(file) = &unit.path else {
        return Ok(());
    };
    for link in links(unit) {
        if fs::read_link(&link).is_ok_and(|target| target == *file) {
            continue;
        }
        if let Some(folder) = link.parent() {
            fs::create_dir_all(folder)?;
        }
        let _ = fs::remove_file(&link);
        symlink(file, &link)?;
        if !quiet {
            err(format!(
                "Created symlink {} → {}.",
                link.display(),
                file.display()
            ));
        }
    }
    Ok(())
}

pub(super) fn enable(options: &Options, names: Vec<String>) -> io::Result<i32> {
    for name in &names {
        let Some(unit) = load(name, "enable") else {
            return Ok(1);
        };
        if unit.path.is_some()
            && links(&unit).is_empty()
            && unit.names("Install", "Also").is_empty()
            && !options.quiet
        {
            err(
                "The unit files have no installation config (WantedBy=, RequiredBy=, Also=,\nAlias= settings in the [Install] section, and DefaultInstance= for template\nunits). This means they are not meant to be enabled using systemctl.",
            );
        }
        make_links(&unit, options.quiet)?;
        for also in unit.names("Install", "Also") {
            let Some(unit) = load(&also, "enable") else {
                return Ok(1);
            };
            make_links(&unit, options.quiet)?;
        }
    }
    if options.now {
        job(options, Verb::Start, "start", names)
    } else {
        Ok(0)
    }
}

pub(super) fn disable(options: &Options, names: Vec<String>) -> io::Result<i32> {
    for name in &names {
        let Some(unit) = load(name, "disable") else {
            return Ok(1);
        };
        for link in links(&unit) {
            if fs::remove_file(&link).is_ok() && !options.quiet {
                err(format!("Removed {}.", link.display()));
            }
        }
    }
    if options.now {
        job(options, Verb::Stop, "stop", names)
    } else {
        Ok(0)
    }
}

pub(super) fn mask(mask: bool, names: &[String]) -> io::Result<i32> {
    for name in names {
        let link = Path::new(ENABLED).join(name);
        if mask {
            if link.exists() && !link.is_symlink() {
                err(format!(
                    "Failed to mask unit: File {} already exists.",
                    link.display()
                ));
                return Ok(1);
            }
            let _ = fs::remove_file(&link);
            symlink("/dev/null", &link)?;
            err(format!("Created symlink {} → /dev/null.", link.display()));
        } else if fs::read_link(&link).is_ok_and(|target| target == Path::new("/dev/null")) {
            fs::remove_file(&link)?;
            err(format!("Removed {}.", link.display()));
        }
    }
    Ok(0)
}

/// Enables and starts the service of a package, as its maintainer script does.
pub(in crate::host::standins) fn enable_package_unit(name: &str) {
    if let Ok(unit) = Unit::load(name) {
        // A package is installed even where its service does not start; `systemctl status` shows it.
        let _ = make_links(&unit, true);
        let _ = ask(&Request::Job {
            verb: Verb::Start,
            units: vec![name.to_owned()],
            no_block: false,
        });
    }
}

pub(super) fn file_state(name: &str) -> Option<&'static str> {
    match Unit::load(name) {
        Ok(unit) if unit.path.is_none() => Some("static"),
        Ok(unit) => {
            let links = links(&unit);
            Some(if links.is_empty() {
                "static"
            } else if links.iter().any(|link| link.is_symlink()) {
                "enabled"
            } else {
                "disabled"
            })
        }
        Err(LoadError::Masked) => Some("masked"),
        Err(LoadError::NotFound) => None,
    }
}

pub(super) fn is_enabled(options: &Options, names: &[String]) -> io::Result<i32> {
    let mut code = 1;
    for name in names {
        match file_state(name) {
            Some(state) => {
                if !options.quiet {
                    out(state);
                }
                if matches!(state, "enabled" | "static") {
                    code = 0;
                }
            }
            None => err(format!(
                "Failed to get unit file state for {name}: No such file or directory"
            )),
        }
    }
    Ok(code)
}
