//! `m8trx offboard`

use std::fmt;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::Global;
use super::execution::{step_failure, watched};
use super::inputs::admin_token;
use super::onboarding::stdout_failed;
use super::target::Target;
use crate::aws::Aws;
use crate::brain::{Brain, BrainUrl};
use crate::customer::{BRAIN_URL_PARAMETER, CustomerId};
use crate::home;
use crate::inventory::Item;
use crate::offboarding::{Belongings, Offboarded, Offboarding};
use crate::plan::{StepError, journal};
use crate::secret::ExposeSecret as _;
use crate::steps::Context;
use crate::tailnet::Tailnet;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Remove everything that belongs to a customer: hosts, keys, parameters, role, devices.
///
/// Shows all of it first and asks for the id to be typed. Hosts are ended, and waited for, before any key is revoked.
/// What could not be removed is listed, and a run that was interrupted is finished by running it again.
#[derive(Debug, Args)]
pub struct OffboardArgs {
    /// The customer id.
    customer: CustomerId,
    /// Show what would be removed, change nothing.
    #[arg(long)]
    dry_run: bool,
    /// The customer id once more, instead of typing it at the question; needed with --yes.
    #[arg(long, value_name = "ID")]
    confirm: Option<CustomerId>,
    /// Remove what is left although nothing of the customer is in this region and nothing says where it lives.
    #[arg(long)]
    leftovers: bool,
    /// Forget the brain key even where it still works and cannot be revoked from here.
    #[arg(long)]
    leave_brain_key: bool,
}

/// What there was, and what became of it.
#[derive(Debug, Serialize)]
struct Document {
    schema: &'static str,
    customer: CustomerId,
    account: String,
    region: String,
    dry_run: bool,
    belongings: Vec<Item>,
    /// Things with a name of this customer's that are tagged for another one; never touched.
    not_ours: Vec<NotOurs>,
    removed: Vec<String>,
    /// What a person has to do, since it cannot be done from here.
    by_hand: Vec<String>,
    left: Vec<Item>,
    errors: Vec<ErrorLine>,
}

#[derive(Debug, Serialize)]
struct NotOurs {
    #[serde(flatten)]
    item: Item,
    owner: Option<String>,
}

#[derive(Debug, Serialize)]
struct ErrorLine {
    step: &'static str,
    error: String,
    hint: Option<String>,
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let customer = &self.customer;
        let mut lines = Vec::new();
        if self.dry_run {
            lines.extend(
                self.belongings
                    .iter()
                    .map(|item| format!("would remove {item}")),
            );
        }
        lines.extend(self.not_ours.iter().map(ToString::to_string));
        lines.extend(
            self.by_hand
                .iter()
                .map(|what| format!("to do by hand: {what}")),
        );
        lines.extend(self.left.iter().map(|item| format!("still there: {item}")));
        lines.push(if self.belongings.is_empty() {
            format!(
                "there is nothing of {customer} in account {}, {}",
                self.account, self.region
            )
        } else if self.dry_run {
            format!(
                "{} things belong to {customer}; nothing was changed",
                self.belongings.len()
            )
        } else if self.left.is_empty() && self.errors.is_empty() {
            format!(
                "{customer} is offboarded: {} things are removed",
                self.belongings.len()
            )
        } else {
            format!(
                "{customer} is not offboarded yet: {} things are left",
                self.left.len()
            )
        });
        f.write_str(&lines.join("\n"))
    }
}

impl fmt::Display for NotOurs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = self.owner.as_deref().unwrap_or_default();
        write!(
            f,
            "left alone: {}, tagged for {}",
            self.item,
            owner.escape_debug()
        )
    }
}

/// Runs the command.
pub async fn run(args: &OffboardArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    let customer = &args.customer;
    if let Some(other) = args.confirm.as_ref().filter(|other| *other != customer) {
        return Err(Failure::words(
            Kind::Usage,
            format!("--confirm says {other}, and the customer to offboard is {customer}"),
        )
        .hint("nothing was changed; look twice which of them is meant"));
    }
    let confirmed = global.yes && args.confirm.is_some();
    if !(args.dry_run || terminal.interactive || confirmed) {
        return Err(Failure::words(
            Kind::Usage,
            "there is no terminal at which the customer id could be typed",
        )
        .hint(format!(
            "pass --yes --confirm {customer} to remove everything of it, or --dry-run to see what that is"
        )));
    }
    let target = Target::open(global, &global.flags(), terminal).await?;
    let result = offboard(args, &target, terminal).await;
    target.close().await;
    result
}

