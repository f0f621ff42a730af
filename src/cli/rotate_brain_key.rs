//! `m8trx rotate-brain-key`

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::Global;
use super::execution::{execute, observe, step_failure};
use super::inputs::Given;
use super::onboarding::{context, plan_document, stdout_failed};
use super::target::Target;
use crate::brain::BrainError;
use crate::config::{self, Flags};
use crate::customer::CustomerId;
use crate::plan::runner::millis;
use crate::plan::{Events, Observation, RunReport, StepError, StepRun};
use crate::resource::Resource;
use crate::rotation::age;
use crate::rotation::brain_key::{Followed, Revoked, Rotation};
use crate::secret::BrainKey;
use crate::steps::{Context, Mint};
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{Terminal, text};

/// Replace a customer's brain key: mint one, store it, wait until the host beats with it, revoke the old one.
///
/// No beat is lost: the old key stays valid until the host has taken the new one. Where the brain refuses the new key,
/// the old one is put back. A run that was interrupted is finished by running it again.
#[derive(Debug, Args)]
pub struct RotateBrainKeyArgs {
    /// The customer id.
    customer: CustomerId,
    /// Show what would be done, change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Revoke the old key as soon as the new one is stored, and wait for the host then: for a key that others know.
    #[arg(long)]
    revoke_at_once: bool,
    /// Command that mints a brain key and prints it; split into words, run without a shell [env: M8TRX_MINT_COMMAND]
    /// [default: node bin/mint-key.js].
    #[arg(long, value_name = "COMMAND")]
    mint_command: Option<String>,
    /// File with a brain key minted elsewhere; `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "mint_command")]
    brain_key_file: Option<PathBuf>,
    /// How long to wait for a heartbeat with the new key, like `90s` or `10m` [default: 15m].
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    timeout: Option<Duration>,
}

/// The result of a finished rotation.
#[derive(Debug, Serialize)]
struct Rotated {
    schema: &'static str,
    customer: CustomerId,
    version_before: i64,
    version_after: i64,
    old_key_id: Option<String>,
    new_key_id: Option<String>,
    old_key_revoked: bool,
    /// What is left to do, where the old key could not be revoked from here.
    to_do: Option<String>,
    hosts: Vec<Followed>,
    elapsed_ms: u64,
}

impl fmt::Display for Rotated {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<&str> = self
            .hosts
            .iter()
            .map(|host| host.instance_id.as_str())
            .collect();
        write!(
            f,
            "{} has a new brain key: version {} → {}",
            self.customer, self.version_before, self.version_after
        )?;
        match hosts.as_slice() {
            [] => write!(f, "; no host is running")?,
            hosts => write!(f, "; {} beats with it", hosts.join(", "))?,
        }
        if self.old_key_revoked {
            let id = self
                .old_key_id
                .as_deref()
                .map_or(String::new(), |id| format!(", {id},"));
            write!(f, "; the old one{id} is revoked")?;
        }
        write!(
            f,
            " (after {})",
            text::duration(Duration::from_millis(self.elapsed_ms))
        )?;
        match &self.to_do {
            Some(to_do) => write!(f, "\nTo do: {to_do}"),
            None => Ok(()),
        }
    }
}

/// Runs the command.
pub async fn run(
    args: &RotateBrainKeyArgs,
    global: &Global,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if !(terminal.interactive || args.dry_run || global.yes) {
        return Err(
            Failure::words(Kind::Usage, "there is no terminal to ask whether to go on")
                .hint("pass --yes to go on without being asked, or --dry-run to see the plan"),
        );
    }
    let flags = Flags {
        mint_command: args.mint_command.clone(),
        brain_key_file: args.brain_key_file.clone(),
        timeout: args.timeout,
        ..global.flags()
    };
    let target = Target::open(global, &flags, terminal).await?;
    let result = rotate(args, &target, terminal).await;
    target.close().await;
    result
}

async fn rotate(
    args: &RotateBrainKeyArgs,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let (settings, customer) = (&target.settings, &args.customer);
    let given = Given::read(settings)?;
    let aws = target.aws_of(customer, terminal).await?;
    let mut context = context(customer, None, aws, &given, settings, terminal).await?;
    // The time tells it from the key before, where only labels tell keys apart.
    context.key_label = format!(
        "m8trx rotate {customer} {}",
        Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ")
    );
    if context.mint.is_none() && !args.dry_run {
        ask_for_key(&mut context, terminal).await?;
    }
    let context = Arc::new(context);
    let rotation = Rotation::new(Arc::clone(&context), args.revoke_at_once);
    let plan = rotation
        .plan()
        .map_err(|e| Failure::new(Kind::Other, &e).within("the steps have no order"))?;
    let observed = observe(&plan).await?;
    let document = plan_document(&plan, &observed, &context, terminal);
    if args.dry_run {
        return terminal.result(&document).map_err(stdout_failed);
    }
    terminal.say("");
    terminal.say(document.to_string());
    if observed
        .get(Resource::BrainKey.name())
        .is_some_and(Observation::is_satisfied)
    {
        terminal.say("An earlier rotation was interrupted: this run finishes it, with the key that is stored.");
    }
    terminal.agree("Go on?").await?;
    let report = execute("rotate-brain-key", &plan, &observed, &context, terminal).await;
    finish(&rotation, report, terminal).await
}

