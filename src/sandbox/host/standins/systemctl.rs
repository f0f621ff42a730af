//! `systemctl`: the options and verbs that host scripts use; the work is done by process 1.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{err, out};
use crate::sandbox::host::systemd::journal;
use crate::sandbox::host::systemd::protocol::{
    JobResult, Outcome, Reply, Request, UnitView, Verb, ask,
};
use crate::sandbox::host::systemd::span;
use crate::sandbox::host::systemd::unit::{LoadError, Unit};

const ENABLED: &str = "/etc/systemd/system";

#[derive(Debug, Default)]
struct Options {
    now: bool,
    quiet: bool,
    no_block: bool,
    all: bool,
    value: bool,
    no_legend: bool,
    failed: bool,
    lines: usize,
    properties: Vec<String>,
    words: Vec<String>,
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options {
        lines: 10,
        ..Options::default()
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let (name, inline) = argument
            .split_once('=')
            .map_or((argument.as_str(), None), |(name, value)| {
                (name, Some(value.to_owned()))
            });
        let mut value = || {
            inline
                .clone()
                .or_else(|| arguments.next().cloned())
                .unwrap_or_default()
        };
        match name {
            "--now" => options.now = true,
            "-q" | "--quiet" => options.quiet = true,
            "--no-block" => options.no_block = true,
            "-a" | "--all" => options.all = true,
            "--value" => options.value = true,
            "--no-legend" | "--legend" => options.no_legend = true,
            "--failed" => options.failed = true,
            "-n" | "--lines" => options.lines = value().parse().unwrap_or(10),
            "-p" | "-P" | "--property" => {
                options.value |= name == "-P";
                options
                    .properties
                    .extend(value().split(',').map(str::to_owned));
            }
            "-t" | "--type" | "--state" | "-o" | "--output" => drop(value()),
            "--no-pager" | "-l" | "--full" | "--system" | "-f" | "--force"
            | "--no-ask-password" | "--plain" | "--no-reload" | "--no-wall" | "--wait"
            | "--runtime" => {}
            "--version" => options.words.insert(0, "--version".to_owned()),
            _ if name.starts_with("--") => {
                return Err(format!("systemctl: unrecognized option '{name}'"));
            }
            _ if name.starts_with('-') => {
                return Err(format!(
                    "systemctl: invalid option -- '{}'",
                    name.trim_start_matches('-')
                ));
            }
            _ => options.words.push(argument.clone()),
        }
    }
    Ok(options)
}

/// A unit name without a type is a service's.
fn full_name(name: &str) -> String {
    let types = [
        ".service", ".timer", ".target", ".socket", ".path", ".mount", ".slice",
    ];
    let name = name.rsplit('/').next().unwrap_or(name);
    if types.iter().any(|kind| name.ends_with(kind)) {
        name.to_owned()
    } else {
        format!("{name}.service")
    }
}

