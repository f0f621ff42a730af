//! `m8trx brain-url`

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;

use super::Global;
use super::execution::{Order, Subject, check_may_go_on, step_failure};
use super::onboarding::stdout_failed;
use super::target::Target;
use crate::aws::Aws;
use crate::brain::{Brain, BrainUrl};
use crate::config::{self, Flags};
use crate::customer::BRAIN_URL_PARAMETER;
use crate::parameter::{ParameterId, Value};
use crate::plan::{Plan, Step};
use crate::resource::Resource;
use crate::secret::ExposeSecret as _;
use crate::steps::hosts_follow::{Fleet, Following, HostsFollow};
use crate::steps::stored_parameter::StoredParameter;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{Terminal, text};

/// Read the brain's URL, or move the whole fleet to another one.
#[derive(Debug, Args)]
pub struct BrainUrlArgs {
    #[command(subcommand)]
    command: BrainUrlCommand,
}

#[derive(Debug, Subcommand)]
enum BrainUrlCommand {
    Get(GetArgs),
    Set(SetArgs),
}

/// Print the stored URL.
#[derive(Debug, Args)]
struct GetArgs {
    /// Also show how many hosts have reported to it since it was stored.
    #[arg(long)]
    hosts: bool,
}

/// Store another URL, after checking that a brain answers there; shows how many hosts have followed.
///
/// Hosts keep the URL they know until a heartbeat to it fails, and then read the stored one: within five minutes after the old
/// brain has stopped answering. They follow within the tailnet, or the domain of the brain they were launched with, and
/// nowhere else: whoever can write this one parameter must not get their keys. Beyond that, a new host is needed.
#[derive(Debug, Args)]
struct SetArgs {
    /// `http://host[:port]` or https.
    url: String,
    /// Wait until every running host reports there.
    #[arg(long)]
    wait: bool,
    /// How long to wait, like `90s` or `10m` [default: 15m].
    #[arg(long, value_name = "DURATION", value_parser = config::parse_duration, requires = "wait")]
    timeout: Option<Duration>,
    /// Go on although the brain there refuses keys of customers whose hosts run, or those hosts do not follow there.
    #[arg(long)]
    force: bool,
    /// Show what would be done, change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// Runs the subcommand.
pub async fn run(args: &BrainUrlArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    match &args.command {
        BrainUrlCommand::Get(args) => {
            let target = Target::open(global, &global.flags(), terminal).await?;
            let result = get(args, &target, terminal).await;
            target.close().await;
            result
        }
        BrainUrlCommand::Set(args) => {
            check_may_go_on(global, args.dry_run, terminal)?;
            let url: BrainUrl = args
                .url
                .parse()
                .map_err(|e| Failure::new(Kind::Precondition, &e))?;
            let flags = Flags {
                timeout: args.timeout,
                ..global.flags()
            };
            let target = Target::open(global, &flags, terminal).await?;
            let result = set(args, url, &target, terminal).await;
            target.close().await;
            result
        }
    }
}

#[derive(Debug, Serialize)]
struct Got {
    schema: &'static str,
    url: String,
    version: i64,
    modified: Option<Timestamp>,
    /// Only where it was asked for.
    hosts: Option<Following>,
    #[serde(skip)]
    now: Timestamp,
}

impl fmt::Display for Got {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.url.escape_debug())?;
        let Some(hosts) = &self.hosts else {
            return Ok(());
        };
        let stored = self.modified.map_or(String::new(), |at| {
            format!(", stored {}", text::ago(at, self.now))
        });
        write!(f, "\nversion {}{stored}\n{}", self.version, summary(hosts))?;
        for host in &hosts.missing {
            write!(f, "\n  {host}")?;
        }
        Ok(())
    }
}

fn summary(hosts: &Following) -> String {
    match hosts.hosts {
        0 => "No host runs.".to_owned(),
        count => format!(
            "{} of {} that run reported to it since.",
            hosts.following,
            text::counted(count, "host")
        ),
    }
}

async fn get(args: &GetArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let aws = target.aws(terminal).await?;
    let Some(stored) = aws.parameter(BRAIN_URL_PARAMETER).await? else {
        return Err(Failure::words(
            Kind::Precondition,
            format!("there is no {BRAIN_URL_PARAMETER}"),
        )
        .hint("store it: m8trx brain-url set http://…"));
    };
    let url = stored.value.expose_secret().to_owned();
    let hosts = if args.hosts {
        let brain = Brain::new(
            url.parse()
                .map_err(|e| Failure::new(Kind::Precondition, &e))?,
        );
        let since = stored.modified.unwrap_or(Timestamp::UNIX_EPOCH);
        Some(following(&aws, brain, target, since).await?)
    } else {
        None
    };
    let got = Got {
        schema: "m8trx.brain-url-get/1",
        url,
        version: stored.version,
        modified: stored.modified,
        hosts,
        now: Timestamp::now(),
    };
    terminal.result(&got).map_err(stdout_failed)
}

async fn following(
    aws: &Aws,
    brain: Brain,
    target: &Target,
    since: Timestamp,
) -> Result<Following, Failure> {
    let database = target.settings.brain.database_url.clone();
    let fleet = Fleet::find(aws, brain, database)
        .await
        .map_err(step_failure)?;
    fleet.following(since).await.map_err(step_failure)
}

#[derive(Debug, Serialize)]
struct WasSet {
    schema: &'static str,
    url: String,
    outcome: &'static str,
    before: Option<String>,
    version: i64,
    version_before: Option<i64>,
    hosts: Following,
}

