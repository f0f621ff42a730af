//! `m8trx tailnet lock`

use std::fmt;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::super::Global;
use super::super::onboarding::stdout_failed;
use super::super::target::Target;
use super::client;
use crate::customer::CustomerId;
use crate::tailnet::devices::Device;
use crate::tailnet::lock;
use crate::terminal::Terminal;
use crate::terminal::failure::{Failure, Kind};

/// Let in what Tailnet Lock shuts out.
#[derive(Debug, Args)]
pub struct LockArgs {
    #[command(subcommand)]
    command: LockCommand,
}

#[derive(Debug, Subcommand)]
enum LockCommand {
    Sign(SignArgs),
}

/// Sign a customer's locked-out nodes with this machine's `tailscale lock sign`.
///
/// The machine must be a signing node of the tailnet. What is signed is shown first.
#[derive(Debug, Args)]
struct SignArgs {
    /// The customer id.
    customer: CustomerId,
}

#[derive(Debug, Serialize)]
struct Signed {
    schema: &'static str,
    customer: CustomerId,
    signed: Vec<SignedNode>,
}

#[derive(Debug, Serialize)]
struct SignedNode {
    node_id: String,
    hostname: String,
    node_key: String,
}

impl fmt::Display for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.signed.as_slice() {
            [] => write!(
                f,
                "Tailnet Lock shuts out no device of {}: nothing to sign",
                self.customer
            ),
            [one] => write!(
                f,
                "signed {} ({}) of {}",
                one.hostname, one.node_id, self.customer
            ),
            many => write!(f, "signed {} devices of {}", many.len(), self.customer),
        }
    }
}

/// Runs the subcommand.
pub(super) async fn run(
    args: &LockArgs,
    global: &Global,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let LockCommand::Sign(args) = &args.command;
    if !terminal.interactive && !global.yes {
        return Err(
            Failure::words(Kind::Usage, "there is no terminal to ask whether to sign")
                .hint("pass --yes to sign without being asked"),
        );
    }
    let target = Target::open(global, &global.flags(), terminal).await?;
    let result = sign(&args.customer, &target, terminal).await;
    target.close().await;
    result
}

async fn sign(customer: &CustomerId, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let tailnet = client(&target.settings)?;
    let devices = tailnet.devices_tagged(&customer.tailscale_tag()).await?;
    if devices.is_empty() {
        return Err(Failure::words(
            Kind::Precondition,
            format!(
                "the tailnet has no device tagged {}",
                customer.tailscale_tag()
            ),
        )
        .hint(format!(
            "see where its host stands: m8trx tailnet devices {customer}"
        )));
    }
    let locked: Vec<&Device> = devices
        .iter()
        .filter(|device| device.is_locked_out())
        .collect();
    for device in &locked {
        terminal.say(format!("{} ({})", device.hostname, device.node_id));
        terminal.say(format!("  tags       {}", device.tags.join(", ")));
        terminal.say(format!("  addresses  {}", device.addresses.join(", ")));
        if let Some(created) = device.created {
            terminal.say(format!("  joined     {created:.0}"));
        }
        terminal.say(format!("  node key   {}", device.node_key));
    }
    if !locked.is_empty()
        && terminal.interactive
        && !terminal
            .confirm("Sign with this machine's key for Tailnet Lock?")
            .await?
    {
        return Err(Failure::words(
            Kind::Interrupted,
            "not signed; nothing was changed",
        ));
    }
    let mut result = Signed {
        schema: "m8trx.tailnet-lock-sign/1",
        customer: customer.clone(),
        signed: Vec::new(),
    };
    terminal.interrupt.begin_run();
    for device in locked {
        terminal
            .interrupt
            .check("interrupted; not every device is signed")?;
        lock::sign_node(&device.node_key).await.map_err(|error| {
            Failure::from(error).within(format!("{} was not signed", device.node_id))
        })?;
        result.signed.push(SignedNode {
            node_id: device.node_id.clone(),
            hostname: device.hostname.clone(),
            node_key: device.node_key.clone(),
        });
    }
    terminal.result(&result).map_err(stdout_failed)
}
