//! The sandbox's cloud: the SSM, IAM, STS and EC2 calls that onboarding makes, on one address.
//!
//! As at AWS, a request's signature says which service and region it is for. Every signature is verified and every
//! call is authorised by IAM policies.

mod call;
mod dispatch;
mod ec2;
mod error;
mod iam;
mod identity;
mod ledger;
mod policy;
mod query;
mod signature;
mod ssm;
mod sts;
mod xml;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::Value;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::fault::Fault;
use super::http::Handler;
use super::random;
use call::Call;
pub(crate) use ec2::{Down, HostCredentials, HostView, PUBLIC_IMAGES};
pub(crate) use error::{ApiError, Service};
pub use identity::ACCOUNT;
pub(crate) use identity::OPERATOR_ACCESS_KEY;
pub use ledger::RecordedCall;
use policy::Document;
pub(crate) use policy::Malformed;
pub(crate) use signature::same;

/// The region of the environment that the sandbox hands out; calls may be signed for any other.
pub const DEFAULT_REGION: &str = "us-east-1";

/// How long EC2 usually does not know a new instance profile.
const DEFAULT_IAM_DELAY: Duration = Duration::from_millis(300);

/// The same under [`Fault::SlowIam`].
const SLOW_IAM_DELAY: Duration = Duration::from_secs(20);

/// What EC2 asks of the machines beneath it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MachineCommand {
    /// Boot an instance, which is `pending`.
    Boot { region: String, instance: String },
    /// Shut it down; it is `stopping`, or `shutting-down` when it ends for good.
    ShutDown { region: String, instance: String },
}

/// How a cloud behaves; fixed for its life.
pub(crate) struct Settings {
    pub faults: Vec<Fault>,
    pub latency: Option<Duration>,
    pub iam_delay: Duration,
    pub machines: UnboundedSender<MachineCommand>,
}

/// Everything the cloud knows.
pub(crate) struct State {
    pub iam: iam::Store,
    pub credentials: identity::Credentials,
    pub operator_secret: SecretString,
    pub operator_policies: Vec<Document>,
    pub regions: BTreeMap<String, Region>,
    pub encoded_messages: HashMap<String, String>,
    /// Calls so far by service, and by whose they are and action, for [`Fault::Throttling`].
    pub counts: HashMap<(&'static str, String), u64>,
}

/// The services that each region has of its own.
pub(crate) struct Region {
    pub ssm: ssm::Store,
    pub ec2: ec2::Store,
}

impl State {
    /// The state of a region, made when it is first used.
    pub fn region(&mut self, name: &str) -> &mut Region {
        self.regions
            .entry(name.to_owned())
            .or_insert_with(|| Region {
                ssm: ssm::Store::default(),
                ec2: ec2::Store::new(name),
            })
    }
}

struct Inner {
    state: Mutex<State>,
    settings: Settings,
    ledger: ledger::Ledger,
}

/// The cloud; clones share one state.
#[derive(Clone)]
pub(crate) struct Cloud(Arc<Inner>);

impl Cloud {
    /// A cloud in which nothing exists yet, and the commands it gives to machines.
    pub fn new(
        faults: Vec<Fault>,
        latency: Option<Duration>,
        iam_delay: Option<Duration>,
    ) -> (Self, UnboundedReceiver<MachineCommand>) {
        let (machines, commands) = unbounded_channel();
        let iam_delay = iam_delay.unwrap_or(if faults.contains(&Fault::SlowIam) {
            SLOW_IAM_DELAY
        } else {
            DEFAULT_IAM_DELAY
        });
        let cloud = Self(Arc::new(Inner {
            state: Mutex::new(State {
                iam: iam::Store::default(),
                credentials: identity::Credentials::default(),
                operator_secret: random::mixed(40).into(),
                operator_policies: vec![Document::allow_all()],
                regions: BTreeMap::new(),
                encoded_messages: HashMap::new(),
                counts: HashMap::new(),
            }),
            settings: Settings {
                faults,
                latency,
                iam_delay,
                machines,
            },
            ledger: ledger::Ledger::default(),
        }));
        (cloud, commands)
    }

    /// What answers requests, wherever they come from.
    pub fn handler(&self) -> Handler {
        let cloud = self.clone();
        Arc::new(move |request| {
            let cloud = cloud.clone();
            Box::pin(async move { cloud.answer(request).await })
        })
    }

    /// Every call so far.
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.0.ledger.calls()
    }

    /// The operator's secret access key.
    pub fn operator_secret(&self) -> SecretString {
        self.state().operator_secret.clone()
    }

    /// Replaces what the operator may do; at first everything.
    pub fn set_operator_policy(&self, text: &str) -> Result<(), Malformed> {
        let document = Document::parse(text, policy::Kind::Identity)?;
        self.state().operator_policies = vec![document];
        Ok(())
    }

    /// What the operator's call does as if it had been made at `now`, with nothing beneath EC2: an instance stays `pending`
    /// without a machine. For making what earlier times would have left; it is not part of the ledger.
    pub fn call_at(
        &self,
        now: Timestamp,
        service: Service,
        action: &str,
        input: &Value,
    ) -> Result<String, ApiError> {
        let (machines, _) = unbounded_channel();
        let settings = Settings {
            faults: Vec::new(),
            latency: None,
            iam_delay: Duration::ZERO,
            machines,
        };
        let mut state = self.state();
        let mut call = Call {
            state: &mut state,
            settings: &settings,
            service,
            region: DEFAULT_REGION.to_owned(),
            caller: identity::Caller::Operator,
            now,
        };
        let params = || query::Params::of(input);
        match service {
            Service::Ssm => ssm::handle(&mut call, action, input).map(|answer| answer.to_string()),
            Service::Iam => iam::handle(&mut call, action, &params()).map(xml::Xml::into_string),
            Service::Sts => sts::handle(&mut call, action, &params()).map(xml::Xml::into_string),
            Service::Ec2 => ec2::handle(&mut call, action, &params()).map(xml::Xml::into_string),
        }
    }

    /// Whether the sandbox was started with this fault.
    pub fn has_fault(&self, fault: Fault) -> bool {
        self.0.settings.faults.contains(&fault)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0.state)
    }
}

/// Locks even after a panic elsewhere: the state consists of plain values that are never half-changed across a panic
/// that matters more than going on.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// RFC 3339 with milliseconds, as AWS writes times in XML.
fn iso(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) mod trial;
