//! `m8trx tailnet devices`

use std::collections::BTreeMap;
use std::fmt;

use clap::Args;
use comfy_table::{ContentArrangement, Table, presets};
use futures::StreamExt as _;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::super::Global;
use super::super::inputs::brain_url;
use super::super::onboarding::stdout_failed;
use super::super::target::Target;
use super::client;
use crate::aws::Aws;
use crate::aws::ec2::Instance;
use crate::brain::heartbeat::Host;
use crate::brain::{Brain, Feeds, Heartbeats};
use crate::customer::CustomerId;
use crate::secret::{BrainKey, ExposeSecret as _};
use crate::tailnet::devices::Device;
use crate::tailnet::standing::{device_of_host, trouble};
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{Terminal, text};

/// How many customers' heartbeats are asked for at the same time.
const AT_ONCE: usize = 8;
/// An older heartbeat is not looked for.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(30 * 24);

/// Show customers' devices beside their hosts and heartbeats.
#[derive(Debug, Args)]
pub struct DevicesArgs {
    /// Only this customer's.
    customer: Option<CustomerId>,
}

/// Everything that was found, one row for each host or device.
#[derive(Debug, Serialize)]
struct Devices {
    schema: &'static str,
    devices: Vec<Row>,
    #[serde(skip)]
    width: Option<u16>,
    #[serde(skip)]
    now: Timestamp,
}

/// A customer's device, its host and the customer's heartbeat, as far as each is there.
#[derive(Debug, Serialize)]
struct Row {
    customer: CustomerId,
    device: Option<DeviceCell>,
    host: Option<HostCell>,
    heartbeat: Option<HeartbeatCell>,
    problem: Option<String>,
    fix: Option<String>,
    /// The host's own name, by which a heartbeat without an id is known.
    #[serde(skip)]
    dns_name: Option<String>,
    #[serde(skip)]
    launched: Option<Timestamp>,
}

#[derive(Debug, Serialize)]
struct DeviceCell {
    node_id: String,
    hostname: String,
    addresses: Vec<String>,
    tags: Vec<String>,
    online: bool,
    last_seen: Option<Timestamp>,
    authorized: bool,
    locked_out: bool,
    ephemeral: bool,
}

#[derive(Debug, Serialize)]
struct HostCell {
    instance_id: String,
    state: String,
}

#[derive(Debug, Clone, Serialize)]
struct HeartbeatCell {
    hostname: String,
    ts: Timestamp,
}

/// Runs the command.
pub(super) async fn run(
    args: &DevicesArgs,
    global: &Global,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let target = Target::open(global, &global.flags(), terminal).await?;
    let result = show(args.customer.as_ref(), &target, terminal).await;
    target.close().await;
    result
}

async fn show(
    only: Option<&CustomerId>,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let tailnet = client(&target.settings)?;
    let aws = target.aws(terminal).await?;
    let devices = tailnet.devices().await?;
    let hosts = match only {
        Some(customer) => aws.customer_instances(customer).await?,
        None => aws.customers_instances(None).await?,
    };
    let mut rows = join(only, &devices, &hosts);
    let beats = heartbeats(&rows, &aws, target, terminal).await;
    for row in &mut rows {
        let Some(beats) = beats.get(&row.customer) else {
            continue;
        };
        if let Some(beat) = beats.of(row.machine()) {
            row.heartbeat = Some(HeartbeatCell {
                hostname: beat.hostname.clone(),
                ts: beat.ts,
            });
        }
    }
    let document = Devices {
        schema: "m8trx.tailnet-devices/1",
        devices: rows,
        width: terminal.columns(),
        now: Timestamp::now(),
    };
    terminal.result(&document).map_err(stdout_failed)
}

/// One row for each live host, with its device, and one for each customer's device that has no host.
fn join(only: Option<&CustomerId>, devices: &[Device], hosts: &[Instance]) -> Vec<Row> {
    let wanted = |customer: &CustomerId| only.is_none_or(|only| only == customer);
    let mut rows = Vec::new();
    let mut taken: Vec<&str> = Vec::new();
    for host in hosts.iter().filter(|host| host.is_live()) {
        let Some(customer) = host.customer.as_deref().and_then(|id| id.parse().ok()) else {
            continue;
        };
        if !wanted(&customer) {
            continue;
        }
        let device = device_of_host(devices, &customer, host.into());
        taken.extend(device.map(|device| device.node_id.as_str()));
        rows.push(row(customer, device, Some(host)));
    }
    for device in devices {
        let customer = device
            .tags
            .iter()
            .find_map(|tag| CustomerId::from_tailscale_tag(tag));
        if let Some(customer) = customer
            && wanted(&customer)
            && !taken.contains(&device.node_id.as_str())
        {
            rows.push(row(customer, Some(device), None));
        }
    }
    rows.sort_by(|a, b| a.customer.cmp(&b.customer));
    rows
}

