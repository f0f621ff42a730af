//! `m8trx config`

use std::fmt;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Global;
use super::onboarding::stdout_failed;
use crate::config::Settings;
use crate::config::shown::{self, Origin, Shown};
use crate::terminal::Terminal;
use crate::terminal::failure::Failure;

/// Show the configuration.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Show each setting and where it comes from: an option, the environment, the file, or the default.
    ///
    /// Neither AWS nor the brain is asked. Once an onboarding has stored the brain's URL, that one counts: m8trx brain-url
    /// get. Secrets are not read.
    Show {
        /// Also what is not set.
        #[arg(long)]
        all: bool,
    },
}

#[derive(Debug, Serialize)]
struct Settled {
    schema: &'static str,
    /// The configuration file.
    file: Option<String>,
    file_exists: bool,
    settings: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    key: String,
    value: Option<String>,
    /// `flag`, `environment`, `file`, `default` or `unset`.
    origin: &'static str,
    /// Its name: the option, the variable, the file.
    from: Option<String>,
}

impl Row {
    fn new(shown: Shown) -> Self {
        let (origin, from) = match (&shown.value, &shown.origin) {
            (None, _) => ("unset", None),
            (_, Origin::Default) => ("default", None),
            (_, Origin::Flag(name)) => ("flag", Some((*name).to_owned())),
            (_, Origin::Variable(name)) => ("environment", Some((*name).to_owned())),
            (_, Origin::File(path)) => ("file", Some(path.display().to_string())),
        };
        Self {
            key: shown.key,
            value: shown.value,
            origin,
            from,
        }
    }
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.file, self.file_exists) {
            (Some(file), true) => writeln!(f, "Configuration file: {file}")?,
            (Some(file), false) => {
                writeln!(
                    f,
                    "Configuration file: {file} (not there; m8trx init writes one)"
                )?;
            }
            (None, _) => writeln!(f, "Configuration file: none")?,
        }
        let width = |of: fn(&Row) -> usize| self.settings.iter().map(of).max().unwrap_or_default();
        let value = |row: &Row| row.value.clone().unwrap_or_else(|| "-".to_owned());
        let keys = width(|row| row.key.len());
        let values = width(|row| row.value.as_ref().map_or(1, String::len)).min(50);
        for row in &self.settings {
            let from = match (row.origin, &row.from) {
                ("file", _) => "configuration file",
                (_, Some(name)) => name,
                ("unset", _) => "not set",
                (origin, None) => origin,
            };
            writeln!(f, "{:keys$}  {:values$}  {from}", row.key, value(row))?;
        }
        write!(
            f,
            "The brain's URL that is stored in /m8trx/brain-url comes before these: m8trx brain-url get"
        )
    }
}

/// Runs the subcommand.
pub fn run(args: &ConfigArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    let ConfigCommand::Show { all } = args.command;
    let flags = global.flags();
    let environment = |name: &str| std::env::var(name).ok();
    let file = shown::file(&flags, &environment);
    let rows = shown::settings(&flags, &environment)?;
    let settled = Settled {
        schema: "m8trx.config-show/1",
        file_exists: file.as_ref().is_some_and(|path| path.exists()),
        file: file.map(|path| path.display().to_string()),
        settings: rows
            .into_iter()
            .filter(|row| all || row.value.is_some())
            .map(Row::new)
            .collect(),
    };
    terminal.result(&settled).map_err(stdout_failed)?;
    // What cannot be used is shown all the same; that it cannot be is said after it.
    Settings::resolve(&flags, &environment)
        .map(drop)
        .map_err(|error| Failure::from(error).with_result())
}
