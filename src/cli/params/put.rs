//! `m8trx params put`

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::cli::Global;
use crate::cli::execution::{Order, Subject, check_may_go_on};
use crate::cli::inputs::secret_from;
use crate::cli::onboarding::stdout_failed;
use crate::cli::tailnet::client;
use crate::cli::target::Target;
use crate::customer::CustomerId;
use crate::parameter::{ParameterId, Value};
use crate::plan::Plan;
use crate::secret::ExposeSecret as _;
use crate::steps::Context;
use crate::steps::stored_parameter::{Stored, StoredParameter};
use crate::steps::tailscale_auth_key::TailscaleAuthKeyParameter;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Store a parameter's value, from a hidden question, a file or standard input; checked, tagged and read back.
#[derive(Debug, Args)]
pub struct PutArgs {
    /// `brain-url`, `<customer id>/brain-key` or `<customer id>/tailscale-auth-key`.
    parameter: ParameterId,
    /// File with the value; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Have Tailscale's API mint the auth key: the first one, or one in the place of a key that cannot be used. Needs an OAuth
    /// client.
    #[arg(long, conflicts_with = "file")]
    mint: bool,
    /// Show what would be done, change nothing.
    #[arg(long)]
    dry_run: bool,
}

impl PutArgs {
    pub(super) fn check(&self, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
        check_may_go_on(global, self.dry_run, terminal)?;
        if self.mint && !matches!(self.parameter, ParameterId::TailscaleAuthKey(_)) {
            return Err(Failure::words(
                Kind::Usage,
                format!(
                    "--mint makes Tailscale auth keys, and {} is none",
                    self.parameter
                ),
            )
            .hint("a brain key is minted by m8trx mint-key"));
        }
        if self.file.is_none() && !self.mint && !terminal.interactive {
            return Err(Failure::words(
                Kind::Usage,
                format!(
                    "there is no terminal to ask for the {}",
                    self.parameter.what()
                ),
            )
            .hint("pass --file FILE, or --file - for standard input"));
        }
        Ok(())
    }
}

#[derive(Debug, Serialize)]
struct WasPut {
    schema: &'static str,
    name: String,
    outcome: &'static str,
    version: i64,
    version_before: Option<i64>,
    value: String,
    /// The brain's id of the key that was overwritten and is still valid.
    replaced_key_id: Option<String>,
}

impl fmt::Display for WasPut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: ", self.name, self.outcome)?;
        match self.version_before {
            Some(before) if before != self.version => {
                write!(f, "version {}, before {before}", self.version)?;
            }
            _ => write!(f, "version {}", self.version)?,
        }
        write!(f, ", {}", self.value)
    }
}

pub(super) async fn run(
    args: &PutArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let id = &args.parameter;
    if let (ParameterId::TailscaleAuthKey(customer), true) = (id, args.mint) {
        return mint(customer, args, target, terminal).await;
    }
    // A value that cannot be used ends the command before AWS is even asked.
    let value = value(args, terminal).await?;
    let masked = value.masked();
    let aws = match id.customer() {
        Some(customer) => target.aws_of(customer, terminal).await?,
        None => target.aws(terminal).await?,
    };
    let subject = match id.customer() {
        Some(customer) => Subject::customer(customer, &aws),
        None => {
            terminal.warn("this URL is the whole fleet's; `m8trx brain-url set` also checks that a brain answers there");
            Subject::fleet(&aws)
        }
    };
    let step = Arc::new(StoredParameter::new(aws, id.clone(), value));
    let plan = Plan::part(vec![step.clone()])?;
    let order = Order {
        command: "params-put",
        subject,
        dry_run: args.dry_run,
        asks: true,
        terminal,
    };
    let Some(report) = order.carry_out(&plan).await? else {
        return Ok(());
    };
    let stored = step.stored.get().cloned().unwrap_or(Stored {
        before: None,
        version: 0,
        replaced_key: None,
    });
    if let Some(key) = &stored.replaced_key {
        terminal.warn(format!(
            "the key stored before, {key}, is still valid: revoke it at the brain once the host beats with the new one"
        ));
    }
    let put = WasPut {
        schema: "m8trx.params-put/1",
        name: id.to_string(),
        outcome: report
            .steps
            .first()
            .map_or("unchanged", |step| step.outcome.word()),
        version: stored.version,
        version_before: stored.before,
        value: masked,
        replaced_key_id: stored.replaced_key,
    };
    terminal.result(&put).map_err(stdout_failed)
}

/// A key that Tailscale's API mints, by the same step as in onboarding: one that is good stays.
async fn mint(
    customer: &CustomerId,
    args: &PutArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let tailnet = client(&target.settings)?;
    let aws = target.aws_of(customer, terminal).await?;
    let name = customer.tailscale_auth_key_parameter();
    let before = aws.parameter(&name).await?.map(|stored| stored.version);
    let context = Arc::new(Context {
        tailnet: Some(tailnet),
        ..Context::without_brain(customer.clone(), aws.clone())
    });
    let plan = Plan::part(vec![Arc::new(TailscaleAuthKeyParameter(context))])?;
    let order = Order {
        command: "params-put",
        subject: Subject::customer(customer, &aws),
        dry_run: args.dry_run,
        asks: true,
        terminal,
    };
    let Some(report) = order.carry_out(&plan).await? else {
        return Ok(());
    };
    let stored = aws.parameter(&name).await?;
    let masked = stored.as_ref().map(|stored| {
        args.parameter
            .value(stored.value.expose_secret())
            .map_or_else(|_| "not readable".to_owned(), |value| value.masked())
    });
    let put = WasPut {
        schema: "m8trx.params-put/1",
        name: args.parameter.to_string(),
        outcome: report
            .steps
            .first()
            .map_or("unchanged", |step| step.outcome.word()),
        version: stored.as_ref().map_or(0, |stored| stored.version),
        version_before: before,
        value: masked.unwrap_or_default(),
        replaced_key_id: None,
    };
    terminal.result(&put).map_err(stdout_failed)
}

async fn value(args: &PutArgs, terminal: &Terminal) -> Result<Value, Failure> {
    let id = &args.parameter;
    let parsed = id.clone();
    let parse = move |text: &str| parsed.value(text);
    if let Some(file) = &args.file {
        return secret_from(file, id.what(), |text| parse(text).map_err(Unusable));
    }
    let question = capitalised(id.what());
    if matches!(id, ParameterId::BrainUrl) {
        return terminal.parsed(&question, None, parse).await;
    }
    let question = format!("{question} (hidden)");
    let value = terminal.secret(&question, false, parse).await?;
    value.ok_or_else(|| Failure::words(Kind::Precondition, "there is no value"))
}

/// Why a value cannot be stored.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unusable(String);

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}
