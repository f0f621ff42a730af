//! `m8trx runs`

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use comfy_table::{ContentArrangement, Table, presets};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::onboarding::stdout_failed;
use crate::plan::journal::{self, KEPT, Recorded};
use crate::plan::{Event, RunEnd};
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{Terminal, progress, text};

/// The longest line of a run that is shown whole.
const LONGEST: usize = 2000;

/// List the runs that changed something or waited for something, the newest first; or show one as it went.
///
/// They are read from the journals in ~/.local/state/m8trx/runs, of which the newest 200 are kept.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct RunsArgs {
    #[command(subcommand)]
    command: Option<RunsCommand>,
    /// Only runs about this customer.
    #[arg(value_name = "CUSTOMER")]
    customer: Option<String>,
    /// The most runs that are listed.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 20)]
    limit: usize,
}

#[derive(Debug, Subcommand)]
enum RunsCommand {
    /// Show a run as it went, line by line.
    Show {
        /// Its number in the list, 1 for the newest; or the beginning of its id.
        #[arg(value_name = "RUN")]
        run: String,
    },
}

/// A run as its journal has it.
#[derive(Debug, Serialize)]
struct Run {
    number: usize,
    id: String,
    command: String,
    customer: String,
    account: String,
    region: String,
    started: Timestamp,
    /// `done`, `failed`, `interrupted`; `null` where it was killed, or is still going on.
    end: Option<RunEnd>,
    elapsed_ms: Option<u64>,
    #[serde(skip)]
    path: PathBuf,
}

impl Run {
    /// `None` where the journal holds no beginning of a run.
    fn of(number: usize, path: &Path, lines: &[Recorded]) -> Option<Self> {
        let first = lines.first()?;
        let Event::RunStarted {
            command,
            customer,
            account,
            region,
            ..
        } = &first.event
        else {
            return None;
        };
        let end = lines.iter().rev().find_map(|line| match &line.event {
            Event::RunFinished { end, elapsed_ms } => Some((*end, *elapsed_ms)),
            _ => None,
        });
        Some(Self {
            number,
            id: path.file_stem()?.to_string_lossy().into_owned(),
            command: command.clone(),
            customer: customer.clone(),
            account: account.clone(),
            region: region.clone(),
            started: first.ts,
            end: end.map(|(end, _)| end),
            elapsed_ms: end.map(|(_, elapsed)| elapsed),
            path: path.to_owned(),
        })
    }

    fn end(&self) -> String {
        let word = match self.end {
            Some(RunEnd::Done) => "done",
            Some(RunEnd::Failed) => "failed",
            Some(RunEnd::Interrupted) => "interrupted",
            None => return "no end: killed, or still going on".to_owned(),
        };
        match self.elapsed_ms {
            Some(elapsed) => format!(
                "{word} after {}",
                text::duration(Duration::from_millis(elapsed))
            ),
            None => word.to_owned(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Runs {
    schema: &'static str,
    directory: String,
    runs: Vec<Run>,
    #[serde(skip)]
    now: Timestamp,
}

impl fmt::Display for Runs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.runs.is_empty() {
            return write!(f, "No run is recorded in {}.", self.directory);
        }
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header([
                "RUN", "STARTED", "COMMAND", "CUSTOMER", "ACCOUNT", "REGION", "END",
            ]);
        for run in &self.runs {
            table.add_row([
                run.number.to_string(),
                text::ago(run.started, self.now),
                run.command.clone(),
                run.customer.clone(),
                run.account.clone(),
                run.region.clone(),
                run.end(),
            ]);
        }
        let lines: Vec<String> = table.lines().map(|line| line.trim().to_owned()).collect();
        write!(f, "{}\nOne as it went: m8trx runs show 1", lines.join("\n"))
    }
}

#[derive(Debug, Serialize)]
struct Replayed {
    schema: &'static str,
    #[serde(flatten)]
    run: Run,
    events: Vec<Recorded>,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let run = &self.run;
        writeln!(
            f,
            "{} {}, account {}, region {}, {}",
            run.command, run.customer, run.account, run.region, run.started
        )?;
        for recorded in &self.events {
            if let Some(line) = progress::line(&recorded.event) {
                let after = recorded
                    .ts
                    .duration_since(run.started)
                    .max(SignedDuration::ZERO);
                let after = Duration::try_from(after).unwrap_or_default();
                let after = text::duration(after);
                writeln!(f, "{after:>10}  {}", text::foreign(&line, LONGEST))?;
            }
        }
        write!(f, "{}; its journal: {}", run.end(), run.path.display())
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::words(
        Kind::Precondition,
        format!("{} cannot be read: {error}", path.display()),
    )
}

/// Runs the subcommand.
pub fn run(args: &RunsArgs, terminal: &Terminal) -> Result<(), Failure> {
    let directory =
        journal::default_directory(&|name| std::env::var(name).ok()).ok_or_else(|| {
            Failure::words(
                Kind::Precondition,
                "neither XDG_STATE_HOME nor HOME is set: no journal is kept",
            )
        })?;
    let journals = journal::journals(&directory).map_err(|e| unreadable(&directory, &e))?;
    if let Some(RunsCommand::Show { run }) = &args.command {
        return show(run, &journals, terminal);
    }
    let mut runs = Vec::new();
    for (index, path) in journals.iter().enumerate() {
        if runs.len() == args.limit {
            break;
        }
        // One that was pruned meanwhile is none.
        let Ok(lines) = journal::read(path) else {
            continue;
        };
        runs.extend(Run::of(index + 1, path, &lines).filter(|run| {
            args.customer
                .as_ref()
                .is_none_or(|customer| *customer == run.customer)
        }));
    }
    let runs = Runs {
        schema: "m8trx.runs/1",
        directory: directory.display().to_string(),
        runs,
        now: Timestamp::now(),
    };
    terminal.result(&runs).map_err(stdout_failed)
}

fn show(which: &str, journals: &[PathBuf], terminal: &Terminal) -> Result<(), Failure> {
    let name = |path: &PathBuf| {
        path.file_stem()
            .map(|stem| stem.to_string_lossy().into_owned())
    };
    let by_number = which
        .parse::<usize>()
        .ok()
        .filter(|number| *number <= KEPT)
        .and_then(|number| Some((number, journals.get(number.checked_sub(1)?)?)));
    let by_id = || {
        let found = journals.iter().enumerate().find(|(_, path)| {
            !which.is_empty() && name(path).is_some_and(|name| name.starts_with(which))
        });
        found.map(|(index, path)| (index + 1, path))
    };
    let (number, path) = by_number.or_else(by_id).ok_or_else(|| {
        Failure::words(
            Kind::Precondition,
            format!("there is no run `{}`", which.escape_debug()),
        )
        .hint("m8trx runs lists them")
    })?;
    let events = journal::read(path).map_err(|e| unreadable(path, &e))?;
    let run = Run::of(number, path, &events).ok_or_else(|| {
        Failure::words(
            Kind::Precondition,
            format!("{} holds no run", path.display()),
        )
    })?;
    let replayed = Replayed {
        schema: "m8trx.runs-show/1",
        run,
        events,
    };
    terminal.result(&replayed).map_err(stdout_failed)
}
