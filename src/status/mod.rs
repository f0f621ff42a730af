//! How a fleet stands: what AWS holds of each customer, what the brain heard of it, and what a person should see to.
//! Everything is read in bulk and nothing is changed.

mod document;
pub mod expiry;
pub mod facts;
pub mod feed;
mod judge;
pub mod keys;
pub mod policy;
pub mod tailscale;

use jiff::Timestamp;

use crate::aws::ec2::Instance;
use crate::aws::ssm::ParameterInfo;
use crate::aws::{Aws, AwsError};
use crate::brain::{Brain, BrainUrl};
use crate::config::Settings;
use crate::customer::{BRAIN_URL_PARAMETER, CustomerId};
use crate::secret::ExposeSecret as _;
use crate::tailnet::Tailnet;
use crate::tailnet::policy::model::DEFAULT_BRAIN_PORT;
pub use document::*;
use facts::{CustomerFacts, Facts};
use feed::{Answer, Question, Source};
use keys::Keys;
use policy::PolicyFacts;
use tailscale::{StoredKey, StoredKeys};

/// What happened, without the service's own words around it, and what would help.
fn words(error: &AwsError) -> String {
    match error.hint() {
        Some(hint) => format!("{error} ({hint})"),
        None => error.to_string(),
    }
}

fn seconds_ago(now: Timestamp, at: Timestamp) -> i64 {
    now.duration_since(at).as_secs().max(0)
}

/// What is kept from one look at a fleet to the next.
#[derive(Default)]
pub struct Memory {
    brain_keys: Keys,
    auth_keys: Keys,
    /// One client for all looks: it keeps its token.
    tailnet: Option<Tailnet>,
}

