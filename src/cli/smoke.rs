//! `m8trx smoke`

mod finish;
mod interrupt;
mod result;

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::Global;
use super::execution::{observe, step_failure, watched};
use super::inputs::{Given, admin_token, ask_for_brain_key, brain_url, give_tailscale_key};
use super::onboarding::{OnboardingArgs, context, plan_document};
use super::target::Target;
use crate::aws::Aws;
use crate::brain::{Brain, BrainUrl};
use crate::customer::CustomerId;
use crate::inventory::{Inventory, Kind as Thing};
use crate::plan::{Events, journal};
use crate::smoke::checks::Findings;
use crate::smoke::{self, removal, report};
use crate::steps::Context;
use crate::tags::Mark;
use crate::tailnet::Tailnet;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};
use finish::Run;
use interrupt::Left;
use result::{Cleaned, stdout};

/// Prove a real environment: take one customer the whole way, check it, and remove everything again.
///
/// The customer must have nothing yet. What the run makes is tagged `m8trx-smoke`; it is removed at the end, also after
/// a failure or Ctrl-C, and nothing else is touched. A run that was killed is finished with --cleanup, from any machine.
#[derive(Debug, Args)]
pub struct SmokeArgs {
    /// The customer id to use; nothing else should use it.
    #[arg(long, value_name = "ID", default_value = "cust_b4_smoke")]
    customer: CustomerId,
    /// Also wait until software on the host reports a `tool_call` event.
    #[arg(long)]
    expect_tool_call: bool,
    /// Leave everything for inspection; --cleanup removes it later.
    #[arg(long)]
    keep: bool,
    /// Write what happened as one self-contained HTML page.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Only remove what earlier runs of this customer left: kept, or killed.
    #[arg(long, conflicts_with_all = ["expect_tool_call", "keep", "report"])]
    cleanup: bool,
    #[command(flatten)]
    onboarding: OnboardingArgs,
}

/// Runs the command.
pub async fn run(args: &SmokeArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    let flags = args.onboarding.flags(global)?;
    let mut terminal = terminal.clone();
    if global.sandbox {
        // Nothing in a sandbox is real, and it has its own keys: there is nothing to ask.
        terminal.interactive = false;
    } else if !terminal.interactive && !global.yes {
        return Err(
            Failure::words(Kind::Usage, "there is no terminal to ask whether to go on")
                .hint("pass --yes to go on without being asked"),
        );
    }
    if let Some(file) = &args.report {
        // Known now rather than after minutes of waiting.
        report::prepare(file).map_err(|e| unwritable(file, &e))?;
    }
    let target = Target::open(global, &flags, &terminal).await?;
    let result = if args.cleanup {
        clean_up(args, &target, &terminal).await
    } else {
        prove(args, &target, &terminal).await
    };
    target.close().await;
    result
}

fn unwritable(file: &std::path::Path, error: &std::io::Error) -> Failure {
    Failure::words(
        Kind::Precondition,
        format!("the report {} cannot be written: {error}", file.display()),
    )
}

/// A run needs a customer of its own: it proves that everything can be made, and removes it.
fn check_unused(found: &Inventory, customer: &CustomerId) -> Result<(), Failure> {
    let Some(first) = found.items.first() else {
        return Ok(());
    };
    let refused = |what: String| {
        let mut failure = Failure::words(Kind::Precondition, what);
        failure.evidence = found.items.iter().map(ToString::to_string).collect();
        failure
    };
    if found.items.iter().all(|item| item.mark.is_some()) {
        let runs: Vec<String> = found.marks().into_iter().map(|mark| mark.value).collect();
        return Err(refused(format!(
            "a smoke run of {customer} is going on, or was killed or kept: {}",
            runs.join(", ")
        ))
        .hint(format!(
            "wait for it, or remove what it left: {}",
            cleanup_command(customer)
        )));
    }
    let has_host = found.items.iter().any(|item| item.kind == Thing::Host);
    Err(refused(if has_host {
        format!("{customer} has a live host that no smoke run made; nothing was changed")
    } else {
        format!(
            "{customer} has things that no smoke run made, a {} for one; nothing was changed",
            first.kind
        )
    })
    .hint("pass another id that nothing uses as --customer"))
}

async fn inventory(
    aws: &Aws,
    tailnet: Option<&Tailnet>,
    customer: &CustomerId,
) -> Result<Inventory, Failure> {
    Inventory::read_all(aws, tailnet, customer)
        .await
        .map_err(step_failure)
}

fn cleanup_command(customer: &CustomerId) -> String {
    format!("m8trx smoke --cleanup --customer {customer}")
}

