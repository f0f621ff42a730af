//! `m8trx rotate-tailscale-key`

mod due;

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
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{Terminal, text};
use due::Left;

/// Parameter Store takes three writes a second (`PutParameter`, default quota).
const PACE: Duration = Duration::from_millis(340);
/// How many customers are looked at at the same time; reads are let through at forty a second.
const LOOKS: usize = 8;
/// Where a person revokes a key.
const CONSOLE: &str = "https://login.tailscale.com/admin/settings/keys";

/// How it ends, for timers and scripts.
const ENDS: &str = "\
Ends with:
  0    every key that was to be replaced is; or none was due (`outcome` in the JSON document tells which)
  8    some keys are replaced and others failed; run it again for those
  9    no key was due, with --detailed-exit-code
  other codes: no key was replaced, see `m8trx help exit-codes`";

/// Replace customers' Tailscale auth keys in Parameter Store, and revoke the old ones after that.
///
/// The new key is minted by Tailscale's API where an OAuth client is configured; otherwise it is asked for, customer by
/// customer, or read from a file for one customer. At any moment a key that works is stored.
///
/// Without a customer, it shows the keys by what is left of them and asks which to replace; where nobody can be asked, say
/// --due or --all. For a timer: m8trx rotate-tailscale-key --due 14d --yes
#[derive(Debug, Args)]
#[command(after_help = ENDS)]
pub struct RotateTailscaleKeyArgs {
    /// The customer ids.
    #[arg(value_name = "CUSTOMER")]
    customers: Vec<CustomerId>,
    /// Every customer that has a key.
    #[arg(long, conflicts_with = "customers")]
    all: bool,
    /// Only keys that end within this time, like `14d`, or have ended, or were revoked; of every customer unless some are
    /// named.
    #[arg(long, value_name = "TIME", value_parser = config::parse_ago)]
    due: Option<Duration>,
    /// End with 9 instead of 0 where no key was due.
    #[arg(long)]
    detailed_exit_code: bool,
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
    /// `rotated`, `some-failed`, `failed`, `nothing-due`, `planned`.
    outcome: &'static str,
    customers: Vec<Line>,
    /// Customers whose keys are younger than asked for, or not due.
    left_alone: Vec<CustomerId>,
    #[serde(skip)]
    next: Option<String>,
}

#[derive(Debug, Serialize)]
struct Line {
    customer: CustomerId,
    old_key_id: Option<String>,
    version_before: i64,
    stored: Option<Timestamp>,
    /// When the old key ends or ended, as far as that is known.
    expires: Option<Timestamp>,
    new_key_id: Option<String>,
    version_after: Option<i64>,
    /// The ids of keys that were revoked after the new one was stored.
    revoked: Vec<String>,
    /// What is left to do for a person.
    to_do: Option<String>,
    error: Option<String>,
}

