//! `systemctl`: the options and verbs that host scripts use; the work is done by process 1.

mod enable;
mod show;

use std::io;

pub(super) use enable::enable_package_unit;

use super::err;
use super::out;
use crate::host::systemd::protocol::{JobResult, Outcome, Reply, Request, Verb, ask};
use enable::{disable, enable, is_enabled, mask};
use show::{
    cat, is_active, is_system_running, list_timers, list_unit_files, list_units, show, status,
};

#[derive(Debug, Default)]
struct Options {
    pub now: bool,
    pub quiet: bool,
    pub no_block: bool,
    pub all: bool,
    pub value: bool,
    pub no_legend: bool,
    pub failed: bool,
    pub lines: usize,
    pub properties: Vec<String>,
    pub words: Vec<String>,
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