/// Without a way to mint, the key comes from a person; an interrupted rotation needs none.
async fn ask_for_key(context: &mut Context, terminal: &Terminal) -> Result<(), Failure> {
    let customer = &context.customer;
    if crate::rotation::brain_key::is_under_way(&context.aws, customer).await? {
        return Ok(());
    }
    if !terminal.interactive {
        return Err(Failure::words(
            Kind::Precondition,
            format!("{customer} needs a new brain key, and nothing says how to mint one"),
        )
        .hint("pass --mint-command 'node bin/mint-key.js', or --brain-key-file FILE, or set M8TRX_BRAIN_ADMIN_TOKEN_FILE"));
    }
    terminal.say(format!(
        "{customer} needs a new brain key. Where the brain runs: node bin/mint-key.js {customer} \"{}\"",
        context.key_label
    ));
    let parse = |text: &str| BrainKey::parse(text).map_err(|e| e.to_string());
    let key = terminal
        .secret("New brain key (hidden)", false, parse)
        .await?;
    context.mint = key.map(Mint::Given);
    Ok(())
}

async fn finish(
    rotation: &Arc<Rotation>,
    report: RunReport,
    terminal: &Terminal,
) -> Result<(), Failure> {
    if let Some((step, error)) = report.failure {
        return Err(failed(rotation, step, error, terminal).await);
    }
    rotation.finish().await.map_err(step_failure)?;
    let (Some(before), Some(after)) = (rotation.before(), rotation.after()) else {
        return Err(Failure::words(
            Kind::Other,
            "every step is done, and yet there is no new key",
        ));
    };
    let context = &rotation.context;
    let to_do = (rotation.revoked() != Some(Revoked::Yes)).then(|| {
        let which = match (&before.id, before.stored) {
            (Some(id), _) => id.clone(),
            (None, Some(stored)) => format!(
                "the one that was stored {} as version {}",
                age(stored),
                before.version
            ),
            (None, None) => format!("the one of version {}", before.version),
        };
        let new = match context.mint {
            Some(Mint::Command(_)) => format!("; the new one is labelled `{}`", context.key_label),
            _ => String::new(),
        };
        format!(
            "the old key still works: where the brain runs, revoke {which} of {}{new}",
            context.customer
        )
    });
    let result = Rotated {
        schema: "m8trx.rotate-brain-key/1",
        customer: context.customer.clone(),
        version_before: before.version,
        version_after: after.version,
        old_key_id: before.id.clone(),
        new_key_id: after.id.clone(),
        old_key_revoked: to_do.is_none(),
        to_do,
        hosts: rotation.followed(),
        elapsed_ms: millis(report.elapsed),
    };
    terminal.result(&result).map_err(stdout_failed)
}

/// Puts the old key back where the brain refuses the new one, and says how things stand.
async fn failed(
    rotation: &Arc<Rotation>,
    step: &'static str,
    error: StepError,
    terminal: &Terminal,
) -> Failure {
    let customer = &rotation.context.customer;
    let again =
        format!("run the same command again to finish it (m8trx rotate-brain-key {customer})");
    let stored = rotation.after().is_some();
    let refused = matches!(
        error,
        StepError::Brain(BrainError::Refused { .. } | BrainError::OtherCustomer { .. })
    );
    if matches!(error, StepError::Interrupted) {
        let failure = Failure::words(Kind::Interrupted, format!("interrupted at {step}"));
        return failure.hint(match (stored, rotation.revoked()) {
            (false, _) => "nothing was stored".to_owned(),
            (true, Some(Revoked::Yes)) => {
                format!("the new key is stored, the old one is revoked; {again}")
            }
            (true, _) => format!("both keys are valid; {again}"),
        });
    }
    let failure = step_failure(error).within(format!("{step} failed"));
    if refused && step == "hosts" && stored {
        terminal.say("The brain refuses the new key: putting the old one back.");
        let run = StepRun {
            step,
            // Told by what it did.
            events: Events::channel().0,
            interrupt: CancellationToken::new(),
        };
        return match rotation.roll_back(&run).await {
            Ok(done) => {
                let mut failure = failure.hint(
                    "rolled back: hosts that had taken the new key return to the old one by themselves; look into the brain's log before trying again",
                );
                failure.evidence.extend(done);
                failure
            }
            Err(e) => {
                let mut failure = failure.hint(format!(
                    "the old key could not be put back; mint a key that works: {again}"
                ));
                failure.evidence.extend(step_failure(e).causes);
                failure
            }
        };
    }
    if failure.hint.is_some() {
        return failure;
    }
    failure.hint(if stored {
        format!("the new key is stored, and the old one not revoked; {again}")
    } else {
        "the old key is stored and valid; run the same command again".to_owned()
    })
}
