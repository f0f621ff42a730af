//! `m8trx wait`

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;

use super::Global;
use super::execution::{Order, Subject, observe, step_failure};
use super::inputs::stored_brain;
use super::onboarding::stdout_failed;
use super::target::Target;
use crate::aws::ec2::Instance;
use crate::config::{self, Flags};
use crate::customer::CustomerId;
use crate::plan::runner::millis;
use crate::plan::{Observation, Plan};
use crate::resource::Resource;
use crate::steps::Context;
use crate::steps::brain_key::BrainKeyParameter;
use crate::steps::first_heartbeat::FirstHeartbeat;
use crate::tailnet::Tailnet;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{Terminal, text};

/// How long EC2 is given to list a host that was launched a moment ago.
const LISTED_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is asked.
const LISTED_PACE: Duration = Duration::from_millis(500);

/// Wait until the brain has a heartbeat of a customer's host.
///
/// A host that sent one within the last 15 minutes has it at once; one that fails to boot is told within seconds.
#[derive(Debug, Args)]
pub struct WaitArgs {
    /// The customer id.
    customer: CustomerId,
    /// Wait for the next heartbeat, after the newest the brain has now.
    #[arg(long)]
    next: bool,
    /// Show what would be waited for.
    #[arg(long)]
    dry_run: bool,
    /// How long to wait, like `90s` or `10m` [default: 15m].
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    timeout: Option<Duration>,
}

#[derive(Debug, Serialize)]
struct Waited {
    schema: &'static str,
    customer: CustomerId,
    instance_id: String,
    heartbeat: Beat,
    /// Whether it was there already.
    was_there: bool,
    elapsed_ms: u64,
}

#[derive(Debug, Serialize)]
struct Beat {
    hostname: String,
    ts: Timestamp,
}

impl fmt::Display for Waited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} sent a heartbeat at {} (hostname {})",
            self.instance_id,
            self.customer,
            self.heartbeat.ts,
            self.heartbeat.hostname.escape_debug()
        )?;
        if !self.was_there {
            let elapsed = Duration::from_millis(self.elapsed_ms);
            write!(f, ", after {}", text::duration(elapsed))?;
        }
        Ok(())
    }
}

/// Runs the command.
pub async fn run(args: &WaitArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    let flags = Flags {
        timeout: args.timeout,
        ..global.flags()
    };
    let target = Target::open(global, &flags, terminal).await?;
    let result = wait(args, &target, terminal).await;
    target.close().await;
    result
}

async fn wait(args: &WaitArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let settings = &target.settings;
    let customer = &args.customer;
    let aws = target.aws(terminal).await?;
    let brain = stored_brain(&aws, terminal).await?;
    let context = Arc::new(Context {
        tailnet: settings.tailnet.clone().map(Tailnet::new),
        database_url: settings.brain.database_url.clone(),
        timeout: settings.timeout,
        ..Context::new(customer.clone(), aws, brain)
    });
    let host = only_host(&context, terminal).await?;
    let _ = context.found.host.set(host.clone());
    check_key(&context).await?;
    let step = FirstHeartbeat(Arc::clone(&context));
    if args.next
        && let Some(newest) = newest(&step, &host, &context).await?
    {
        let _ = context.found.heartbeat_after.set(newest);
    }
    let plan = Plan::part(vec![Arc::new(step)])?;
    let order = Order {
        command: "wait",
        subject: Subject::customer(customer, &context.aws),
        dry_run: args.dry_run,
        asks: false,
        terminal,
    };
    let carried_out = order.carry_out(&plan).await;
    let Some(report) = carried_out.map_err(Failure::with_the_host_kept)? else {
        return Ok(());
    };
    let Some(heartbeat) = context.found.heartbeat.get() else {
        return Err(Failure::words(
            Kind::Other,
            "every step is done, and yet there is no heartbeat",
        ));
    };
    let waited = Waited {
        schema: "m8trx.wait/1",
        customer: customer.clone(),
        instance_id: host.id,
        heartbeat: Beat {
            hostname: heartbeat.hostname.clone(),
            ts: heartbeat.ts,
        },
        was_there: report
            .steps
            .iter()
            .all(|step| step.outcome.word() == "unchanged"),
        elapsed_ms: millis(report.elapsed),
    };
    terminal.result(&waited).map_err(stdout_failed)
}

/// The customer's host. One that was launched a moment ago may not be listed yet.
async fn only_host(context: &Context, terminal: &Terminal) -> Result<Instance, Failure> {
    let customer = &context.customer;
    let began = std::time::Instant::now();
    let live = loop {
        let mut live = context.aws.customer_instances(customer).await?;
        live.retain(Instance::is_live);
        if !live.is_empty() || began.elapsed() > LISTED_PATIENCE {
            break live;
        }
        if began.elapsed() < LISTED_PACE {
            terminal.say(format!(
                "EC2 lists no live host of {customer}; one that was just launched is listed within seconds"
            ));
        }
        tokio::time::sleep(LISTED_PACE).await;
    };
    match live.as_slice() {
        [] => Err(
            Failure::words(Kind::Precondition, format!("{customer} has no live host"))
                .hint(format!("launch one: m8trx launch {customer}")),
        ),
        [host] if matches!(host.state.as_str(), "stopped" | "stopping") => Err(Failure::words(
            Kind::Precondition,
            format!("the host {} of {customer} is {}", host.id, host.state),
        )
        .hint(format!("start it: m8trx launch {customer}"))),
        [host] => Ok(host.clone()),
        more => {
            let ids: Vec<&str> = more.iter().map(|host| host.id.as_str()).collect();
            Err(Failure::words(
                Kind::Precondition,
                format!("{customer} has {} live hosts: {}", ids.len(), ids.join(", ")),
            )
            .hint("a customer has one host: end the others with `aws ec2 terminate-instances --instance-ids …`"))
        }
    }
}

/// The brain is asked with the customer's own key, unless its database is.
async fn check_key(context: &Arc<Context>) -> Result<(), Failure> {
    if context.database_url.is_some() {
        return Ok(());
    }
    let plan = Plan::part(vec![Arc::new(BrainKeyParameter(Arc::clone(context)))])?;
    let observed = observe(&plan).await?;
    match observed.get(Resource::BrainKey.name()) {
        // A key that works is known, also where something about it is still to be noted.
        Some(observation)
            if !observation.is_satisfied() && context.found.brain_key.get().is_none() =>
        {
            let customer = &context.customer;
            let mut failure = Failure::words(
                Kind::Precondition,
                format!("the brain cannot be asked for heartbeats of {customer} without its key"),
            )
            .hint(format!("mint one: m8trx mint-key {customer} --store"));
            if let Observation::Drifted { differences } = observation {
                failure.evidence.extend(differences.first().cloned());
            }
            Err(failure)
        }
        _ => Ok(()),
    }
}

/// When the newest heartbeat of the host was, as of now.
async fn newest(
    step: &FirstHeartbeat,
    host: &Instance,
    context: &Context,
) -> Result<Option<Timestamp>, Failure> {
    let key = context.found.brain_key.get();
    let all = step
        .heartbeats(host, key, Timestamp::UNIX_EPOCH)
        .await
        .map_err(|error| step_failure(error.into()))?;
    Ok(all.of(host.into()).map(|heartbeat| heartbeat.ts))
}