async fn prove(args: &SmokeArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let settings = &target.settings;
    let customer = &args.customer;
    let given = Given::read(settings)?;
    let aws = target.aws_of(customer, terminal).await?;
    let tailnet = settings.tailnet.clone().map(Tailnet::new);
    let found = inventory(&aws, tailnet.as_ref(), customer).await?;
    check_unused(&found, customer)?;
    let mark = smoke::new_mark(customer);
    let mut context = context(
        customer,
        Some(mark.clone()),
        aws,
        &given,
        settings,
        terminal,
    )
    .await?;
    ask_for_brain_key(&mut context, terminal).await?;
    let context = Arc::new(context);
    let findings = Arc::new(Findings::default());
    let plan = smoke::plan(&context, &findings, args.expect_tool_call)
        .map_err(|e| Failure::new(Kind::Other, &e).within("the steps have no order"))?;
    let observed = observe(&plan).await?;
    give_tailscale_key(
        &context,
        &observed,
        given.tailscale_key,
        settings.suggest,
        terminal,
    )
    .await?;
    let document = plan_document(&plan, &observed, &context, terminal);
    terminal.say("");
    terminal.say(document.to_string());
    terminal.say(format!(
        "Everything it makes is tagged {}={}{}",
        mark.key,
        mark.value,
        if args.keep {
            " and kept."
        } else {
            " and removed at the end."
        }
    ));
    terminal.agree("Go on?").await?;

    let left = Left::default();
    let first = interrupt::begin(customer, args.keep, &left, terminal);
    let mut run = Run::new(args, &context, mark, Arc::clone(&findings));
    let watch = {
        let (left, record) = (left.clone(), run.made());
        move |event: &_| {
            left.event(event);
            record.event(event);
        }
    };
    run.report = Some(
        watched(
            "smoke",
            plan.steps(),
            &context,
            terminal,
            watch,
            async |events: Events| plan.run(&observed, &events, &first).await,
        )
        .await,
    );
    run.look(terminal).await;
    if !args.keep {
        terminal.say("Removing what this run made:");
        let watch = {
            let (left, record) = (left.clone(), run.unmade());
            move |event: &_| {
                left.removal(event);
                record.event(event);
            }
        };
        run.removed = Some(remove(&context, &run.mark, terminal, watch).await);
    }
    run.finish(terminal)
}

async fn remove(
    context: &Arc<Context>,
    mark: &Mark,
    terminal: &Terminal,
    watch: impl FnMut(&crate::plan::Event) + Send + 'static,
) -> removal::Removed {
    watched(
        "smoke-cleanup",
        &removal::steps(context),
        context,
        terminal,
        watch,
        async |events: Events| removal::remove(context, mark, events).await,
    )
    .await
}

async fn clean_up(args: &SmokeArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let customer = &args.customer;
    let settings = &target.settings;
    let token = admin_token(settings)?;
    let aws = target.aws_of(customer, terminal).await?;
    let tailnet = settings.tailnet.clone().map(Tailnet::new);
    let found = inventory(&aws, tailnet.as_ref(), customer).await?;
    let marks = found.marks();
    let mut cleaned = Cleaned::new(customer);
    if marks.is_empty() {
        return stdout(terminal, &cleaned);
    }
    // The brain is asked for nothing but to revoke the key, which needs the token.
    let url = match &token {
        Some(_) => brain_url(&aws, settings, terminal).await?,
        None => never_asked(),
    };
    terminal.say("Left by smoke runs:");
    for item in found.items.iter().filter(|item| item.mark.is_some()) {
        let run = item.mark.as_ref().map_or("", |mark| mark.value.as_str());
        terminal.say(format!("  {item} ({run})"));
    }
    let others: Vec<_> = found.items.iter().filter(|i| i.mark.is_none()).collect();
    if !others.is_empty() {
        terminal.say("Not made by a smoke run, and left alone:");
        for item in others {
            terminal.say(format!("  {item}"));
        }
    }
    terminal.agree("Go on?").await?;
    let left = Left::default();
    interrupt::begin(customer, false, &left, terminal);
    for mark in marks {
        let context = Arc::new(Context {
            tailnet: tailnet.clone(),
            admin_token: token.clone(),
            state_directory: journal::default_directory(&|name| std::env::var(name).ok()),
            mark: Some(mark.clone()),
            ..Context::new(customer.clone(), aws.clone(), Brain::new(url.clone()))
        });
        let left = left.clone();
        left.expect(found.made_by(&mark));
        let removed = remove(&context, &mark, terminal, move |e| left.removal(e)).await;
        cleaned.add(&mark, removed)?;
    }
    stdout(terminal, &cleaned)
}

/// `.invalid` names never resolve (RFC 2606).
fn never_asked() -> BrainUrl {
    "http://brain.invalid"
        .parse()
        .expect("the constant is a URL")
}
