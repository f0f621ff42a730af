//! What `systemctl` shows about units.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::super::{err, journalctl, out};
use super::Options;
use super::enable::file_state;
use crate::host::systemd::journal;
use crate::host::systemd::protocol::{Reply, Request, UnitView, ask};
use crate::host::systemd::span;
use crate::host::systemd::unit::Unit;

fn views(names: Vec<String>) -> io::Result<Vec<UnitView>> {
    match ask(&Request::Units(names))? {
        Reply::Units(views) => Ok(views),
        _ => Ok(Vec::new()),
    }
}

pub(super) fn is_active(options: &Options, failed: bool, names: Vec<String>) -> io::Result<i32> {
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

pub(super) fn is_system_running(options: &Options) -> io::Result<i32> {
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

pub(super) fn status(options: &Options, names: Vec<String>) -> io::Result<i32> {
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
            out(journalctl::short(entry));
        }
        if view.active != "active" && view.active != "activating" {
            code = 3;
        }
    }
    Ok(code)
}

pub(super) fn show(options: &Options, names: Vec<String>) -> io::Result<i32> {
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

pub(super) fn cat(names: &[String]) -> io::Result<i32> {
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

pub(super) fn list_timers(options: &Options) -> io::Result<i32> {
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

pub(super) fn list_units(options: &Options) -> io::Result<i32> {
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

pub(super) fn list_unit_files(names: &[String]) -> i32 {
    let mut found = false;
    for name in names {
        if let Some(state) = file_state(name) {
            found = true;
            out(format!("{name} {state}"));
        }
    }
    i32::from(!found && !names.is_empty())
}