/// Runs `systemctl`.
pub(super) fn run(arguments: &[String]) -> i32 {
    let options = match parse(arguments) {
        Ok(options) => options,
        Err(text) => {
            err(text);
            return 1;
        }
    };
    let verb = options.words.first().map_or("list-units", String::as_str);
    let units: Vec<_> = options
        .words
        .iter()
        .skip(1)
        .map(|name| full_name(name))
        .collect();
    let needs_units = matches!(
        verb,
        "start"
            | "stop"
            | "restart"
            | "try-restart"
            | "reload-or-restart"
            | "reload"
            | "enable"
            | "disable"
            | "is-active"
            | "is-enabled"
            | "is-failed"
            | "cat"
            | "mask"
            | "unmask"
    );
    if needs_units && units.is_empty() {
        err("Too few arguments.");
        return 1;
    }
    let done = match verb {
        "daemon-reload" | "daemon-reexec" => reload(),
        "start" => job(&options, Verb::Start, "start", units),
        "stop" => job(&options, Verb::Stop, "stop", units),
        "restart" | "reload-or-restart" => job(&options, Verb::Restart, "restart", units),
        "try-restart" | "condrestart" => job(&options, Verb::TryRestart, "restart", units),
        "reload" => {
            for unit in &units {
                err(format!(
                    "Failed to reload {unit}: Job type reload is not applicable for unit {unit}."
                ));
            }
            Ok(1)
        }
        "enable" | "reenable" => enable(&options, units),
        "disable" => disable(&options, units),
        "mask" | "unmask" => mask(verb == "mask", &units),
        "is-enabled" => is_enabled(&options, &units),
        "is-active" | "is-failed" => is_active(&options, verb == "is-failed", units),
        "is-system-running" => is_system_running(&options),
        "reset-failed" => match ask(&Request::ResetFailed(units)) {
            Ok(_) => Ok(0),
            Err(error) => Err(error),
        },
        "status" => status(&options, units),
        "show" => show(&options, units),
        "cat" => cat(&units),
        "list-timers" => list_timers(&options),
        "list-units" => list_units(&options),
        "list-unit-files" => Ok(list_unit_files(&units)),
        "get-default" => {
            out("graphical.target");
            Ok(0)
        }
        "--version" => {
            out("systemd 249 (249.11-0ubuntu3.16)");
            Ok(0)
        }
        other => {
            err(format!("Unknown command verb {other}."));
            return 1;
        }
    };
    done.unwrap_or_else(|error| {
        let text = error.to_string();
        err(format!(
            "Failed to connect to bus: {}",
            text.split(" (os error").next().unwrap_or_default()
        ));
        1
    })
}

fn reload() -> io::Result<i32> {
    Ok(match ask(&Request::Reload)? {
        Reply::Refused(text) => {
            err(text);
            1
        }
        _ => 0,
    })
}

fn job(options: &Options, verb: Verb, word: &str, units: Vec<String>) -> io::Result<i32> {
    if let Reply::Units(views) = ask(&Request::Units(units.clone()))? {
        for view in views
            .iter()
            .filter(|view| view.need_reload && !options.quiet)
        {
            err(format!(
                "Warning: The unit file, source configuration file or drop-ins of {} changed on disk. Run 'systemctl daemon-reload' to reload units.",
                view.id
            ));
        }
    }
    let request = Request::Job {
        verb,
        units,
        no_block: options.no_block,
    };
    if options.no_block {
        // Nothing comes back, as with the real one.
        let _ = ask(&request);
        return Ok(0);
    }
    let Reply::Jobs(results) = ask(&request)? else {
        return Ok(1);
    };
    let mut code = 0;
    for JobResult { unit, outcome } in results {
        let text = match outcome {
            Outcome::Done => continue,
            Outcome::Refused(text) => {
                code = if text.ends_with("not found.") || text.ends_with("not loaded.") {
                    5
                } else {
                    1
                };
                let advice = if text.contains("bad unit file setting") {
                    format!("\nSee system logs and 'systemctl status {unit}' for details.")
                } else {
                    String::new()
                };
                err(format!("Failed to {word} {unit}: {text}{advice}"));
                continue;
            }
            Outcome::Dependency => {
                code = 1;
                err(format!(
                    "A dependency job for {unit} failed. See 'journalctl -xe' for details."
                ));
                continue;
            }
            Outcome::Failed(result) => match result.as_str() {
                "exit-code" => "the control process exited with error code",
                "timeout" => "a timeout was exceeded",
                "signal" => "a fatal signal was delivered to the control process",
                "start-limit-hit" => "start of the service was attempted too often",
                "resources" => "of unavailable resources or another system error",
                "assert" => {
                    code = 1;
                    err(format!("Assertion failed on job for {unit}."));
                    continue;
                }
                _ => "the service did not take the steps required by its unit configuration",
            },
        };
        code = 1;
        if !options.quiet {
            let because = if text.starts_with("start of") {
                ""
            } else {
                "because "
            };
            err(format!("Job for {unit} failed {because}{text}."));
            err(format!(
                "See \"systemctl status {unit}\" and \"journalctl -xeu {unit}\" for details."
            ));
        }
    }
    Ok(code)
}

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

