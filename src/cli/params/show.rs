//! `m8trx params show`

use std::collections::BTreeMap;
use std::fmt;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::{ask_to_reveal, check_may_reveal};
use crate::cli::Global;
use crate::cli::onboarding::stdout_failed;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::parameter::{MASK, ParameterId};
use crate::secret::ExposeSecret as _;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{Terminal, text};

/// Show one parameter: type, version, age, tags, and whether its value can be used; the value masked.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// `brain-url`, `<customer id>/brain-key` or `<customer id>/tailscale-auth-key`.
    parameter: ParameterId,
    /// Show the value too; asks first.
    #[arg(long)]
    reveal: bool,
}

impl ShowArgs {
    pub(super) fn check(&self, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
        check_may_reveal(self.reveal, global, terminal)
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    schema: &'static str,
    name: String,
    customer: Option<CustomerId>,
    r#type: String,
    version: i64,
    modified: Option<Timestamp>,
    tags: BTreeMap<String, String>,
    revealed: bool,
    value: String,
    /// Why a host could not use it.
    problem: Option<String>,
    #[serde(skip)]
    now: Timestamp,
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.name)?;
        writeln!(f, "  type     {}", self.r#type)?;
        writeln!(f, "  version  {}", self.version)?;
        if let Some(at) = self.modified {
            writeln!(f, "  stored   {at}, {}", text::ago(at, self.now))?;
        }
        let tags: Vec<String> = self
            .tags
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let tags = if tags.is_empty() {
            "none".to_owned()
        } else {
            tags.join(", ")
        };
        writeln!(f, "  tags     {tags}")?;
        write!(f, "  value    {}", self.value)?;
        match &self.problem {
            Some(problem) => write!(f, "\n  problem  {problem}"),
            None => Ok(()),
        }
    }
}

pub(super) async fn run(
    args: &ShowArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let id = &args.parameter;
    let name = id.to_string();
    let aws = target.aws(terminal).await?;
    let (found, tags) = futures::try_join!(aws.parameter(&name), aws.parameter_tags(&name))?;
    let Some(found) = found else {
        return Err(
            Failure::words(Kind::Precondition, format!("there is no parameter {name}"))
                .hint(format!("store it with `m8trx params put {name}`")),
        );
    };
    let text = found.value.expose_secret();
    let checked = id.stored_value(text);
    let problem = if found.kind == id.kind().name() {
        checked.as_ref().err().cloned()
    } else {
        Some(format!(
            "it is stored as {} instead of {}",
            found.kind,
            id.kind().name()
        ))
    };
    let value = if args.reveal {
        ask_to_reveal(&format!("the {}", id.what()), terminal).await?;
        text.escape_debug().to_string()
    } else {
        checked.map_or(MASK.to_owned(), |value| value.masked())
    };
    let shown = Shown {
        schema: "m8trx.params-show/1",
        name,
        customer: id.customer().cloned(),
        r#type: found.kind,
        version: found.version,
        modified: found.modified,
        tags: tags.unwrap_or_default().into_iter().collect(),
        revealed: args.reveal,
        value,
        problem,
        now: Timestamp::now(),
    };
    terminal.result(&shown).map_err(stdout_failed)
}