impl Line {
    /// A customer whose key cannot be replaced, found before anything was changed.
    fn unfit(customer: &CustomerId, failure: &Failure) -> Self {
        Self {
            customer: customer.clone(),
            old_key_id: None,
            version_before: 0,
            stored: None,
            expires: None,
            new_key_id: None,
            version_after: None,
            revoked: Vec::new(),
            to_do: None,
            error: Some(failure.causes.join(": ")),
        }
    }
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
                if let Some(ends) = self.expires {
                    let now = Timestamp::now();
                    match ends > now {
                        true => write!(f, ", {} left", text::age(ends.duration_since(now)))?,
                        false => write!(f, ", ended {}", text::ago(ends, now))?,
                    }
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
        if lines.is_empty() && !self.left_alone.is_empty() {
            lines.push("no key is due".to_owned());
        }
        if !self.left_alone.is_empty() {
            let keys = text::counted(self.left_alone.len(), "key");
            lines.push(format!("left as is: {keys}"));
        }
        lines.extend(self.next.clone());
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
            expires: None,
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
    let names_keys = args.all || args.due.is_some() || !args.customers.is_empty();
    if !names_keys && !terminal.interactive {
        return Err(Failure::words(
            Kind::Usage,
            "no customer is named, and there is no terminal to ask which keys to replace",
        )
        .hint("for the keys that end soon: m8trx rotate-tailscale-key --due 14d --yes; for every key: --all --yes; or name customers"));
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
    if !args.customers.is_empty() {
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
    let looked: Vec<(CustomerId, Result<Looked, Failure>)> =
        futures::stream::iter(customers(args, &aws).await?)
            .map(|customer| {
                let look = look(
                    customer.clone(),
                    aws.clone(),
                    tailnet.clone(),
                    given.clone(),
                );
                async { (customer, look.await) }
            })
            .buffered(LOOKS)
            .collect()
            .await;
    let good = due::good_keys(tailnet.as_ref(), terminal).await;
    let now = Timestamp::now();
    // Of customers that are named, each must be fit; of all, one that is not does not keep the others from theirs.
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for (customer, looked) in looked {
        match looked {
            Ok(looked) => fit.push(looked),
            // What AWS refuses of one it refuses of all.
            Err(failure)
                if !args.customers.is_empty()
                    || matches!(failure.kind, Kind::Other | Kind::Refused) =>
            {
                return Err(failure);
            }
            Err(failure) => unfit.push((customer, failure)),
        }
    }
    let looked = fit;
    let left = |looked: &Looked| Left::of(looked.rotation.before(), &good);
    let wanted = if args.customers.is_empty() && !args.all && args.due.is_none() {
        let rows = looked.iter().map(|looked| due::Row {
            customer: looked.customer().clone(),
            key: looked
                .rotation
                .before()
                .and_then(|before| before.id.clone())
                .unwrap_or_else(|| "no auth key".to_owned()),
            left: left(looked),
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            None
        } else {
            Some(due::ask_which(rows, now, terminal).await?)
        }
    } else {
        None
    };
    let is_old = |looked: &Looked| match (args.older_than, looked.rotation.before()) {
        (Some(least), Some(before)) => before
            .stored
            .is_some_and(|at| now.duration_since(at).unsigned_abs() >= least),
        _ => true,
    };
    let is_due = |looked: &Looked| {
        args.due
            .is_none_or(|within| left(looked).is_due(within, now))
    };
    let is_chosen = |looked: &Looked| {
        let named = wanted
            .as_ref()
            .is_none_or(|wanted| wanted.contains(looked.customer()));
        named && is_old(looked) && is_due(looked)
    };
    let (chosen, young): (Vec<_>, Vec<_>) = looked.into_iter().partition(is_chosen);
    let mut result = Rotated {
        schema: "m8trx.rotate-tailscale-key/1",
        dry_run: args.dry_run,
        outcome: "planned",
        customers: Vec::new(),
        next: young
            .iter()
            .filter_map(|looked| Some((left(looked).ends()?, looked.customer())))
            .min()
            .filter(|_| args.due.is_some())
            .map(|(at, customer)| {
                let left = text::age(at.duration_since(now));
                format!("the next one ends in {left}: {customer}")
            }),
        left_alone: young
            .iter()
            .map(|looked| looked.customer().clone())
            .collect(),
    };
    for (customer, failure) in &unfit {
        result.customers.push(Line::unfit(customer, failure));
    }
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
        let ends = |looked: &Looked| Line {
            expires: left(looked).ends(),
            ..looked.line()
        };
        result.customers.extend(chosen.iter().map(ends));
        if chosen.is_empty() {
            result.outcome = if unfit.is_empty() {
                "nothing-due"
            } else {
                "failed"
            };
        }
        terminal.result(&result).map_err(stdout_failed)?;
        return match unfit.into_iter().next() {
            Some((_, failure)) => Err(failure.with_result()),
            None if args.detailed_exit_code && chosen.is_empty() => {
                Err(Failure::words(Kind::NothingDue, "no key is due").with_result())
            }
            None => Ok(()),
        };
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
    let mut failure = replace(
        &chosen,
        given.as_ref(),
        settings.suggest,
        &mut result,
        terminal,
    )
    .await;
    let lines = result.customers.iter_mut().skip(unfit.len());
    for (line, looked) in lines.zip(&chosen) {
        line.expires = left(looked).ends();
    }
    if failure.is_none() {
        failure = unfit.into_iter().next().map(|(customer, failure)| {
            failure.within(format!("the key of {customer} was not replaced"))
        });
    }
    let replaced = result
        .customers
        .iter()
        .any(|line| line.version_after.is_some());
    if let Some(failure) = &mut failure
        && replaced
        && failure.kind != Kind::Interrupted
        && result.customers.len() > 1
    {
        failure.kind = Kind::Partial;
    }
    result.outcome = match &failure {
        None => "rotated",
        Some(_) if replaced => "some-failed",
        Some(_) => "failed",
    };
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
    // Those that could not be tried stand there already.
    let before = result.customers.len();
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
    let tried = &result.customers[before..];
    let failed = tried.iter().filter(|line| line.error.is_some()).count();
    let tried = tried.len();
    let left = chosen.len() - tried;
    first.map(|failure| {
        if chosen.len() == 1 {
            return failure;
        }
        let done = tried - failed;
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
