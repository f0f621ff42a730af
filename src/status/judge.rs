//! From what is known of a customer to one word, and what a person should see to.

use jiff::{SignedDuration, Timestamp};

use super::expiry::{Expiry, Stage};
use super::facts::{CustomerFacts, profile_name};
use super::feed::Answer;
use super::tailscale::StoredKey;
use super::{Problem, Word};
use crate::aws::Aws;
use crate::aws::ec2::Instance;
use crate::aws::ec2::same_host;
use crate::aws::ssm::Kind;
use crate::aws::ssm::ParameterInfo;
use crate::brain::Heartbeat;
use crate::config::DEFAULT_TIMEOUT;
use crate::customer::{CUSTOMER_TAG_KEY, CustomerId};
use crate::home;
use crate::steps::first_heartbeat::RECENT;
use crate::steps::host::metadata_differences;
use crate::steps::iam_role::{self, POLICY_NAME, permission_policy_of};
use crate::terminal::text::age;

/// What is judged.
pub(super) struct Case<'c> {
    pub id: &'c CustomerId,
    pub facts: &'c CustomerFacts,
    /// What came of asking the brain; none where there is no host to ask about.
    pub answer: Option<&'c Answer>,
    pub expiry: Option<Expiry>,
    /// What Tailscale knows of the stored auth key, where it was asked.
    pub stored_key: Option<&'c StoredKey>,
    /// What in the tailnet's policy file keeps its hosts from the brain.
    pub policy: Option<String>,
    pub aws: &'c Aws,
    pub now: Timestamp,
}

/// The word, and what a person should see to, the gravest first.
pub(super) fn judge(case: &Case<'_>) -> (Word, Vec<Problem>) {
    let mut found = Found {
        case,
        problems: Vec::new(),
    };
    found.parameters();
    found.iam();
    found.hosts();
    found.policy();
    let booting = found.heartbeat();
    let mut problems = found.problems;
    // Stable: what is equally grave stays in the order in which it is looked at.
    problems.sort_by_key(|problem| problem.word.unwrap_or(Word::Healthy));
    let word = problems.iter().find_map(|problem| problem.word);
    let otherwise = if booting {
        Word::Booting
    } else {
        Word::Healthy
    };
    (word.unwrap_or(otherwise), problems)
}

