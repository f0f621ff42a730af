//! `apt-get`, `apt` and `apt-cache`: the archive is a table, the checks and the texts are apt's.

mod options;

use std::fs;
use std::io::IsTerminal;
use std::path::Path;
use std::time::Duration;

use super::packages::{self, Package, Source};
use super::{Marker, err, out};
use crate::host::AptFault;
use options::{Options, parse};

const LISTS: &str = "/var/lib/apt/lists";
const MIRROR: &str = "archive.ubuntu.com";
/// apt's exit code for every failure.
const FAILED: i32 = 100;

/// A wait for the lock that the script asks for is cut to this: nothing in the sandbox will ever release it.
const LONGEST_LOCK_WAIT: Duration = Duration::from_secs(3);

/// Runs `apt-get` or `apt`.
pub(super) fn run(program: &str, arguments: &[String]) -> i32 {
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(text) => {
            err(text);
            return FAILED;
        }
    };
    if program == "apt" && !std::io::stdout().is_terminal() {
        err("\nWARNING: apt does not have a stable CLI interface. Use with caution in scripts.\n");
    }
    let fault = Marker::read().ok().and_then(|marker| marker.conditions.apt);
    let words: Vec<_> = options.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["update"] => update(&options, fault.as_ref()),
        ["install" | "reinstall", names @ ..] => install(&options, names, fault.as_ref()),
        ["upgrade" | "dist-upgrade" | "full-upgrade" | "autoremove"] => {
            if let Some(code) = lock(&options, fault.as_ref()) {
                return code;
            }
            reading(&options);
            out("0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.");
            0
        }
        ["clean" | "autoclean" | "check"] => 0,
        ["remove" | "purge", ..] => {
            err("E: The sandbox's host does not remove packages.");
            FAILED
        }
        [] => {
            out("apt 2.4.13 (amd64)\nUsage: apt-get [options] command");
            1
        }
        [other, ..] => {
            err(format!("E: Invalid operation {other}"));
            FAILED
        }
    }
}

