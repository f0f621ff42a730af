//! `m8trx launch`

use std::fmt;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::Global;
use super::execution::{Order, StepLine, Subject, check_may_go_on, observe};
use super::inputs::stored_brain;
use super::onboarding::stdout_failed;
use super::target::Target;
use crate::config::Flags;
use crate::customer::CustomerId;
use crate::home;
use crate::plan::{Observation, Plan, journal};
use crate::resource::Resource;
use crate::steps::{self, Context};
use crate::tailnet::Tailnet;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Launch a customer's host, or start the one that is stopped. Nothing is done where one is live.
///
/// What the host will read must be there already: `m8trx onboard` makes all of it.
#[derive(Debug, Args)]
pub struct LaunchArgs {
    /// The customer id.
    customer: CustomerId,
    /// Show what would be done, change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Instance type of a new host [default: t3.small].
    #[arg(long, value_name = "TYPE")]
    instance_type: Option<String>,
    /// Subnet of a new host [default: one of the default VPC].
    #[arg(long, value_name = "ID")]
    subnet: Option<String>,
    /// Image of a new host [default: Ubuntu 22.04 of the region].
    #[arg(long, value_name = "ID")]
    ami: Option<String>,
}

#[derive(Debug, Serialize)]
struct Launched {
    schema: &'static str,
    customer: CustomerId,
    instance_id: String,
    /// What became of the host: `created`, `updated`, `adopted` or `unchanged`.
    outcome: &'static str,
    steps: Vec<StepLine>,
}

impl fmt::Display for Launched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (customer, host) = (&self.customer, &self.instance_id);
        match self.outcome {
            "created" => write!(f, "{host} is launched for {customer}"),
            "updated" => write!(
                f,
                "{host} of {customer} was there, and was mended or started"
            ),
            _ => write!(f, "{host} of {customer} is live, and nothing was changed"),
        }
    }
}

/// Runs the command.
pub async fn run(args: &LaunchArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    check_may_go_on(global, args.dry_run, terminal)?;
    let flags = Flags {
        instance_type: args.instance_type.clone(),
        subnet: args.subnet.clone(),
        ami: args.ami.clone(),
        ..global.flags()
    };
    let target = Target::open(global, &flags, terminal).await?;
    let result = launch(args, &target, terminal).await;
    target.close().await;
    result
}

async fn launch(args: &LaunchArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let settings = &target.settings;
    let customer = &args.customer;
    let aws = target.aws_of(customer, terminal).await?;
    let brain = stored_brain(&aws, terminal).await?;
    let context = Arc::new(Context {
        instance_type: settings.instance_type.clone(),
        subnet: settings.subnet.clone(),
        ami: settings.ami.clone(),
        tailnet: settings.tailnet.clone().map(Tailnet::new),
        state_directory: journal::default_directory(&|name| std::env::var(name).ok()),
        ..Context::new(customer.clone(), aws, brain)
    });
    let needed = steps::needed_by_host(&context)?;
    let made = [Resource::Image, Resource::SecurityGroup, Resource::Host];
    let plan = Plan::part(
        made.into_iter()
            .filter_map(|resource| steps::step(resource, &context))
            .collect(),
    )?;
    let observed = observe(&plan).await?;
    if !observed
        .get(Resource::Host.name())
        .is_some_and(Observation::is_satisfied)
    {
        check_needed(customer, &needed).await?;
    }
    let order = Order {
        command: "launch",
        subject: Subject::customer(customer, &context.aws),
        dry_run: args.dry_run,
        asks: true,
        terminal,
    };
    let Some(report) = order.carry_out_observed(&plan, &observed).await? else {
        return Ok(());
    };
    let steps = StepLine::of(&report);
    let outcome = steps
        .iter()
        .find(|step| step.name == Resource::Host.name())
        .map(|step| step.outcome);
    let (Some(host), Some(outcome)) = (context.found.host.get(), outcome) else {
        return Err(Failure::words(
            Kind::Other,
            "every step is done, and yet there is no host",
        ));
    };
    terminal.say(format!(
        "Its heartbeat is waited for with: m8trx wait {customer}"
    ));
    let launched = Launched {
        schema: "m8trx.launch/1",
        customer: customer.clone(),
        instance_id: host.id.clone(),
        outcome,
        steps,
    };
    terminal.result(&launched).map_err(stdout_failed)
}

/// A host that cannot read what it needs fails after minutes: better said before it is launched.
async fn check_needed(customer: &CustomerId, needed: &Plan) -> Result<(), Failure> {
    let observed = observe(needed).await?;
    let mut lacking = Vec::new();
    let mut remedies = Vec::new();
    for step in needed.steps() {
        let name = step.name();
        let why = match observed.get(name) {
            None | Some(Observation::Satisfied { .. }) => continue,
            Some(Observation::Missing { .. }) => "not there",
            Some(drifted) if drifted.lines() == [home::TAG_IS_MISSING] => continue,
            // The first line says why, or what comes first.
            Some(drifted) => drifted.lines().first().copied().unwrap_or_default(),
        };
        lacking.push(format!("{name}: {why}"));
        let remedy = Resource::named(name).map_or_else(
            || format!("m8trx onboard {customer}"),
            |resource| resource.remedy(customer),
        );
        if !remedies.contains(&remedy) {
            remedies.push(remedy);
        }
    }
    if lacking.is_empty() {
        return Ok(());
    }
    let mut failure = Failure::words(
        Kind::Precondition,
        format!("a host of {customer} would not come up as things are; nothing was changed"),
    )
    .hint(format!(
        "mend it: {}; or `m8trx onboard {customer}`, which does all of it",
        remedies.join(", ")
    ));
    failure.evidence = lacking;
    Err(failure)
}