struct Found<'c> {
    case: &'c Case<'c>,
    problems: Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, word: Word, what: String, remedy: impl Into<Option<String>>) {
        self.problems.push(Problem {
            word: Some(word),
            what,
            remedy: remedy.into(),
        });
    }

    fn onboard(&self) -> String {
        format!("m8trx onboard {}", self.case.id)
    }

    fn parameters(&mut self) {
        let id = self.case.id;
        let facts = self.case.facts;
        for (name, stored) in [
            (id.brain_key_parameter(), &facts.brain_key),
            (id.tailscale_auth_key_parameter(), &facts.tailscale_auth_key),
        ] {
            match stored {
                None => {
                    let remedy = self.onboard();
                    self.add(Word::Partial, format!("{name} is missing"), remedy);
                }
                Some(stored) => self.kind(stored),
            }
        }
        self.expiry();
    }

    fn kind(&mut self, stored: &ParameterInfo) {
        if stored.kind != Kind::Secure.name() {
            let what = format!(
                "{} is stored as {}, readable without decryption, and not as SecureString",
                stored.name,
                if stored.kind.is_empty() {
                    "another type"
                } else {
                    &stored.kind
                }
            );
            let remedy = self.onboard();
            self.add(Word::Misconfigured, what, remedy);
        }
    }

    fn expiry(&mut self) {
        let remedy = format!("m8trx rotate-tailscale-key {}", self.case.id);
        match self.case.stored_key {
            Some(StoredKey::Bad(error)) => {
                let what = format!("the stored Tailscale auth key cannot be used: {error}");
                self.add(Word::Misconfigured, what, remedy);
                return;
            }
            Some(StoredKey::Gone { id }) => {
                let what = format!(
                    "Tailscale does not know its auth key {id}: it was revoked or has expired, or belongs to another tailnet"
                );
                self.add(Word::Misconfigured, what, remedy);
                return;
            }
            Some(StoredKey::Known { id, problems, .. }) => {
                for problem in problems {
                    let what = format!("its Tailscale auth key {id}: {problem}");
                    self.add(Word::Misconfigured, what, remedy.clone());
                }
            }
            None => {}
        }
        let Some(expiry) = self.case.expiry else {
            if self.case.facts.tailscale_auth_key.is_some() {
                let what = "when its Tailscale auth key ends is not known".to_owned();
                let remedy = format!("m8trx rotate-tailscale-key {}", self.case.id);
                self.add(Word::Misconfigured, what, remedy);
            }
            return;
        };
        let now = self.case.now;
        let remedy = Some(format!("m8trx rotate-tailscale-key {}", self.case.id));
        let left = expiry.left(now);
        let (word, what) = match expiry.stage(now) {
            Stage::Good => return,
            Stage::Soon => (
                None,
                format!(
                    "its Tailscale auth key ends in {}{}",
                    age(left),
                    expiry.at_the_latest()
                ),
            ),
            Stage::Ended => (
                Some(Word::Misconfigured),
                format!(
                    "its Tailscale auth key ended {} ago{}: the host stays joined, and no host can join again",
                    age(-left),
                    expiry.at_the_latest()
                ),
            ),
        };
        self.problems.push(Problem { word, what, remedy });
    }

    fn iam(&mut self) {
        let Some(iam) = &self.case.facts.iam else {
            return;
        };
        let (id, aws) = (self.case.id, self.case.aws);
        let name = id.resource_name();
        let remedy = self.onboard();
        let Some(detail) = &iam.role else {
            self.add(
                Word::Partial,
                format!("the IAM role {name} is missing"),
                remedy,
            );
            self.other_roles(&iam.profile_roles, &name);
            return;
        };
        let owner = detail
            .role
            .tags
            .iter()
            .find(|(key, _)| key == CUSTOMER_TAG_KEY)
            .map(|(_, owner)| owner.as_str());
        if let Some(owner) = owner.filter(|owner| *owner != id.as_str()) {
            let what = format!(
                "the IAM role {name} is tagged for another customer, {}",
                owner.escape_debug()
            );
            let remedy = format!(
                "aws iam tag-role --role-name {name} --tags Key={CUSTOMER_TAG_KEY},Value={id}, once it is settled whose it is"
            );
            self.add(Word::Misconfigured, what, remedy);
        }
        let policy = detail.documents.get(POLICY_NAME);
        if let Err(elsewhere) = home::check_role(id, &detail.role, policy, aws) {
            self.add(
                Word::Misconfigured,
                format!(
                    "it lives in {} (by {}), and yet something of it is here",
                    elsewhere.known.home, elsewhere.known.by
                ),
                format!(
                    "m8trx status {id} --region {}; then remove what is here by hand",
                    elsewhere.known.home.region
                ),
            );
            return;
        }
        let wanted = permission_policy_of(id, &aws.partition, &aws.region, &aws.account);
        for difference in iam_role::differences(&detail.role, policy, &wanted, &aws.partition) {
            let what = format!("the IAM role {name} differs: {difference}");
            self.add(Word::Misconfigured, what, remedy.clone());
        }
        if !iam.profile_roles.contains(&name) && iam.profile_roles.is_empty() {
            let what = format!("the instance profile {name} is missing, or holds no role");
            self.add(Word::Partial, what, remedy);
        }
        self.other_roles(&iam.profile_roles, &name);
    }

    fn other_roles(&mut self, in_profile: &[String], name: &str) {
        for role in in_profile.iter().filter(|role| *role != name) {
            let what = format!(
                "the instance profile {name} holds another role, {role}: a host gets that role's permissions"
            );
            let remedy = format!(
                "aws iam remove-role-from-instance-profile --instance-profile-name {name} --role-name {role}"
            );
            self.add(Word::Misconfigured, what, remedy);
        }
    }

    fn policy(&mut self) {
        if let Some(what) = self.case.policy.clone() {
            let remedy = format!("m8trx tailnet apply {}", self.case.id);
            self.add(Word::Misconfigured, what, remedy);
        }
    }

    fn hosts(&mut self) {
        let facts = self.case.facts;
        let live: Vec<&Instance> = facts.live_hosts().collect();
        if live.is_empty() {
            let what = match facts.hosts.last() {
                None => "it has no host".to_owned(),
                Some(last) => format!(
                    "it has no live host; {} is {}{}",
                    last.id,
                    last.state,
                    reason(last)
                ),
            };
            let remedy = self.onboard();
            self.add(Word::Partial, what, remedy);
        }
        if live.len() > 1 {
            let ids: Vec<&str> = live.iter().map(|host| host.id.as_str()).collect();
            let what = format!(
                "it has {} live hosts, and a customer has one: {}",
                live.len(),
                ids.join(", ")
            );
            let remedy = "end the others: aws ec2 terminate-instances --instance-ids …".to_owned();
            self.add(Word::Misconfigured, what, remedy);
        }
        for host in live {
            self.host(host);
        }
        for host in &facts.impostors {
            let tagged = match host.customer.as_deref() {
                None => "has no Customer tag, so that its bootstrap stops".to_owned(),
                Some(other) => format!("is tagged Customer={}", other.escape_debug()),
            };
            let what = format!(
                "{} ({}) runs with the instance profile of this customer and {tagged}",
                host.id, host.state
            );
            let remedy = format!(
                "aws ec2 create-tags --resources {} --tags Key={CUSTOMER_TAG_KEY},Value={} and reboot it, or end it",
                host.id, self.case.id
            );
            self.add(Word::Misconfigured, what, remedy);
        }
    }

    fn host(&mut self, host: &Instance) {
        let name = self.case.id.resource_name();
        let remedy = self.onboard();
        match host.state.as_str() {
            "pending" | "running" => {}
            "stopped" | "stopping" => {
                let what = format!("{} is {}{}", host.id, host.state, reason(host));
                self.add(Word::Silent, what, remedy.clone());
            }
            other => {
                let what = format!(
                    "{} is in a state that this program does not know, `{}`",
                    host.id,
                    other.escape_debug()
                );
                self.add(Word::Silent, what, None);
            }
        }
        let differences = metadata_differences(host);
        if !differences.is_empty() {
            let what = format!("{} differs: {}", host.id, differences.join("; "));
            self.add(Word::Misconfigured, what, remedy);
        }
        if profile_name(host) != Some(&name) {
            let what = format!(
                "{} runs with {} instead of {name}",
                host.id,
                match profile_name(host) {
                    Some(other) => format!("the instance profile {other}"),
                    None => "no instance profile".to_owned(),
                }
            );
            let remedy = "give it the profile in the EC2 console, or end it and onboard again";
            self.add(Word::Misconfigured, what, remedy.to_owned());
        }
    }

    /// Judges the heartbeat; says whether a host is still booting.
    fn heartbeat(&mut self) -> bool {
        let facts = self.case.facts;
        let running: Vec<&Instance> = facts
            .live_hosts()
            .filter(|host| matches!(host.state.as_str(), "pending" | "running"))
            .collect();
        if running.is_empty() {
            return false;
        }
        match self.case.answer {
            None | Some(Answer::NoKey) => false,
            Some(Answer::Told(activity)) => self.beat(&running, activity.heartbeat.as_ref()),
            Some(Answer::BadKey(error)) => {
                let what = format!("the stored brain key cannot be used: {error}");
                let remedy = self.onboard();
                self.add(Word::Misconfigured, what, remedy);
                false
            }
            Some(Answer::KeyRefused) => {
                let version = facts.brain_key.as_ref().map_or(0, |key| key.version);
                let what = format!("the brain refuses its key (version {version})");
                let remedy = self.onboard();
                self.add(Word::Misconfigured, what, remedy);
                false
            }
            Some(Answer::Leaks(what)) => {
                let remedy = "tell whoever runs the brain: its customer scoping does not hold";
                self.add(Word::Misconfigured, what.clone(), remedy.to_owned());
                false
            }
            Some(Answer::Silent(why)) => {
                self.add(
                    Word::Unreachable,
                    format!("whether its host beats is not known: {why}"),
                    None,
                );
                false
            }
        }
    }

    fn beat(&mut self, running: &[&Instance], heartbeat: Option<&Heartbeat>) -> bool {
        let now = self.case.now;
        let since_launch = |host: &&Instance| host.launched.map(|at| now.duration_since(at));
        let newest = running
            .iter()
            .max_by_key(|host| (host.launched, &host.id))
            .expect("it is called with a host");
        // A second host is told of on its own: here any of them may have beaten.
        let oldest = running.iter().filter_map(since_launch).max();
        let beat = heartbeat
            .filter(|beat| oldest.is_none_or(|launched| now.duration_since(beat.ts) <= launched));
        if let Some(beat) = beat {
            let names: Vec<&str> = running
                .iter()
                .filter_map(|host| host.private_dns_name.as_deref())
                .collect();
            if !names.is_empty() && !names.iter().any(|name| same_host(&beat.hostname, name)) {
                let what = format!(
                    "its last heartbeat is of `{}`, and its host is {}: another machine uses its brain key",
                    beat.hostname.escape_debug(),
                    names.join(", ")
                );
                self.add(Word::Misconfigured, what, None);
            }
            let ago = now.duration_since(beat.ts);
            if ago <= RECENT {
                return false;
            }
            let at = beat.ts.strftime("%Y-%m-%dT%H:%M:%SZ");
            let what = format!("no heartbeat for {}, the last at {at}", age(ago));
            let remedy = format!("m8trx diagnose {}", self.case.id);
            self.add(Word::Silent, what, remedy);
            return false;
        }
        let patience = SignedDuration::try_from(DEFAULT_TIMEOUT).unwrap_or(SignedDuration::MAX);
        match since_launch(newest) {
            Some(launched) if launched <= patience => true,
            launched => {
                let what = match launched {
                    Some(launched) => format!(
                        "no heartbeat since {} was launched {} ago",
                        newest.id,
                        age(launched)
                    ),
                    None => format!("no heartbeat of {}", newest.id),
                };
                let remedy = format!("m8trx diagnose {}", self.case.id);
                self.add(Word::Silent, what, remedy);
                false
            }
        }
    }
}

fn reason(host: &Instance) -> String {
    host.state_reason
        .as_ref()
        .map_or(String::new(), |reason| format!(" ({reason})"))
}