impl fmt::Display for WasSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.before, self.outcome) {
            (_, "unchanged") => write!(f, "{} was stored already", self.url)?,
            (Some(before), _) => write!(
                f,
                "{} is stored; before: {}",
                self.url,
                before.escape_debug()
            )?,
            (None, _) => write!(f, "{} is stored", self.url)?,
        }
        write!(f, ", version {}\n{}", self.version, summary(&self.hosts))
    }
}

async fn set(
    args: &SetArgs,
    url: BrainUrl,
    target: &Target,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let aws = target.aws(terminal).await?;
    let brain = Brain::new(url.clone());
    brain.probe().await?;
    brain.identify().await?;
    terminal.say(format!("A brain answers at {url}"));
    let before = aws.parameter(BRAIN_URL_PARAMETER).await?;
    let before = before.map(|before| before.value.expose_secret().to_owned());
    let database = target.settings.brain.database_url.clone();
    let fleet = Fleet::find(&aws, brain, database)
        .await
        .map_err(step_failure)?;
    check_keys(args, &fleet, &url, terminal).await?;
    let follows = check_follows(args, &fleet, before.as_deref(), &url, terminal)?;
    if fleet.hosts() > 0 && follows {
        terminal.say(format!(
            "{} of {} running: each reads the stored URL when a beat to the one it knows fails",
            text::counted(fleet.hosts(), "host"),
            text::counted(fleet.customers(), "customer")
        ));
    }
    let fleet = Arc::new(fleet);
    let subject = Subject::fleet(&aws);
    let step = Arc::new(StoredParameter::new(
        aws,
        ParameterId::BrainUrl,
        Value::BrainUrl(url.clone()),
    ));
    let mut steps: Vec<Arc<dyn Step>> = vec![step.clone()];
    if args.wait {
        steps.push(Arc::new(HostsFollow {
            fleet: Arc::clone(&fleet),
            timeout: target.settings.timeout,
        }));
    }
    let order = Order {
        command: "brain-url-set",
        subject,
        dry_run: args.dry_run,
        asks: true,
        terminal,
    };
    let Some(report) = order.carry_out(&Plan::part(steps)?).await? else {
        return Ok(());
    };
    let since = fleet.moved().await.map_err(step_failure)?;
    let hosts = fleet
        .following(since.unwrap_or_else(Timestamp::now))
        .await
        .map_err(step_failure)?;
    if !hosts.missing.is_empty() && follows {
        terminal.say("Hosts follow when a beat to the old brain fails: while it answers, they keep to it. `m8trx brain-url get --hosts` shows who has.");
    }
    let stored = step.stored.get();
    let set = WasSet {
        schema: "m8trx.brain-url-set/1",
        url: url.to_string(),
        outcome: report
            .steps
            .iter()
            .find(|step| step.name == Resource::BrainUrl.name())
            .map_or("unchanged", |step| step.outcome.word()),
        before,
        version: stored.map_or(0, |stored| stored.version),
        version_before: stored.and_then(|stored| stored.before),
        hosts,
    };
    terminal.result(&set).map_err(stdout_failed)
}

/// Whether hosts that run follow from the stored URL to this one. Where they do not, a person must know it before.
fn check_follows(
    args: &SetArgs,
    fleet: &Fleet,
    before: Option<&str>,
    url: &BrainUrl,
    terminal: &Terminal,
) -> Result<bool, Failure> {
    let Some(before) = before.and_then(|before| before.parse::<BrainUrl>().ok()) else {
        return Ok(true);
    };
    // Of two names in tailnets, both must be of one; otherwise a name like that is the tailnet's.
    let tailnet = before.tailnet().or_else(|| url.tailnet());
    if fleet.hosts() == 0 || url.is_followed_from(&before, tailnet.as_deref()) {
        return Ok(true);
    }
    let what = format!(
        "the hosts that run do not follow from {before} to {url}: a host follows a moved brain within the tailnet, or the domain of the brain it was launched with"
    );
    let how = "to move them beyond that, store the URL with --force and replace each host by a new one: terminate it (aws ec2 terminate-instances --instance-ids …), then m8trx onboard CUSTOMER. Until then they report to the old brain";
    if args.force {
        terminal.warn(format!("{what}; {how}"));
        return Ok(false);
    }
    Err(
        Failure::words(Kind::Precondition, format!("{what}; nothing was changed"))
            .hint(how.to_owned()),
    )
}

/// A brain that does not know the keys of hosts that run is the wrong one, or is not ready for them.
async fn check_keys(
    args: &SetArgs,
    fleet: &Fleet,
    url: &BrainUrl,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let refused = fleet.refused().await.map_err(step_failure)?;
    if refused.is_empty() {
        return Ok(());
    }
    let names: Vec<String> = refused.iter().map(ToString::to_string).collect();
    let what = format!(
        "the brain at {url} refuses the keys of {} of {} with running hosts",
        names.len(),
        text::counted(fleet.customers(), "customer")
    );
    if args.force {
        terminal.warn(format!("{what}: {}", names.join(", ")));
        return Ok(());
    }
    let mut failure = Failure::words(Kind::Precondition, format!("{what}; nothing was changed"))
        .hint("these hosts could not report there: check that it is the right brain and has the old one's keys; to go on all the same and mint new keys then, pass --force");
    failure.evidence = names;
    Err(failure)
}
