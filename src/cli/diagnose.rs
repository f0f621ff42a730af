//! `m8trx diagnose`

mod others;

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Global;
use super::onboarding::stdout_failed;
use super::target::Target;
use crate::aws::Aws;
use crate::aws::ec2::Instance;
use crate::bootstrap_log::{BootstrapLog, is_instance_id};
use crate::brain::{Brain, BrainUrl, Heartbeat};
use crate::config::Settings;
use crate::customer::{BRAIN_URL_PARAMETER, CustomerId};
use crate::diagnosis::{self, Diagnosis, Heard, Remedy, Situation, Verdict, judge};
use crate::secret::{BrainKey, ExposeSecret as _};
use crate::steps::Context;
use crate::steps::auth_key_facts::explained;
use crate::steps::first_heartbeat::{FirstHeartbeat, RECENT};
use crate::tailnet::Tailnet;
use crate::terminal::failure::{Failure, Kind, say_remedy};
use crate::terminal::{OutputFormat, Terminal};
use others::others_say;

/// The longest saved console that is read: EC2 gives 64 KiB, a log of the host itself is longer.
const LONGEST_SAVED: u64 = 16 * 1024 * 1024;

/// Say why a host does not report: which step, what happened, the lines that show it, and what to do.
///
/// Looks at the instance, at its console and at the brain, and changes nothing. Of a customer, the newest live host is
/// looked at, or else the newest that ended within the last hour.
#[derive(Debug, Args)]
pub struct DiagnoseArgs {
    /// The customer id, or an instance id.
    #[arg(value_name = "CUSTOMER|INSTANCE", required_unless_present = "console")]
    subject: Option<Subject>,
    /// Diagnose a saved console log; `-` for standard input. AWS is not asked.
    #[arg(long, value_name = "FILE")]
    console: Option<PathBuf>,
}

/// What is to be diagnosed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Customer(CustomerId),
    Instance(String),
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if is_instance_id(text) {
            return Ok(Self::Instance(text.to_owned()));
        }
        if text.starts_with("i-") {
            return Err("an instance id is i- and hexadecimal digits".to_owned());
        }
        text.parse()
            .map(Self::Customer)
            .map_err(|e: crate::customer::InvalidCustomerId| e.to_string())
    }
}

/// The result where no failure was found.
#[derive(Debug, Serialize)]
struct Sound {
    schema: &'static str,
    verdict: &'static str,
    customer: Option<String>,
    instance_id: Option<String>,
    region: Option<String>,
    step: Option<String>,
    cause: Option<&'static str>,
    what: String,
    evidence: Vec<String>,
    remedy: Vec<Remedy>,
}

impl fmt::Display for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.instance_id.as_deref().unwrap_or("the host"))?;
        if let Some(customer) = &self.customer {
            write!(f, " of {customer}")?;
        }
        write!(f, " {}", self.what)
    }
}

impl Sound {
    fn new(situation: &Situation<'_>, log: &BootstrapLog, verdict: &'static str) -> Self {
        let own = log.identity.as_ref();
        let known = |given: Option<&str>, own: Option<&String>| {
            given.map(str::to_owned).or_else(|| own.cloned())
        };
        Self {
            schema: diagnosis::SCHEMA,
            verdict,
            customer: known(situation.customer, own.map(|own| &own.customer)),
            instance_id: known(situation.instance_id, own.map(|own| &own.instance_id)),
            region: known(situation.region, own.map(|own| &own.region)),
            step: log.step.as_ref().map(|step| step.name.clone()),
            cause: None,
            what: String::new(),
            evidence: Vec::new(),
            remedy: Vec::new(),
        }
    }

    fn reports(situation: &Situation<'_>, log: &BootstrapLog, beat: Option<&Heartbeat>) -> Self {
        let what = match beat {
            Some(beat) => format!(
                "is healthy: it sent a heartbeat at {} (hostname {})",
                beat.ts,
                beat.hostname.escape_debug()
            ),
            None => format!("shows no failure: {}", log.describe()),
        };
        Self {
            what,
            ..Self::new(situation, log, "healthy")
        }
    }

    fn booting(
        situation: &Situation<'_>,
        log: &BootstrapLog,
        trouble: Option<Box<Diagnosis>>,
    ) -> Self {
        let mut sound = Self::new(situation, log, "booting");
        sound.what = format!("has not failed so far: {}", log.describe());
        if let Some(trouble) = trouble {
            sound.what.push_str(&format!(
                "; it is still trying: {} ({})",
                trouble.what, trouble.cause
            ));
            sound.cause = Some(trouble.cause);
            sound.evidence = trouble.evidence;
            sound.remedy = trouble.remedy;
        }
        sound
    }

