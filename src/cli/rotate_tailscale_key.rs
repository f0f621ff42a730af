//! `m8trx rotate-tailscale-key`

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures::StreamExt as _;
use jiff::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior};

use super::Global;
use super::execution::{execute, observe, step_failure};
use super::inputs::{Given, give_tailscale_key};
use super::onboarding::stdout_failed;
use super::target::Target;
use crate::aws::Aws;
use crate::config::{self, Flags};
use crate::customer::CustomerId;
use crate::home;
use crate::plan::{Plan, StepError};
use crate::rotation::age;
use crate::rotation::tailscale_key::{Rotation, expiry_warning};
use crate::secret::TailscaleAuthKey;
use crate::steps::Context;
use crate::tailnet::Tailnet;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Parameter Store takes three writes a second (`PutParameter`, default quota).
const PACE: Duration = Duration::from_millis(340);
/// How many customers are looked at at the same time; reads are let through at forty a second.
const LOOKS: usize = 8;
/// Where a person revokes a key.
const CONSOLE: &str = "https://login.tailscale.com/admin/settings/keys";

/// Replace customers' Tailscale auth keys in Parameter Store, and revoke the old ones after that.
///
/// The new key is minted by Tailscale's API where an OAuth client is configured; otherwise it is asked for, customer by
/// customer, or read from a file for one customer. At any moment a key that works is stored.
#[derive(Debug, Args)]
pub struct RotateTailscaleKeyArgs {
    /// The customer ids.
    #[arg(required_unless_present = "all", value_name = "CUSTOMER")]
    customers: Vec<CustomerId>,
    /// Every customer that has a key.
    #[arg(long, conflicts_with = "customers")]
    all: bool,
    /// Only keys that were stored this long ago or longer, like `60d`.
    #[arg(long, value_name = "AGE", value_parser = config::parse_ago)]
    older_than: Option<Duration>,
    /// Show which keys would be replaced, change nothing.
    #[arg(long)]
    dry_run: bool,
    /// File with the one customer's new key; `-` for standard input.
    #[arg(long, value_name = "FILE")]
    tailscale_key_file: Option<PathBuf>,
}

/// What became of every customer's key.
#[derive(Debug, Serialize)]
struct Rotated {
    schema: &'static str,
    dry_run: bool,
    customers: Vec<Line>,
    /// Customers whose keys are younger than asked for.
    left_alone: Vec<CustomerId>,
}

#[derive(Debug, Serialize)]
struct Line {
    customer: CustomerId,
    old_key_id: Option<String>,
    version_before: i64,
    stored: Option<Timestamp>,
    new_key_id: Option<String>,
    version_after: Option<i64>,
    /// The ids of keys that were revoked after the new one was stored.
    revoked: Vec<String>,
    /// What is left to do for a person.
    to_do: Option<String>,
    error: Option<String>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let old = self.old_key_id.as_deref().unwrap_or("no auth key");
        write!(f, "{}: ", self.customer)?;
        match (&self.new_key_id, self.version_after, &self.error) {
            (Some(new), Some(version), error) => {
                write!(
                    f,
                    "key {old} → {new}, version {} → {version}",
                    self.version_before
                )?;
                if !self.revoked.is_empty() {
                    write!(f, "; revoked: {}", self.revoked.join(", "))?;
                }
                if let Some(error) = error {
                    write!(f, "; but: {error}")?;
                }
            }
            (_, _, Some(error)) => write!(f, "not rotated: {error}")?,
            _ => {
                write!(f, "key {old}, version {}", self.version_before)?;
                if let Some(stored) = self.stored {
                    write!(f, ", stored {}", age(stored))?;
                }
                f.write_str(": to be replaced")?;
            }
        }
        match &self.to_do {
            Some(to_do) => write!(f, "\n  to do: {to_do}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines: Vec<String> = self.customers.iter().map(ToString::to_string).collect();
        if !self.left_alone.is_empty() {
            lines.push(format!(
                "{} left alone: their keys are younger",
                self.left_alone.len()
            ));
        }
        if lines.is_empty() {
            lines.push("no customer has a Tailscale auth key".to_owned());
        }
        f.write_str(&lines.join("\n"))
    }
}

/// One customer's rotation, looked at.
struct Looked {
    rotation: Arc<Rotation>,
    plan: Plan,
    observed: std::collections::HashMap<&'static str, crate::plan::Observation>,
}

impl Looked {
    fn customer(&self) -> &CustomerId {
        &self.rotation.context.customer
    }