fn row(customer: CustomerId, device: Option<&Device>, host: Option<&Instance>) -> Row {
    let trouble = device.and_then(|device| trouble(device, &customer));
    let (problem, fix) = match trouble {
        Some(trouble) => (Some(trouble.what), Some(trouble.fix)),
        None => match (device, host) {
            (None, Some(host)) if host.state == "running" => (
                Some("its host is not in the tailnet".to_owned()),
                Some(format!(
                    "its console says why: aws ec2 get-console-output --latest --output text --instance-id {}",
                    host.id
                )),
            ),
            (Some(device), None) if device.is_online() => (
                Some(format!(
                    "its device {} is connected, and no live host of this account and region is it",
                    device.node_id
                )),
                Some(
                    "find out what it is; remove it in the admin console under Machines".to_owned(),
                ),
            ),
            _ => (None, None),
        },
    };
    Row {
        device: device.map(|device| DeviceCell {
            node_id: device.node_id.clone(),
            hostname: device.hostname.clone(),
            addresses: device.addresses.clone(),
            tags: device.tags.clone(),
            online: device.is_online(),
            last_seen: device.last_seen,
            authorized: device.authorized,
            locked_out: device.is_locked_out(),
            ephemeral: device.is_ephemeral,
        }),
        host: host.map(|host| HostCell {
            instance_id: host.id.clone(),
            state: host.state.clone(),
        }),
        heartbeat: None,
        dns_name: host.and_then(|host| host.private_dns_name.clone()),
        launched: host.and_then(|host| host.launched),
        problem,
        fix,
        customer,
    }
}

/// The heartbeats of each customer. What cannot be read is reported once, and is no reason not to show the rest.
async fn heartbeats(
    rows: &[Row],
    aws: &Aws,
    target: &Target,
    terminal: &Terminal,
) -> BTreeMap<CustomerId, Heartbeats> {
    if rows.is_empty() {
        return BTreeMap::new();
    }
    // Nothing is asked: this command only shows.
    let mut silent = terminal.clone();
    silent.interactive = false;
    let feeds = match brain_url(aws, &target.settings, &silent).await {
        Ok(url) => Feeds::new(Brain::new(url), target.settings.brain.database_url.clone()),
        Err(failure) => {
            terminal.warn(format!("no heartbeats: {}", failure.in_a_line()));
            return BTreeMap::new();
        }
    };
    let mut hosts: BTreeMap<&CustomerId, Vec<Host<'_>>> = BTreeMap::new();
    for row in rows {
        hosts.entry(&row.customer).or_default().push(row.machine());
    }
    let feeds = &feeds;
    let answers: Vec<_> = futures::stream::iter(hosts)
        .map(|(customer, hosts)| async move {
            (
                customer.clone(),
                of_customer(customer, &hosts, aws, feeds).await,
            )
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut beats = BTreeMap::new();
    let mut known: Vec<String> = Vec::new();
    for (customer, answer) in answers {
        match answer {
            Ok(all) => {
                beats.insert(customer, all);
            }
            Err(failure) => {
                let text = failure.in_a_line();
                if !known.contains(&text) {
                    terminal.warn(format!("no heartbeat of {customer}: {text}"));
                    known.push(text);
                }
            }
        }
    }
    beats
}

async fn of_customer(
    customer: &CustomerId,
    hosts: &[Host<'_>],
    aws: &Aws,
    feeds: &Feeds,
) -> Result<Heartbeats, Failure> {
    let since = Timestamp::now()
        .checked_sub(LOOK_BACK)
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let stored = match feeds.needs_key() {
        true => aws.parameter(&customer.brain_key_parameter()).await?,
        false => None,
    };
    let key = match stored {
        Some(stored) => Some(
            BrainKey::parse(stored.value.expose_secret())
                .map_err(|e| Failure::new(Kind::Precondition, &e))?,
        ),
        None => None,
    };
    feeds
        .heartbeats(customer, key.as_ref(), hosts, since)
        .await
        .map_err(Failure::from)
}

impl Row {
    /// The machine: its host, or what the device's name says, which ends in the instance's id.
    fn machine(&self) -> Host<'_> {
        let device = self.device.as_ref().map(|device| device.hostname.as_str());
        let id_in_name = device.and_then(|name| name.rfind("i-").map(|at| &name[at..]));
        Host {
            id: match &self.host {
                Some(host) => &host.instance_id,
                None => id_in_name.unwrap_or_default(),
            },
            name: self.dns_name.as_deref().or(device),
            launched: self.launched,
        }
    }

    fn state(&self) -> String {
        match &self.device {
            None => "no device".to_owned(),
            Some(device) if device.locked_out => "locked out".to_owned(),
            Some(device) if !device.authorized => "not approved".to_owned(),
            Some(device) if device.online => "connected".to_owned(),
            Some(device) => match device.last_seen {
                Some(seen) => format!("offline since {seen:.0}"),
                None => "offline".to_owned(),
            },
        }
    }
}

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.devices.is_empty() {
            return write!(f, "No customer has a host or a device.");
        }
        let mut table = Table::new();
        table
            .load_style(presets::NOTHING)
            .set_content_arrangement(ContentArrangement::Dynamic);
        if let Some(width) = self.width {
            table.set_width(width);
        }
        table.set_header([
            "CUSTOMER",
            "DEVICE",
            "ADDRESS",
            "STATE",
            "HOST",
            "HEARTBEAT",
        ]);
        let none = || "-".to_owned();
        for row in &self.devices {
            let device = row.device.as_ref();
            table.add_row([
                row.customer.to_string(),
                device.map_or_else(none, |d| format!("{} {}", d.hostname, d.node_id)),
                device
                    .and_then(|d| d.addresses.first().cloned())
                    .unwrap_or_else(none),
                row.state(),
                row.host
                    .as_ref()
                    .map_or_else(none, |host| format!("{} {}", host.instance_id, host.state)),
                row.heartbeat.as_ref().map_or_else(none, |beat| {
                    format!("{} ago", text::age(self.now.duration_since(beat.ts)))
                }),
            ]);
        }
        let lines: Vec<String> = table
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect();
        write!(f, "{}", lines.join("\n"))?;
        for row in &self.devices {
            if let (Some(problem), Some(fix)) = (&row.problem, &row.fix) {
                write!(f, "\n\n{}: {problem}\n  {fix}", row.customer)?;
            }
        }
        Ok(())
    }
}