    fn show(&self, terminal: &Terminal) -> Result<(), Failure> {
        terminal.result(self).map_err(stdout_failed)?;
        if terminal.output == OutputFormat::Human {
            for line in &self.evidence {
                terminal.say(format!("  | {line}"));
            }
            say_remedy(&self.remedy, terminal);
        }
        Ok(())
    }
}

/// Runs the command.
pub async fn run(args: &DiagnoseArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    if let Some(file) = &args.console {
        return saved(args, file, terminal);
    }
    let Some(subject) = &args.subject else {
        return Err(Failure::words(Kind::Usage, "nothing is named to diagnose"));
    };
    let target = Target::open(global, &global.flags(), terminal).await?;
    let result = diagnose(subject, &target, terminal).await;
    target.close().await;
    result
}

/// A console that somebody saved: nothing more will come.
fn saved(args: &DiagnoseArgs, file: &Path, terminal: &Terminal) -> Result<(), Failure> {
    let mut console = Vec::new();
    let read = if file == Path::new("-") {
        std::io::stdin()
            .take(LONGEST_SAVED)
            .read_to_end(&mut console)
    } else {
        std::fs::File::open(file)
            .and_then(|file| file.take(LONGEST_SAVED).read_to_end(&mut console))
    };
    read.map_err(|e| {
        Failure::words(
            Kind::Precondition,
            format!("the console log {} cannot be read: {e}", file.display()),
        )
    })?;
    let (customer, instance_id) = match &args.subject {
        Some(Subject::Customer(customer)) => (Some(customer.as_str()), None),
        Some(Subject::Instance(id)) => (None, Some(id.as_str())),
        None => (None, None),
    };
    let situation = Situation {
        customer,
        instance_id,
        console: &console,
        over: true,
        ..Situation::default()
    };
    match judge(&situation) {
        Verdict::Failed(diagnosis) => Err(failed(*diagnosis)),
        Verdict::Reports(log) => Sound::reports(&situation, &log, None).show(terminal),
        Verdict::Booting { log, trouble } => {
            Sound::booting(&situation, &log, trouble).show(terminal)
        }
    }
}

fn failed(diagnosis: Diagnosis) -> Failure {
    Failure::words(Kind::HostFailed, diagnosis.to_string()).diagnosed(diagnosis)
}

/// The host to look at.
pub(super) async fn find(aws: &Aws, subject: &Subject) -> Result<Instance, Failure> {
    match subject {
        Subject::Instance(id) => aws.instance(id).await?.ok_or_else(|| {
            Failure::words(
                Kind::Precondition,
                format!("{} has no instance {id}", aws.region),
            )
            .hint("EC2 forgets an instance about an hour after it ended; otherwise check --region and --profile. A console log that was saved: m8trx diagnose --console FILE")
        }),
        Subject::Customer(customer) => {
            let hosts = aws.customer_instances(customer).await?;
            let newest = |live: bool| hosts.iter().rev().find(|host| host.is_live() == live);
            newest(true).or_else(|| newest(false)).cloned().ok_or_else(|| {
                Failure::words(
                    Kind::Precondition,
                    format!(
                        "{customer} has no host in {}, and none that ended within the last hour",
                        aws.region
                    ),
                )
                .hint(format!("launch one: m8trx onboard {customer}"))
            })
        }
    }
}

