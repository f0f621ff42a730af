//! `m8trx mint-key`

use std::fmt;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::Global;
use super::execution::{Order, StepLine, Subject, check_may_go_on, step_failure};
use super::inputs::{Given, admin_token};
use super::onboarding::{context, stdout_failed};
use super::target::Target;
use crate::config::Flags;
use crate::customer::CustomerId;
use crate::plan::{Observation, Plan};
use crate::steps::Context;
use crate::steps::brain_key::BrainKeyParameter;
use crate::steps::minted_key::{discard_key, mint_key};
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Longest label, in characters.
const MAX_LABEL_LENGTH: usize = 200;

/// Mint a brain key for a customer; print it once, or store it.
///
/// With --store it is the step of `onboard`: a stored key that the brain accepts is kept, and none is minted.
#[derive(Debug, Args)]
pub struct MintKeyArgs {
    /// The customer id.
    customer: CustomerId,
    /// What the brain is told the key is for [default: m8trx mint-key CUSTOMER].
    #[arg(long, value_name = "TEXT", value_parser = label)]
    label: Option<String>,
    /// Store the key in SSM instead of printing it.
    #[arg(long)]
    store: bool,
    /// Show what would be done, mint nothing.
    #[arg(long)]
    dry_run: bool,
    /// The brain's URL, where none is stored yet [env: M8TRX_BRAIN_URL].
    #[arg(long, value_name = "URL")]
    brain_url: Option<String>,
    /// Command that mints a brain key and prints it; split into words, run without a shell [env: M8TRX_MINT_COMMAND]
    /// [default: node bin/mint-key.js].
    #[arg(long, value_name = "COMMAND")]
    mint_command: Option<String>,
}

fn label(text: &str) -> Result<String, String> {
    let length = text.chars().count();
    if text.trim().is_empty() || length > MAX_LABEL_LENGTH || text.chars().any(char::is_control) {
        return Err(format!(
            "a label has 1 to {MAX_LABEL_LENGTH} characters on one line"
        ));
    }
    Ok(text.to_owned())
}

#[derive(Debug, Serialize)]
struct Minted {
    schema: &'static str,
    customer: CustomerId,
    label: String,
    /// What the brain calls the key, where it says.
    key_id: Option<String>,
    /// The key itself, shown here and nowhere else; `null` when it was stored.
    key: Option<String>,
    /// What storing it did; `null` when it was printed.
    stored: Option<StepLine>,
}

impl fmt::Display for Minted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.key, &self.stored) {
            (Some(key), _) => f.write_str(key),
            (None, Some(step)) => {
                write!(f, "{} {}: {}", step.name, step.outcome, step.detail)
            }
            (None, None) => Ok(()),
        }
    }
}

/// Runs the command.
pub async fn run(args: &MintKeyArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    if args.store {
        check_may_go_on(global, args.dry_run, terminal)?;
    }
    let flags = Flags {
        brain_url: args.brain_url.clone(),
        mint_command: args.mint_command.clone(),
        ..global.flags()
    };
    let target = Target::open(global, &flags, terminal).await?;
    let result = mint(args, &target, terminal).await;
    target.close().await;
    result
}

async fn mint(args: &MintKeyArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let settings = &target.settings;
    let customer = &args.customer;
    let given = Given {
        tailscale_key: None,
        brain_key: None,
        admin_token: admin_token(settings)?,
    };
    if given.mint(settings).is_none() {
        return Err(Failure::words(
            Kind::Precondition,
            "nothing says how to mint a brain key",
        )
        .hint("pass --mint-command 'node bin/mint-key.js', or set M8TRX_BRAIN_ADMIN_TOKEN_FILE or `brain.admin_token_file`"));
    }
    let aws = if args.store {
        target.aws_of(customer, terminal).await?
    } else {
        target.aws(terminal).await?
    };
    let label = args.label.clone().unwrap_or_else(|| match args.store {
        // A key that is stored may be revoked later by its label; one that was handed out may not.
        true => format!("m8trx mint-key --store {customer}"),
        false => format!("m8trx mint-key {customer}"),
    });
    let context = context(customer, None, aws, &given, settings, terminal).await?;
    let context = Arc::new(Context {
        key_label: label.clone(),
        ..context
    });
    if args.store {
        store(args, label, &context, terminal).await
    } else {
        print(args, label, &context, terminal).await
    }
}

async fn store(
    args: &MintKeyArgs,
    label: String,
    context: &Arc<Context>,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let plan = Plan::part(vec![Arc::new(BrainKeyParameter(Arc::clone(context)))])?;
    let order = Order {
        command: "mint-key",
        subject: Subject::customer(&context.customer, &context.aws),
        dry_run: args.dry_run,
        asks: true,
        terminal,
    };
    let Some(report) = order.carry_out(&plan).await? else {
        return Ok(());
    };
    let stored = StepLine::of(&report).into_iter().next();
    if stored
        .as_ref()
        .is_some_and(|step| step.outcome == "unchanged")
    {
        terminal.say("The stored key works, and none was minted.");
    }
    let minted = Minted {
        schema: "m8trx.mint-key/1",
        customer: context.customer.clone(),
        label,
        key_id: None,
        key: None,
        stored,
    };
    terminal.result(&minted).map_err(stdout_failed)
}

async fn print(
    args: &MintKeyArgs,
    label: String,
    context: &Arc<Context>,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let customer = &context.customer;
    if args.dry_run {
        return dry_run(context, terminal).await;
    }
    terminal.interrupt.begin_run();
    let minted = mint_key(context, |what| terminal.say(format!("brain-key: {what}")))
        .await
        .map_err(step_failure)?;
    let parameter = customer.brain_key_parameter();
    terminal.warn(format!(
        "this key is shown once and stored nowhere; whoever has it can report as {customer}. Store it: m8trx params put {parameter}"
    ));
    let result = Minted {
        schema: "m8trx.mint-key/1",
        customer: customer.clone(),
        label,
        key_id: minted.id.clone(),
        key: Some(minted.key.expose().to_owned()),
        stored: None,
    };
    if let Err(e) = terminal.result(&result) {
        // Nobody has seen it, so nobody can use it; what stdout said is what must be told.
        let _ = discard_key(context, &minted).await;
        return Err(stdout_failed(e));
    }
    Ok(())
}

/// The plan of a key that is only printed: what would be minted, and how.
async fn dry_run(context: &Arc<Context>, terminal: &Terminal) -> Result<(), Failure> {
    let step = BrainKeyParameter(Arc::clone(context));
    let how = context
        .mint
        .as_ref()
        .map_or(String::new(), crate::steps::Mint::describe);
    let plan = Plan::part(vec![Arc::new(step)])?;
    let name = plan.steps().first().map_or("", |step| step.name());
    let observed = [(
        name,
        Observation::missing(format!("mint a brain key, {how}, and print it once")),
    )]
    .into_iter()
    .collect();
    let order = Order {
        command: "mint-key",
        subject: Subject::customer(&context.customer, &context.aws),
        dry_run: true,
        asks: false,
        terminal,
    };
    order.carry_out_observed(&plan, &observed).await.map(drop)
}