/// Fails where the lock is held by another process.
fn lock(options: &Options, fault: Option<&AptFault>) -> Option<i32> {
    if fault != Some(&AptFault::LockHeld) {
        return None;
    }
    let holder = "/var/lib/dpkg/lock-frontend. It is held by process 1187 (unattended-upgr)";
    if options.lock_timeout != 0 {
        let asked = u64::try_from(options.lock_timeout).unwrap_or(u64::MAX);
        let wait = LONGEST_LOCK_WAIT.min(Duration::from_secs(asked));
        for _ in 0..wait.as_secs() {
            err(format!(
                "Waiting for cache lock: Could not get lock {holder}..."
            ));
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    err(format!("E: Could not get lock {holder}"));
    err("N: Be aware that removing the lock file is not a solution and may break your system.");
    err(
        "E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process using it?",
    );
    Some(FAILED)
}

fn reading(options: &Options) {
    if options.quiet < 2 {
        out("Reading package lists...\nBuilding dependency tree...\nReading state information...");
    }
}

/// Repositories beside Ubuntu's own.
fn has_tailscale_source() -> bool {
    let folder = fs::read_dir("/etc/apt/sources.list.d")
        .into_iter()
        .flatten()
        .flatten();
    let mut texts = folder.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    texts.any(|text| {
        text.lines()
            .any(|line| !line.trim_start().starts_with('#') && line.contains("pkgs.tailscale.com"))
    })
}

fn update(options: &Options, fault: Option<&AptFault>) -> i32 {
    if fault == Some(&AptFault::MirrorDown) {
        for (index, suite) in ["jammy", "jammy-updates", "jammy-security"]
            .iter()
            .enumerate()
        {
            out(format!(
                "Ign:{} http://{MIRROR}/ubuntu {suite} InRelease",
                index + 1
            ));
        }
        let refused = "503  Service Unavailable [IP: 185.125.190.36 80]";
        let mut failures = Vec::new();
        for (index, suite) in ["jammy", "jammy-updates", "jammy-security"]
            .iter()
            .enumerate()
        {
            out(format!(
                "Err:{} http://{MIRROR}/ubuntu {suite} InRelease\n  {refused}",
                index + 4
            ));
            failures.push(format!(
                "Failed to fetch http://{MIRROR}/ubuntu/dists/{suite}/InRelease  {refused}"
            ));
        }
        out("Reading package lists...");
        // By default apt only warns, and its exit code is 0.
        let letter = if options.strict_update { 'E' } else { 'W' };
        for failure in failures {
            err(format!("{letter}: {failure}"));
        }
        err(format!(
            "{letter}: Some index files failed to download. They have been ignored, or old ones used instead."
        ));
        return if options.strict_update { FAILED } else { 0 };
    }
    if options.quiet < 2 {
        for (index, suite) in ["jammy", "jammy-updates", "jammy-security"]
            .iter()
            .enumerate()
        {
            out(format!(
                "Get:{} http://{MIRROR}/ubuntu {suite} InRelease [270 kB]",
                index + 1
            ));
        }
        if has_tailscale_source() {
            out("Get:4 https://pkgs.tailscale.com/stable/ubuntu jammy InRelease");
        }
        out("Reading package lists...");
    }
    let fetched = |name: &str| fs::write(Path::new(LISTS).join(name), "");
    let done = fetched("archive").and_then(|()| {
        if has_tailscale_source() {
            fetched("tailscale")
        } else {
            Ok(())
        }
    });
    match done {
        Ok(()) => 0,
        Err(error) => {
            err(format!(
                "E: List directory {LISTS} is not writable: {error}"
            ));
            FAILED
        }
    }
}

/// The package, where the lists that were fetched have it.
fn locate(name: &str, fault: Option<&AptFault>) -> Option<&'static Package> {
    if fault == Some(&AptFault::PackageMissing(name.to_owned())) {
        return None;
    }
    let package = packages::find(name)?;
    let fetched = |list: &str| Path::new(LISTS).join(list).exists();
    let there = match package.source {
        Source::Image => true,
        Source::Archive => fetched("archive"),
        Source::Tailscale => fetched("tailscale"),
    };
    there.then_some(package)
}

fn install(options: &Options, names: &[&str], fault: Option<&AptFault>) -> i32 {
    if let Some(code) = lock(options, fault) {
        return code;
    }
    reading(options);
    let mut wanted = Vec::new();
    let mut missing = false;
    for asked in names {
        let name = asked.split(['=', '/', ':']).next().unwrap_or_default();
        match locate(name, fault) {
            Some(package) if packages::installed(name).is_some() => {
                if options.quiet < 2 {
                    out(format!(
                        "{name} is already the newest version ({}).",
                        package.version
                    ));
                }
            }
            Some(package) if !wanted.iter().any(|other: &&Package| other.name == name) => {
                wanted.push(package)
            }
            Some(_) => {}
            None => {
                err(format!("E: Unable to locate package {name}"));
                missing = true;
            }
        }
    }
    if missing {
        return FAILED;
    }
    let count = wanted.len();
    if count > 0 && options.quiet < 2 {
        let list: Vec<_> = wanted.iter().map(|package| package.name).collect();
        out(format!(
            "The following NEW packages will be installed:\n  {}",
            list.join(" ")
        ));
    }
    if count == 0 || options.quiet < 2 {
        out(format!(
            "0 upgraded, {count} newly installed, 0 to remove and 0 not upgraded."
        ));
    }
    if count == 0 || options.simulate {
        return 0;
    }
    if options.quiet < 2 {
        let kilobytes = wanted.iter().map(|package| package.size).sum::<u64>() / 1000;
        out(format!("Need to get {kilobytes} kB of archives."));
    }
    // Without a terminal nobody can answer: apt reads the end of the file and aborts.
    if !options.yes && options.quiet < 2 {
        out("Do you want to continue? [Y/n] Abort.");
        return 1;
    }
    if fault == Some(&AptFault::MirrorDown) {
        for package in &wanted {
            err(format!(
                "E: Failed to fetch http://{MIRROR}/ubuntu/pool/{}  503  Service Unavailable [IP: 185.125.190.36 80]",
                package.name
            ));
        }
        err(
            "E: Unable to fetch some archives, maybe run apt-get update or try with --fix-missing?",
        );
        return FAILED;
    }
    if options.download_only {
        return 0;
    }
    if std::env::var("DEBIAN_FRONTEND").as_deref() != Ok("noninteractive") {
        err(
            "debconf: unable to initialize frontend: Dialog\ndebconf: (TERM is not set, so the dialog frontend is not usable.)\ndebconf: falling back to frontend: Readline",
        );
    }
    for package in wanted {
        if options.quiet < 2 {
            out(format!(
                "Unpacking {} ({}) ...",
                package.name, package.version
            ));
        }
        if let Err(error) = packages::install(package) {
            err(format!(
                "dpkg: error processing archive {}_{}.deb (--unpack):\n {error}",
                package.name, package.version
            ));
            err("E: Sub-process /usr/bin/dpkg returned an error code (1)");
            return FAILED;
        }
        if options.quiet < 2 {
            out(format!(
                "Setting up {} ({}) ...",
                package.name, package.version
            ));
        }
    }
    0
}

/// Runs `apt-cache`: `policy` and `show`, which scripts use to see whether a package exists.
pub(super) fn cache(arguments: &[String]) -> i32 {
    let fault = Marker::read().ok().and_then(|marker| marker.conditions.apt);
    let words: Vec<_> = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .map(String::as_str)
        .collect();
    match words.as_slice() {
        ["policy", names @ ..] => {
            for name in names {
                if let Some(package) = locate(name, fault.as_ref()) {
                    let installed =
                        packages::installed(name).unwrap_or_else(|| "(none)".to_owned());
                    out(format!(
                        "{name}:\n  Installed: {installed}\n  Candidate: {}",
                        package.version
                    ));
                }
            }
            0
        }
        ["show" | "showpkg", names @ ..] => {
            let mut code = 0;
            for name in names {
                match locate(name, fault.as_ref()) {
                    Some(package) => {
                        out(format!("Package: {name}\nVersion: {}\n", package.version))
                    }
                    None => {
                        err("N: Unable to locate package ".to_owned() + name);
                        err("E: No packages found");
                        code = FAILED;
                    }
                }
            }
            code
        }
        _ => {
            err("E: The sandbox's apt-cache knows only policy and show.");
            FAILED
        }
    }
}