async fn diagnose(subject: &Subject, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let settings = &target.settings;
    let aws = target.aws(terminal).await?;
    let host = find(&aws, subject).await?;
    terminal.say(format!("{} is {}", host.id, host.state));
    let console = aws.console_output(&host.id).await?;
    let customer: Option<CustomerId> = host.customer.as_ref().and_then(|id| id.parse().ok());
    // After the console: what the host has sent by then, the brain has by now.
    let beat = match &customer {
        Some(customer) => match last_heartbeat(&aws, customer, &host, settings).await {
            Ok(beat) => Some(beat),
            Err(failure) => {
                terminal.warn(format!(
                    "the brain could not be asked for heartbeats: {}",
                    failure.in_a_line()
                ));
                None
            }
        },
        None => None,
    };
    let now = Timestamp::now();
    let limit = SignedDuration::try_from(settings.timeout).unwrap_or(SignedDuration::MAX);
    let mut situation = Situation {
        customer: customer.as_ref().map(CustomerId::as_str),
        instance_id: Some(&host.id),
        region: Some(&aws.region),
        state: Some((&host.state, host.state_reason.as_deref())),
        console: &console,
        heard: match &beat {
            Some(Some(beat)) => Heard::Stopped(beat.ts),
            Some(None) => Heard::Never,
            None => Heard::Unknown,
        },
        // Asked for, it is told; what it says holds a word about hosts that were started again.
        first_boot: true,
        over: host
            .launched
            .is_none_or(|launched| now.duration_since(launched) > limit),
    };
    let log = BootstrapLog::parse(&console);
    let beat = beat.flatten();
    let recent = beat
        .as_ref()
        .filter(|beat| host.state == "running" && now.duration_since(beat.ts) <= RECENT);
    // A host that reports has overcome whatever its console still tells of the time before its first heartbeat.
    if recent.is_some() && !(log.failure.is_some() && log.first_heartbeat) {
        return Sound::reports(&situation, &log, recent).show(terminal);
    }
    if recent.is_some() {
        situation.heard = Heard::Unknown;
    }
    // What the brain has accepted it shows: there is nothing to wait for.
    situation.over |= log.first_heartbeat || log.complete.is_some();
    let tailnet = settings.tailnet.clone().map(Tailnet::new);
    match judge(&situation) {
        Verdict::Failed(diagnosis) => {
            let mut diagnosis = match (&tailnet, &customer) {
                (Some(tailnet), Some(customer)) => {
                    explained(*diagnosis, &aws, tailnet, customer).await
                }
                _ => *diagnosis,
            };
            if diagnosis.host_is_silent() && host.is_live() {
                let said = others_say(&aws, tailnet.as_ref(), customer.as_ref(), &host, terminal);
                diagnosis.evidence.extend(said.await);
            }
            let failure = failed(diagnosis);
            Err(if host.is_live() {
                failure.with_the_host_kept()
            } else {
                failure
            })
        }
        Verdict::Reports(log) => Sound::reports(&situation, &log, None).show(terminal),
        Verdict::Booting { log, trouble } => {
            let mut sound = Sound::booting(&situation, &log, trouble);
            if !log.has_begun() {
                let said = others_say(&aws, tailnet.as_ref(), customer.as_ref(), &host, terminal);
                sound.evidence.extend(said.await);
            }
            sound.show(terminal)
        }
    }
}

/// The last heartbeat that the brain has of this host, with the customer's own key or from the brain's database.
async fn last_heartbeat(
    aws: &Aws,
    customer: &CustomerId,
    host: &Instance,
    settings: &Settings,
) -> Result<Option<Heartbeat>, Failure> {
    let unknown = |what: &str| Failure::words(Kind::Precondition, format!("{what} is not known"));
    let url: BrainUrl = match aws.parameter(BRAIN_URL_PARAMETER).await? {
        Some(stored) => stored
            .value
            .expose_secret()
            .parse()
            .map_err(|e| Failure::new(Kind::Precondition, &e).within(BRAIN_URL_PARAMETER))?,
        None => settings
            .brain
            .url
            .clone()
            .ok_or_else(|| unknown("the brain's URL"))?,
    };
    let context = Context {
        database_url: settings.brain.database_url.clone(),
        ..Context::new(customer.clone(), aws.clone(), Brain::new(url))
    };
    let key = match context.stored_brain_key().await? {
        Some(stored) => BrainKey::parse(stored.value.expose_secret()).ok(),
        None => None,
    };
    if key.is_none() && context.database_url.is_none() {
        return Err(unknown("the customer's brain key"));
    }
    let heartbeat = FirstHeartbeat(std::sync::Arc::new(context));
    let failed = super::execution::step_failure;
    let database = heartbeat.database().await.map_err(failed)?;
    let since = host.launched.unwrap_or(Timestamp::UNIX_EPOCH);
    heartbeat
        .ask(database.as_ref(), key.as_ref(), since)
        .await
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn customers_are_told_from_instances() {
        let subject = |text: &str| text.parse::<Subject>();
        assert_eq!(
            subject("i-0123456789abcdef0"),
            Ok(Subject::Instance("i-0123456789abcdef0".to_owned()))
        );
        assert!(matches!(subject("cust_acme"), Ok(Subject::Customer(_))));
        assert!(subject("i-xyz").unwrap_err().contains("instance id"));
        assert!(subject("acme").unwrap_err().contains("customer id"));
        subject("i-").unwrap_err();
    }
}
