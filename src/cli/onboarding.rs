//! What every command that onboards takes from the command line, and the context it makes of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Global;
use super::inputs::{Given, answering, brain_url, check_brain_key};
use crate::aws::Aws;
use crate::config::{self, Flags, Settings};
use crate::customer::CustomerId;
use crate::plan::{Observation, Plan, journal};
use crate::steps::Context;
use crate::tags::Mark;
use crate::tailnet::Tailnet;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::plan_table::PlanDocument;

/// How keys are come by and what a new host is like.
#[derive(Debug, Args)]
pub struct OnboardingArgs {
    /// The brain's URL, where none is stored yet [env: M8TRX_BRAIN_URL].
    #[arg(long, value_name = "URL")]
    brain_url: Option<String>,
    /// File with the customer's Tailscale auth key; `-` for standard input [env: M8TRX_TAILSCALE_KEY_FILE].
    #[arg(long, value_name = "FILE")]
    tailscale_key_file: Option<PathBuf>,
    /// Command that mints a brain key and prints it; split into words, run without a shell [env: M8TRX_MINT_COMMAND]
    /// [default: node bin/mint-key.js].
    #[arg(long, value_name = "COMMAND")]
    mint_command: Option<String>,
    /// File with a brain key minted elsewhere; `-` for standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "mint_command")]
    brain_key_file: Option<PathBuf>,
    /// Instance type of a new host [default: t3.small].
    #[arg(long, value_name = "TYPE")]
    instance_type: Option<String>,
    /// Subnet of a new host [default: one of the default VPC].
    #[arg(long, value_name = "ID")]
    subnet: Option<String>,
    /// Image of a new host [default: Ubuntu 22.04 of the region].
    #[arg(long, value_name = "ID")]
    ami: Option<String>,
    /// How long to wait for the first heartbeat, like `90s` or `10m` [default: 15m].
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration)]
    timeout: Option<Duration>,
}

impl OnboardingArgs {
    /// The flags that settings are made of.
    pub(super) fn flags(&self, global: &Global) -> Result<Flags, Failure> {
        let from_stdin = |file: &Option<PathBuf>| file.as_deref() == Some(Path::new("-"));
        if from_stdin(&self.brain_key_file) && from_stdin(&self.tailscale_key_file) {
            return Err(Failure::words(
                Kind::Usage,
                "--brain-key-file - and --tailscale-key-file - cannot both read standard input",
            ));
        }
        Ok(Flags {
            brain_url: self.brain_url.clone(),
            mint_command: self.mint_command.clone(),
            brain_key_file: self.brain_key_file.clone(),
            tailscale_key_file: self.tailscale_key_file.clone(),
            instance_type: self.instance_type.clone(),
            subnet: self.subnet.clone(),
            ami: self.ami.clone(),
            timeout: self.timeout,
            ..global.flags()
        })
    }
}

/// Finds the brain, sees that it answers, and brings together what the steps need.
pub(super) async fn context(
    customer: &CustomerId,
    mark: Option<Mark>,
    aws: Aws,
    given: &Given,
    settings: &Settings,
    terminal: &Terminal,
) -> Result<Context, Failure> {
    let url = brain_url(&aws, settings, terminal).await?;
    let brain = answering(url, terminal).await?;
    if let Some(key) = &given.brain_key {
        check_brain_key(&brain, customer, key).await?;
    }
    let tailnet = settings.tailnet.clone().map(Tailnet::new);
    if let Some(tailnet) = &tailnet {
        // A wrong secret is known now rather than when half of the plan is done.
        tailnet.sign_in().await?;
        for id in tailnet.client_ids() {
            terminal.say(format!("Tailscale takes the OAuth client {id}"));
        }
    }
    let context = Context {
        tailnet,
        mint: given.mint(settings),
        admin_token: given.admin_token.clone(),
        database_url: settings.brain.database_url.clone(),
        instance_type: settings.instance_type.clone(),
        subnet: settings.subnet.clone(),
        ami: settings.ami.clone(),
        timeout: settings.timeout,
        pace: settings.pace,
        state_directory: journal::default_directory(&|name| std::env::var(name).ok()),
        mark,
        ..Context::new(customer.clone(), aws, brain)
    };
    // Nothing is made for a host whose heartbeat could then not be read.
    context
        .feeds()
        .check()
        .await
        .map_err(|error| Failure::new(Kind::Precondition, &error).maybe_hint(error.hint()))?;
    Ok(context)
}

/// What the plan would change, laid out for the terminal.
pub(super) fn plan_document(
    plan: &Plan,
    observed: &std::collections::HashMap<&'static str, Observation>,
    context: &Context,
    terminal: &Terminal,
) -> PlanDocument {
    let document = PlanDocument::new(
        plan,
        observed,
        context.customer.as_str(),
        &context.aws.account,
        &context.aws.region,
    );
    match terminal.columns() {
        Some(columns) => document.with_width(columns),
        None => document,
    }
}

pub(super) fn stdout_failed(error: std::io::Error) -> Failure {
    Failure::words(Kind::Other, format!("stdout cannot be written to: {error}"))
}
