//! The processes of services: starting one, and what its end means.

use std::time::Instant;

use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;

use super::exec::{self, Line};
use super::journal::{NOTICE, WARNING};
use super::manager::Manager;
use super::output::{Output, outputs};
use super::places::{DIRECTORIES, directory_variable, load_credentials};
use super::service::{Phase, kind};

impl Manager {
    pub(super) fn run(&mut self, name: &str, phase: Phase, line: &Line) -> Result<(), ()> {
        let Some(loaded) = self.units.get_mut(name) else {
            return Err(());
        };
        let unit = loaded.unit.clone();
        let invocation = format!(
            "{:032x}",
            Instant::now().duration_since(self.booted).as_nanos()
        );
        let mut environment = match exec::environment(&unit, &invocation) {
            Ok(environment) => environment,
            Err(text) => {
                self.note(name, WARNING, &format!("{name}: {text}"));
                self.note(
                    name,
                    WARNING,
                    &format!(
                        "{name}: Failed to run '{}' task: No such file or directory",
                        phase_name(phase)
                    ),
                );
                return Err(());
            }
        };
        for (key, base) in DIRECTORIES {
            let paths: Vec<_> = unit
                .names("Service", key)
                .iter()
                .map(|path| format!("{base}/{path}"))
                .collect();
            if !paths.is_empty() {
                environment.insert(directory_variable(key), paths.join(":"));
            }
        }
        match load_credentials(&unit) {
            Ok(Some(folder)) => {
                drop(environment.insert("CREDENTIALS_DIRECTORY".to_owned(), folder))
            }
            Ok(None) => {}
            Err(error) => {
                self.note(
                    name,
                    WARNING,
                    &format!("{name}: Failed to set up credentials: {error}"),
                );
                return Err(());
            }
        }
        let Ok((streams, pipes)) = outputs(&unit) else {
            return Err(());
        };
        match exec::spawn(&unit, line, &environment, streams) {
            Ok(pid) => {
                let identifier = unit.last("Service", "SyslogIdentifier").map(str::to_owned);
                let program = line
                    .words
                    .first()
                    .and_then(|word| word.rsplit('/').next())
                    .unwrap_or_default();
                let identifier = identifier.unwrap_or_else(|| program.to_owned());
                for (pipe, console) in pipes {
                    self.outputs.push(Output {
                        pipe,
                        unit: name.to_owned(),
                        identifier: identifier.clone(),
                        pid,
                        console,
                        prefixes: unit
                            .last("Service", "SyslogLevelPrefix")
                            .is_none_or(|value| !matches!(value, "no" | "false" | "0" | "off")),
                        rest: Vec::new(),
                    });
                }
                self.processes.insert(pid, (name.to_owned(), phase));
                if let Some(loaded) = self.units.get_mut(name) {
                    loaded.service.groups.push(pid);
                    loaded.service.current = Some(line.clone());
                    if phase == Phase::Main {
                        loaded.service.main = Some(pid);
                    }
                }
                Ok(())
            }
            Err(error) => {
                for message in &error.messages {
                    self.note(name, 3, message);
                }
                let status = status_name(error.status);
                self.note(
                    name,
                    NOTICE,
                    &format!(
                        "{name}: {} process exited, code=exited, status={status}",
                        role(phase)
                    ),
                );
                if let Some(loaded) = self.units.get_mut(name)
                    && phase == Phase::Main
                {
                    loaded.service.status = error.status;
                }
                Err(())
            }
        }
    }

    /// A process has ended; `false` where it is none of a service's.
    pub fn process_ended(&mut self, status: WaitStatus) -> bool {
        let Some((name, phase)) = status
            .pid()
            .and_then(|pid| self.processes.remove(&pid.as_raw()))
        else {
            return false;
        };
        self.drain_outputs(&name);
        let (code, signal) = match status {
            WaitStatus::Exited(_, code) => (code, None),
            WaitStatus::Signaled(_, signal, _) => (0, Some(signal)),
            _ => return true,
        };
        let Some(loaded) = self.units.get_mut(&name) else {
            return true;
        };
        let clean = matches!(
            signal,
            Some(Signal::SIGTERM | Signal::SIGINT | Signal::SIGHUP | Signal::SIGPIPE)
        );
        let accepted = loaded
            .unit
            .names("Service", "SuccessExitStatus")
            .iter()
            .any(|status| *status == code.to_string());
        let daemon = !matches!(kind(&loaded.unit), "oneshot") && phase == Phase::Main;
        let success = match signal {
            None => code == 0 || accepted,
            Some(_) => clean && (daemon || loaded.service.stopping),
        };
        let ignored = loaded
            .service
            .current
            .as_ref()
            .is_some_and(|line| line.ignore_failure);
        if phase == Phase::Main {
            loaded.service.main = None;
            loaded.service.status = signal.map_or(code, |signal| signal as i32);
        }
        if !success {
            let text = match signal {
                None => format!("code=exited, status={}", status_name(code)),
                Some(signal) => format!(
                    "code=killed, status={}/{}",
                    signal as i32,
                    signal.as_str().trim_start_matches("SIG")
                ),
            };
            self.note(
                &name,
                NOTICE,
                &format!("{name}: {} process exited, {text}", role(phase)),
            );
        }
        let result = if signal.is_some() {
            "signal"
        } else {
            "exit-code"
        };
        let timed_out = self.units[&name].result == "timeout";
        match phase {
            Phase::Condition if signal.is_none() && (1..255).contains(&code) => {
                self.rests(&name, "success")
            }
            Phase::Stop | Phase::StopPost => self.advance(&name),
            _ if timed_out => self.service_fails(&name, "timeout"),
            Phase::Main if daemon && kind(&self.units[&name].unit) != "forking" => {
                self.main_ended(
                    &name,
                    if success || ignored {
                        "success"
                    } else {
                        result
                    },
                );
            }
            _ if success || ignored => self.advance(&name),
            _ => self.command_failed(&name, phase, result),
        }
        self.run_jobs();
        true
    }
}

fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Main => "start",
        Phase::StartPre => "start-pre",
        Phase::StartPost => "start-post",
        Phase::Condition => "condition",
        Phase::Stop => "stop",
        Phase::StopPost => "stop-post",
    }
}

fn role(phase: Phase) -> &'static str {
    if phase == Phase::Main {
        "Main"
    } else {
        "Control"
    }
}

/// An exit status as systemd shows it.
fn status_name(status: i32) -> String {
    let name = match status {
        0 => "SUCCESS",
        1 => "FAILURE",
        2 => "INVALIDARGUMENT",
        126 => "n/a",
        200 => "CHDIR",
        203 => "EXEC",
        226 => "NAMESPACE",
        _ => "n/a",
    };
    format!("{status}/{name}")
}