/// Looks at every customer, or at those in `only`.
pub async fn look(
    aws: &Aws,
    settings: &Settings,
    only: &[CustomerId],
    memory: &mut Memory,
) -> Result<FleetStatus, AwsError> {
    let facts = Facts::read(aws, only).await?;
    let now = Timestamp::now();
    let mut problems = facts.problems.clone();
    let (source, mut brain) = source(&facts, settings, &mut problems);
    // A customer without a host that could beat is not asked about, except where one query tells of all.
    let everybody = matches!(source, Source::Database(_));
    let asked: Vec<Question<'_>> = facts
        .customers
        .iter()
        .filter(|(_, customer)| everybody || customer.live_hosts().next().is_some())
        .map(|(id, customer)| Question {
            customer: id,
            key: customer.brain_key.as_ref(),
            hosts: customer.live_hosts().map(Into::into).collect(),
        })
        .collect();
    let Memory {
        brain_keys,
        auth_keys,
        tailnet,
    } = memory;
    if tailnet.is_none() {
        *tailnet = settings.tailnet.clone().map(Tailnet::new);
    }
    let tailnet = tailnet.as_ref();
    let stored: Vec<(&CustomerId, &ParameterInfo)> = facts
        .customers
        .iter()
        .filter_map(|(id, customer)| Some((id, customer.tailscale_auth_key.as_ref()?)))
        .collect();
    let of_tailscale = async {
        match tailnet {
            Some(tailnet) => tailscale::ask(tailnet, aws, auth_keys, &stored, now).await,
            None => StoredKeys::default(),
        }
    };
    let known: Option<BrainUrl> = brain.url.as_ref().and_then(|url| url.parse().ok());
    let known = known.as_ref().or(settings.brain.url.as_ref());
    let brain_port = known.map_or(DEFAULT_BRAIN_PORT, BrainUrl::port);
    let of_policy = async {
        match tailnet {
            Some(tailnet) if !facts.customers.is_empty() => {
                PolicyFacts::read(tailnet, brain_port).await
            }
            _ => PolicyFacts::default(),
        }
    };
    let (answers, stored_keys, policy) = futures::join!(
        feed::ask(&source, aws, brain_keys, &asked, now),
        of_tailscale,
        of_policy
    );
    let mut notes = facts.notes.clone();
    if let Err(error) = &facts.brain_url {
        notes.push(format!(
            "which brain hosts are given is not known: {}",
            words(error)
        ));
    }
    if let Some(problem) = stored_keys.problem {
        notes.push(format!(
            "what Tailscale knows of the auth keys is not known for all: {problem}"
        ));
    }
    if let Some(problem) = &policy.problem {
        notes.push(format!(
            "how the customers stand in the tailnet's policy file is not known: {problem}"
        ));
    }
    if let Some((first, count)) = &policy.violations {
        let more = match count {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        problems.push(format!(
            "the tailnet's policy file does not hold: {first}{more}; m8trx tailnet check shows it"
        ));
    }
    brain.problem = answers.problem.filter(|_| !asked.is_empty());

    let mut customers: Vec<CustomerStatus> = facts
        .customers
        .iter()
        .map(|(id, customer)| {
            let stored_key = stored_keys.by_customer.get(id);
            let parameter = customer.tailscale_auth_key.as_ref();
            let written = parameter.and_then(|parameter| parameter.modified);
            let expiry = match stored_key {
                Some(StoredKey::Known { expires, .. }) => expiry::expiry(written, *expires),
                Some(StoredKey::Gone { .. } | StoredKey::Bad(_)) => None,
                None => expiry::expiry(written, None),
            };
            let case = judge::Case {
                id,
                facts: customer,
                answer: answers.by_customer.get(id),
                expiry,
                stored_key,
                policy: policy.trouble(id),
                aws,
                now,
            };
            customer_status(&case)
        })
        .collect();
    customers.sort_by(|a, b| {
        let rank = |c: &CustomerStatus| (!c.needs_person, c.status);
        rank(a)
            .cmp(&rank(b))
            .then_with(|| a.customer.cmp(&b.customer))
    });
    let not_found: Vec<CustomerId> = only
        .iter()
        .filter(|id| !facts.customers.contains_key(*id) && !facts.elsewhere.contains_key(*id))
        .cloned()
        .collect();
    let mut status = FleetStatus::new(&aws.account, &aws.region, brain, customers);
    status.at = now;
    status.problems = problems;
    status.notes = notes;
    status.elsewhere = facts
        .elsewhere
        .iter()
        .map(|(customer, known)| LivesElsewhere {
            customer: customer.clone(),
            home: known.home.clone(),
        })
        .collect();
    status.not_found = not_found;
    Ok(status)
}

/// How the brain is asked: its database where one is configured, else the URL that hosts are given.
fn source(facts: &Facts, settings: &Settings, problems: &mut Vec<String>) -> (Source, BrainStatus) {
    let stored = facts.brain_url.as_ref().ok().and_then(Option::as_ref);
    let text = stored.map(|stored| stored.value.expose_secret().to_owned());
    let parsed = text.as_ref().map(|text| text.parse());
    if let Some(stored) = stored.filter(|stored| stored.kind != "String") {
        problems.push(format!(
            "{BRAIN_URL_PARAMETER} is stored as {} and not as String",
            stored.kind
        ));
    }
    if let Some(Err(error)) = &parsed {
        problems.push(format!("{BRAIN_URL_PARAMETER} holds no brain URL: {error}"));
    }
    if matches!(facts.brain_url, Ok(None)) && !facts.customers.is_empty() {
        problems.push(format!(
            "{BRAIN_URL_PARAMETER} is missing: no host can find the brain"
        ));
    }
    let (source, name) = match (&settings.brain.database_url, parsed) {
        (Some(url), _) => (Source::Database(url.clone()), Some("database")),
        (None, Some(Ok(url))) => (Source::Http(Brain::new(url)), Some("http")),
        (None, _) => match (&settings.brain.url, &facts.brain_url) {
            (Some(url), _) => (Source::Http(Brain::new(url.clone())), Some("http")),
            (None, Err(_)) => (
                Source::None(format!(
                    "{BRAIN_URL_PARAMETER} cannot be read, and no URL is configured"
                )),
                None,
            ),
            (None, Ok(_)) => (
                Source::None(format!(
                    "the brain's URL is not known: {BRAIN_URL_PARAMETER} holds none, and none is configured"
                )),
                None,
            ),
        },
    };
    let status = BrainStatus {
        source: name,
        url: text.filter(|text| text.parse::<crate::brain::BrainUrl>().is_ok()),
        url_modified: stored.and_then(|stored| stored.modified),
        problem: None,
    };
    (source, status)
}

fn customer_status(case: &judge::Case<'_>) -> CustomerStatus {
    let (status, problems) = judge::judge(case);
    let (facts, now) = (case.facts, case.now);
    let parameter = |parameter: &Option<ParameterInfo>| {
        parameter.as_ref().map(|parameter| ParameterStatus {
            kind: parameter.kind.clone(),
            version: parameter.version,
            modified: parameter.modified,
            age_s: parameter.modified.map(|at| seconds_ago(now, at)),
        })
    };
    let activity = match case.answer {
        Some(Answer::Told(activity)) => Some(activity),
        _ => None,
    };
    CustomerStatus {
        customer: case.id.clone(),
        status,
        needs_person: !problems.is_empty(),
        problems,
        parameters: Parameters {
            brain_key: parameter(&facts.brain_key),
            tailscale_auth_key: parameter(&facts.tailscale_auth_key),
            tailscale_auth_key_id: match case.stored_key {
                Some(StoredKey::Known { id, .. } | StoredKey::Gone { id }) => Some(id.clone()),
                _ => None,
            },
            tailscale_auth_key_good: case.stored_key.map(|key| match key {
                StoredKey::Known { problems, .. } => {
                    problems.is_empty()
                        && case
                            .expiry
                            .is_none_or(|e| e.stage(now) != expiry::Stage::Ended)
                }
                StoredKey::Gone { .. } | StoredKey::Bad(_) => false,
            }),
            tailscale_auth_key_expiry: case.expiry.map(|expiry| ExpiryStatus {
                expiry,
                stage: expiry.stage(now),
                left_s: expiry.left(now).as_secs(),
            }),
            others: facts.other_parameters.clone(),
        },
        hosts: hosts(facts, now),
        heartbeat: activity
            .and_then(|activity| judge::shown(&activity.heartbeats, facts))
            .map(|beat| HeartbeatStatus {
                ts: beat.ts,
                age_s: seconds_ago(now, beat.ts),
                hostname: beat.hostname.clone(),
                instance_id: beat.instance_id.clone(),
                bootstrap: beat.bootstrap.clone(),
                scripts: beat.scripts.clone(),
            }),
        last_hour: activity.and_then(|activity| activity.hour.as_ref().ok().copied()),
        last_hour_problem: activity.and_then(|activity| activity.hour.as_ref().err().cloned()),
    }
}

fn hosts(facts: &CustomerFacts, now: Timestamp) -> Vec<HostStatus> {
    let live: Vec<&Instance> = facts.live_hosts().collect();
    let shown = if live.is_empty() {
        facts.hosts.last().into_iter().collect()
    } else {
        live
    };
    shown
        .into_iter()
        .map(|host| HostStatus {
            instance_id: host.id.clone(),
            state: host.state.clone(),
            state_reason: host.state_reason.clone(),
            instance_type: host.instance_type.clone(),
            launched: host.launched,
            age_s: host.launched.map(|at| seconds_ago(now, at)),
            instance_profile: facts::profile_name(host).map(str::to_owned),
        })
        .collect()
}