    fn line(&self) -> Line {
        let before = self.rotation.before();
        let (after, revoked) = (self.rotation.after(), self.rotation.revoked());
        let old = before.and_then(|before| before.id.clone());
        let to_do = match (&old, after) {
            (Some(old), Some(_)) if !revoked.contains(old) => Some(format!(
                "revoke the old key {old} at {CONSOLE}{}",
                if self.rotation.context.tailnet.is_some() {
                    ", if it is still good and nothing else uses it: Tailscale does not know it as a key of this customer alone"
                } else {
                    ""
                }
            )),
            _ => None,
        };
        Line {
            customer: self.customer().clone(),
            old_key_id: old,
            version_before: before.map_or(0, |before| before.version),
            stored: before.and_then(|before| before.stored),
            new_key_id: after.map(|after| after.id.clone()),
            version_after: after.map(|after| after.version),
            revoked,
            to_do,
            error: None,
        }
    }
}

/// Runs the command.
pub async fn run(
    args: &RotateTailscaleKeyArgs,
    global: &Global,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if args.tailscale_key_file.is_some() && (args.all || args.customers.len() > 1) {
        return Err(Failure::words(
            Kind::Usage,
            "one --tailscale-key-file cannot serve several customers: a key carries one customer's tag",
        )
        .hint("rotate one customer at a time with its own key; or configure an OAuth client (M8TRX_TAILSCALE_CLIENT_ID, M8TRX_TAILSCALE_CLIENT_SECRET_FILE), and Tailscale's API mints a key for each"));
    }
    if !(terminal.interactive || args.dry_run || global.yes) {
        return Err(
            Failure::words(Kind::Usage, "there is no terminal to ask whether to go on")
                .hint("pass --yes to go on without being asked, or --dry-run to see the keys"),
        );
    }
    let flags = Flags {
        tailscale_key_file: args.tailscale_key_file.clone(),
        ..global.flags()
    };
    let target = Target::open(global, &flags, terminal).await?;
    let result = rotate(args, &target, terminal).await;
    target.close().await;
    result
}

/// The customers that are asked for, and whether one call lists them all.
async fn customers(args: &RotateTailscaleKeyArgs, aws: &Aws) -> Result<Vec<CustomerId>, Failure> {
    let mut seen = HashSet::new();
    if !args.all {
        let given = args.customers.iter().cloned();
        return Ok(given.filter(|id| seen.insert(id.clone())).collect());
    }
    let mut found: Vec<CustomerId> = aws
        .parameter_names("/m8trx")
        .await?
        .iter()
        .filter_map(|name| {
            let id = name
                .strip_prefix("/m8trx/")?
                .strip_suffix("/tailscale-auth-key")?;
            id.parse().ok()
        })
        .collect();
    found.sort();
    Ok(found)
}

async fn look(
    customer: CustomerId,
    aws: Aws,
    tailnet: Option<Tailnet>,
    given: Option<TailscaleAuthKey>,
) -> Result<Looked, Failure> {
    home::check(&aws, &customer).await?;
    let context = Context {
        tailnet,
        ..Context::without_brain(customer, aws)
    };
    if let Some(key) = given {
        let _ = context.tailscale_auth_key.set(key);
    }
    let rotation = Rotation::new(Arc::new(context));
    let plan = rotation
        .plan()
        .map_err(|e| Failure::new(Kind::Other, &e).within("the steps have no order"))?;
    let observed = observe(&plan).await?;
    Ok(Looked {
        rotation,
        plan,
        observed,
    })
}

async fn rotate(
    args: &RotateTailscaleKeyArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let settings = &target.settings;
    // A configured file holds the key that onboarding stores: no new one. Only the flag's is.
    let given = match &args.tailscale_key_file {
        Some(_) => Given::read(settings)?.tailscale_key,
        None => None,
    };
    let aws = target.aws(terminal).await?;
    let tailnet = settings.tailnet.clone().map(Tailnet::new);
    let looked: Vec<Result<Looked, Failure>> = futures::stream::iter(customers(args, &aws).await?)
        .map(|customer| look(customer, aws.clone(), tailnet.clone(), given.clone()))
        .buffered(LOOKS)
        .collect()
        .await;
    let looked = looked.into_iter().collect::<Result<Vec<_>, _>>()?;
    let now = Timestamp::now();
    let is_old = |looked: &Looked| match (args.older_than, looked.rotation.before()) {
        (Some(least), Some(before)) => before
            .stored
            .is_some_and(|at| now.duration_since(at).unsigned_abs() >= least),
        _ => true,
    };
    let (chosen, young): (Vec<_>, Vec<_>) = looked.into_iter().partition(is_old);
    let mut result = Rotated {
        schema: "m8trx.rotate-tailscale-key/1",
        dry_run: args.dry_run,
        customers: Vec::new(),
        left_alone: young
            .iter()
            .map(|looked| looked.customer().clone())
            .collect(),
    };
    for looked in chosen.iter().chain(&young) {
        let stored = looked.rotation.before().and_then(|before| before.stored);
        if let Some(warning) = stored.and_then(|at| expiry_warning(at, now)) {
            terminal.warn(format!(
                "the Tailscale auth key of {}: {warning}",
                looked.customer()
            ));
        }
    }
    if args.dry_run || chosen.is_empty() {
        result.customers = chosen.iter().map(Looked::line).collect();
        return terminal.result(&result).map_err(stdout_failed);
    }
    let can_mint = tailnet.is_some() || given.is_some();
    if !can_mint && !terminal.interactive {
        let failure = Failure::words(
            Kind::Precondition,
            format!(
                "{} need new Tailscale auth keys, and nothing gives them",
                names(&chosen)
            ),
        );
        return Err(failure.hint("configure an OAuth client (M8TRX_TAILSCALE_CLIENT_ID, M8TRX_TAILSCALE_CLIENT_SECRET_FILE), and Tailscale's API mints them; or run it at a terminal, which asks for each; or for one customer: --tailscale-key-file FILE, or - for standard input"));
    }
    for looked in &chosen {
        terminal.say(looked.line().to_string());
    }
    let question = format!("Replace the Tailscale auth key of {}?", names(&chosen));
    terminal.agree(&question).await?;
    let failure = replace(
        &chosen,
        given.as_ref(),
        settings.suggest,
        &mut result,
        terminal,
    )
    .await;
    terminal.result(&result).map_err(stdout_failed)?;
    match failure {
        None => Ok(()),
        Some(failure) => Err(failure.with_result()),
    }
}

fn names(chosen: &[Looked]) -> String {
    match chosen {
        [one] => one.customer().to_string(),
        many => format!("{} customers", many.len()),
    }
}

/// Replaces one key after the other. What concerns one customer only does not keep the others from theirs.
async fn replace(
    chosen: &[Looked],
    given: Option<&TailscaleAuthKey>,
    suggested: bool,
    result: &mut Rotated,
    terminal: &Terminal,
) -> Option<Failure> {
    let mut pace = tokio::time::interval_at(Instant::now(), PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut first: Option<Failure> = None;
    for looked in chosen {
        if chosen.len() > 1 {
            terminal.say(format!("{}:", looked.customer()));
        }
        pace.tick().await;
        let failure = replace_one(looked, given, suggested, terminal).await.err();
        let mut line = looked.line();
        line.error = failure.as_ref().map(|failure| failure.causes.join(": "));
        result.customers.push(line);
        let Some(failure) = failure else { continue };
        // Nobody to ask, no network: the others would meet the same.
        let ends = matches!(failure.kind, Kind::Interrupted | Kind::Other);
        if first.is_none() || failure.kind == Kind::Interrupted {
            first = Some(failure);
        }
        if ends {
            break;
        }
    }
    let failed = result
        .customers
        .iter()
        .filter(|line| line.error.is_some())
        .count();
    let left = chosen.len() - result.customers.len();
    first.map(|failure| {
        if chosen.len() == 1 {
            return failure;
        }
        let done = result.customers.len() - failed;
        let hint = failure.hint.clone().unwrap_or_else(|| {
            "run it again for those: what was rotated is not rotated twice with --older-than"
                .to_owned()
        });
        failure
            .within(format!(
                "{done} of {} keys are rotated, {failed} failed, {left} were not tried",
                chosen.len()
            ))
            .hint(hint)
    })
}

async fn replace_one(
    looked: &Looked,
    given: Option<&TailscaleAuthKey>,
    suggested: bool,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let context = &looked.rotation.context;
    give_tailscale_key(
        context,
        &looked.observed,
        given.cloned(),
        suggested,
        terminal,
    )
    .await?;
    let report = execute(
        "rotate-tailscale-key",
        &looked.plan,
        &looked.observed,
        context,
        terminal,
    )
    .await;
    let Some((step, error)) = report.failure else {
        return Ok(());
    };
    if matches!(error, StepError::Interrupted) {
        return Err(Failure::words(
            Kind::Interrupted,
            format!("interrupted at {step}"),
        ));
    }
    let failure = step_failure(error).within(format!("{step} failed"));
    if failure.hint.is_some() {
        return Err(failure);
    }
    let customer = &context.customer;
    Err(failure.hint(format!(
        "a key that works is stored; run it again: m8trx rotate-tailscale-key {customer}"
    )))
}