/// The brain whose key is to be revoked: the stored one, else the configured one.
async fn context(
    args: &OffboardArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<Context, Failure> {
    let settings = &target.settings;
    let token = admin_token(settings)?;
    let aws = target.aws(terminal).await?;
    let stored = aws.parameter(BRAIN_URL_PARAMETER).await?;
    let stored: Option<BrainUrl> =
        stored.and_then(|stored| stored.value.expose_secret().parse().ok());
    let customer = args.customer.clone();
    let context = match stored.or_else(|| settings.brain.url.clone()) {
        Some(url) => Context::new(customer, aws, Brain::new(url)),
        None => Context::without_brain(customer, aws),
    };
    Ok(Context {
        admin_token: token,
        tailnet: settings.tailnet.clone().map(Tailnet::new),
        state_directory: journal::default_directory(&|name| std::env::var(name).ok()),
        ..context
    })
}

async fn offboard(
    args: &OffboardArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let context = Arc::new(context(args, target, terminal).await?);
    let customer = &context.customer;
    let known = home::check(&context.aws, customer).await?;
    let found = Belongings::read(&context).await.map_err(|e| {
        step_failure(e).within("what belongs to the customer cannot be listed; nothing was changed")
    })?;
    let mut result = Document {
        schema: "m8trx.offboard/1",
        customer: customer.clone(),
        account: context.aws.account.clone(),
        region: context.aws.region.clone(),
        dry_run: args.dry_run,
        belongings: found.own.clone(),
        not_ours: found
            .foreign
            .iter()
            .map(|item| NotOurs {
                owner: item.owner.clone(),
                item: item.clone(),
            })
            .collect(),
        removed: Vec::new(),
        by_hand: Vec::new(),
        left: Vec::new(),
        errors: Vec::new(),
    };
    if known.is_none() && !args.leftovers && found.may_be_of_another_region() {
        return Err(maybe_elsewhere(&found, &context));
    }
    if args.dry_run || found.own.is_empty() {
        return terminal.result(&result).map_err(stdout_failed);
    }
    terminal.say(format!(
        "All of this belongs to {customer} and is removed for good, from account {} and {}:",
        result.account, result.region
    ));
    for item in &found.own {
        terminal.say(format!("  {item}"));
    }
    for line in &result.not_ours {
        terminal.say(line.to_string());
    }
    confirm(args, &context.aws, terminal).await?;

    let offboarding = Offboarding::new(Arc::clone(&context), &found, args.leave_brain_key);
    let interrupt = terminal.interrupt.begin_run();
    let done = watched(
        "offboard",
        offboarding.steps(),
        &context,
        terminal,
        |_| {},
        async |events| offboarding.carry_out(events, &interrupt).await,
    )
    .await;
    finish(done, &mut result, terminal)
}

/// Role, devices and keys without anything in this region: a living customer's of another region, or an ended one's.
fn maybe_elsewhere(found: &Belongings, context: &Context) -> Failure {
    let (aws, customer) = (&context.aws, &context.customer);
    let mut failure = Failure::words(
        Kind::Precondition,
        format!(
            "{customer} has no host and no parameter in account {}, {}, and nothing says where it lives; nothing was changed",
            aws.account, aws.region
        ),
    )
    .hint("pass the --region that it lives in; where it lives nowhere any more, and this is what an earlier offboarding left, pass --leftovers");
    failure.evidence = found.own.iter().map(ToString::to_string).collect();
    failure
}

async fn confirm(args: &OffboardArgs, aws: &Aws, terminal: &Terminal) -> Result<(), Failure> {
    if args.confirm.is_some() || !terminal.interactive {
        return Ok(());
    }
    let customer = args.customer.clone();
    let parse = move |text: &str| {
        if text == customer.as_str() {
            Ok(())
        } else {
            Err(format!(
                "that is not {customer}; Ctrl-C ends without any change"
            ))
        }
    };
    let question = format!(
        "Type {} to remove all of it from account {}, {}",
        args.customer, aws.account, aws.region
    );
    terminal.parsed(&question, None, parse).await
}

fn finish(done: Offboarded, result: &mut Document, terminal: &Terminal) -> Result<(), Failure> {
    result.removed = done.removed;
    result.by_hand = done.by_hand;
    result.left = done.left;
    let again = format!(
        "run the same command again to finish it (m8trx offboard {})",
        result.customer
    );
    let mut failure: Option<Failure> = None;
    for (step, error) in done.failures {
        let interrupted = matches!(error, StepError::Interrupted);
        let this = if interrupted {
            Failure::words(Kind::Interrupted, format!("interrupted at {step}"))
        } else {
            step_failure(error).within(format!("{step} could not be removed"))
        };
        result.errors.push(ErrorLine {
            step,
            error: this.causes.join(": "),
            hint: this.hint.clone(),
        });
        failure.get_or_insert(this);
    }
    if failure.is_none() && !result.left.is_empty() {
        failure = Some(Failure::words(
            Kind::Other,
            "AWS or Tailscale still lists things that were removed",
        ));
    }
    for what in &result.by_hand {
        terminal.warn(what);
    }
    terminal.result(result).map_err(stdout_failed)?;
    match failure {
        None => Ok(()),
        Some(mut failure) => {
            failure
                .evidence
                .extend(result.errors.iter().skip(1).map(|line| line.error.clone()));
            let hint = match failure.hint.take() {
                Some(hint) => format!("{hint}; then {again}"),
                None => again,
            };
            Err(failure.hint(hint).with_result())
        }
    }
}