fn enable(options: &Options, names: Vec<String>) -> io::Result<i32> {
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

fn disable(options: &Options, names: Vec<String>) -> io::Result<i32> {
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

fn mask(mask: bool, names: &[String]) -> io::Result<i32> {
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
pub(super) fn enable_package_unit(name: &str) {
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

fn file_state(name: &str) -> Option<&'static str> {
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

fn is_enabled(options: &Options, names: &[String]) -> io::Result<i32> {
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

fn views(names: Vec<String>) -> io::Result<Vec<UnitView>> {
    match ask(&Request::Units(names))? {
        Reply::Units(views) => Ok(views),
        _ => Ok(Vec::new()),
    }
}

fn is_active(options: &Options, failed: bool, names: Vec<String>) -> io::Result<i32> {
    let mut code = if failed { 1 } else { 3 };
    for view in views(names)? {
        if !options.quiet {
            out(&view.active);
        }
        let wanted = if failed { "failed" } else { "active" };
        if view.active == wanted {
            code = 0;
        }
    }
    Ok(code)
}

fn is_system_running(options: &Options) -> io::Result<i32> {
    let Reply::SystemState(state) = ask(&Request::SystemState)? else {
        return Ok(1);
    };
    if !options.quiet {
        out(&state);
    }
    Ok(i32::from(state != "running"))
}

fn time(time: Option<Timestamp>) -> String {
    time.map_or_else(
        || "n/a".to_owned(),
        |time| {
            time.to_zoned_datetime(TimeZone::UTC)
                .strftime("%a %Y-%m-%d %H:%M:%S UTC")
                .to_string()
        },
    )
}

/// How long ago, or how long until.
fn distance(time: Timestamp) -> String {
    let distance = time.duration_since(Timestamp::now()).unsigned_abs();
    span::show(distance)
}

fn status(options: &Options, names: Vec<String>) -> io::Result<i32> {
    let mut code = 0;
    for view in views(names)? {
        if view.load == "not-found" {
            err(format!("Unit {} could not be found.", view.id));
            return Ok(4);
        }
        let mark = if view.active == "failed" {
            '×'
        } else if view.active == "inactive" {
            '○'
        } else {
            '●'
        };
        out(format!("{mark} {} - {}", view.id, view.description));
        let state = file_state(&view.id).unwrap_or("static");
        let path = view.fragment.clone().unwrap_or_default();
        out(format!(
            "     Loaded: {} ({path}; {state}; vendor preset: enabled)",
            view.load
        ));
        let result = if view.result == "success" {
            String::new()
        } else {
            format!(" (Result: {})", view.result)
        };
        let since = view.since.map_or(String::new(), |since| {
            format!(" since {}; {} ago", time(Some(since)), distance(since))
        });
        out(format!(
            "     Active: {} ({}){result}{since}",
            view.active, view.sub
        ));
        if let Some(next) = view.next_elapse {
            out(format!(
                "    Trigger: {}; {} left",
                time(Some(next)),
                distance(next)
            ));
        }
        if let Some(triggers) = &view.triggers {
            out(format!("   Triggers: ● {triggers}"));
        }
        if view.main_pid != 0 {
            out(format!("   Main PID: {}", view.main_pid));
        }
        let entries = journal::read(Path::new(journal::PATH))?;
        let entries: Vec<_> = entries
            .iter()
            .filter(|entry| entry.unit.as_deref() == Some(&view.id))
            .collect();
        if !entries.is_empty() && options.lines > 0 {
            out("");
        }
        for entry in &entries[entries.len().saturating_sub(options.lines)..] {
            out(super::journalctl::short(entry));
        }
        if view.active != "active" && view.active != "activating" {
            code = 3;
        }
    }
    Ok(code)
}

fn show(options: &Options, names: Vec<String>) -> io::Result<i32> {
    for view in views(names)? {
        let micros = |time: Option<Timestamp>| time.map_or_else(String::new, |_| self::time(time));
        let properties = [
            ("Id", view.id.clone()),
            ("Names", view.id.clone()),
            ("Description", view.description.clone()),
            ("LoadState", view.load.clone()),
            ("ActiveState", view.active.clone()),
            ("SubState", view.sub.clone()),
            ("Result", view.result.clone()),
            (
                "UnitFileState",
                file_state(&view.id).unwrap_or_default().to_owned(),
            ),
            ("FragmentPath", view.fragment.clone().unwrap_or_default()),
            ("DropInPaths", view.drop_ins.join(" ")),
            ("MainPID", view.main_pid.to_string()),
            ("ExecMainStatus", view.status.to_string()),
            (
                "NeedDaemonReload",
                if view.need_reload { "yes" } else { "no" }.to_owned(),
            ),
            ("StateChangeTimestamp", micros(view.since)),
            ("NextElapseUSecRealtime", micros(view.next_elapse)),
            ("LastTriggerUSec", micros(view.last_trigger)),
            ("Triggers", view.triggers.clone().unwrap_or_default()),
        ];
        for (name, value) in properties {
            let wanted = options.properties.is_empty()
                || options.properties.iter().any(|property| property == name);
            if wanted && options.value {
                out(value);
            } else if wanted {
                out(format!("{name}={value}"));
            }
        }
    }
    Ok(0)
}

fn cat(names: &[String]) -> io::Result<i32> {
    for name in names {
        let Some(path) = Unit::load(name)
            .ok()
            .and_then(|unit| unit.path.map(|path| (path, unit.drop_ins)))
        else {
            err(format!("No files found for {name}."));
            return Ok(1);
        };
        for file in std::iter::once(path.0).chain(path.1) {
            out(format!("# {}", file.display()));
            out(fs::read_to_string(file)?);
        }
    }
    Ok(0)
}

fn list_timers(options: &Options) -> io::Result<i32> {
    let mut timers: Vec<_> = views(Vec::new())?
        .into_iter()
        .filter(|view| view.id.ends_with(".timer") && (options.all || view.active == "active"))
        .collect();
    timers.sort_by_key(|view| view.next_elapse.unwrap_or(Timestamp::MAX));
    if !options.no_legend {
        out(
            "NEXT                        LEFT          LAST                        PASSED        UNIT                         ACTIVATES",
        );
    }
    for view in &timers {
        let passed = view
            .last_trigger
            .map_or("n/a".to_owned(), |last| format!("{} ago", distance(last)));
        let left = view
            .next_elapse
            .map_or("n/a".to_owned(), |next| format!("{} left", distance(next)));
        out(format!(
            "{:<27} {left:<13} {:<27} {passed:<13} {:<28} {}",
            time(view.next_elapse),
            time(view.last_trigger),
            view.id,
            view.triggers.clone().unwrap_or_default()
        ));
    }
    if !options.no_legend {
        out(format!("\n{} timers listed.", timers.len()));
    }
    Ok(0)
}

fn list_units(options: &Options) -> io::Result<i32> {
    for view in views(Vec::new())? {
        if !options.failed && (options.all || view.active != "inactive") || view.active == "failed"
        {
            out(format!(
                "  {:<40} {:<10} {:<10} {:<10} {}",
                view.id, view.load, view.active, view.sub, view.description
            ));
        }
    }
    Ok(0)
}

fn list_unit_files(names: &[String]) -> i32 {
    let mut found = false;
    for name in names {
        if let Some(state) = file_state(name) {
            found = true;
            out(format!("{name} {state}"));
        }
    }
    i32::from(!found && !names.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn options_may_stand_anywhere() {
        let options = parse(&words("enable --now -q m8trx-brain-heartbeat.timer --no-pager -p ActiveState,SubState --lines=3")).unwrap();
        assert!(options.now && options.quiet);
        assert_eq!(options.words, ["enable", "m8trx-brain-heartbeat.timer"]);
        assert_eq!(options.properties, ["ActiveState", "SubState"]);
        assert_eq!(options.lines, 3);
        assert_eq!(
            parse(&words("start --frob x")).unwrap_err(),
            "systemctl: unrecognized option '--frob'"
        );
    }

    #[test]
    fn a_name_without_a_type_is_a_service() {
        assert_eq!(full_name("tailscaled"), "tailscaled.service");
        assert_eq!(full_name("a.b"), "a.b.service");
        assert_eq!(full_name("/etc/systemd/system/x.timer"), "x.timer");
    }
}
