//! Everything that belongs to one customer, and taking it away for good.

mod gone;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use gone::{AuthKeyGone, BrainKeyGone, Gone, OtherParametersGone};

use crate::customer::{BRAIN_URL_PARAMETER, CUSTOMER_TAG_KEY};
use crate::inventory::{Inventory, Item, Kind};
use crate::plan::event::{Event, Events, RunEnd};
use crate::plan::runner::millis;
use crate::plan::{Step, StepError};
use crate::removal::{self, Undone, undo_all};
use crate::resource::Resource;
use crate::rotation::brain_key::key_ids;
use crate::secret::{ExposeSecret as _, TailscaleAuthKey};
use crate::steps::Context;
use crate::steps::tailnet_membership::{devices_to_remove, minted_keys};
use crate::tailnet::Tailnet;
use crate::tailnet::policy::change::ChangeError;
use crate::tailnet::policy::hujson::Document;
use crate::tailnet::policy::merge::{MergeError, owned_customers};

/// How long AWS is given to stop listing what was removed.
const GONE_PATIENCE: Duration = Duration::from_secs(15);

/// What there is of a customer.
#[derive(Debug, Clone, Default)]
pub struct Belongings {
    /// What is the customer's.
    pub own: Vec<Item>,
    /// What has a name of this customer's, and a tag that names another one.
    pub foreign: Vec<Item>,
}

impl Belongings {
    /// Asks AWS, and Tailscale where its API is configured. Nothing is changed.
    pub async fn read(context: &Context) -> Result<Self, StepError> {
        let (aws, customer) = (&context.aws, &context.customer);
        let mut found = Self::default();
        let mut add = |item: Item| {
            if item.is_foreign(customer) {
                found.foreign.push(item);
            } else {
                found.own.push(item);
            }
        };
        for item in Inventory::read(aws, customer).await?.items {
            // The fleet's, whoever stored it.
            if item.id != BRAIN_URL_PARAMETER {
                add(item);
            }
        }
        for name in other_parameters(context).await? {
            let tags = aws.parameter_tags(&name).await?.unwrap_or_default();
            let mut item = Item::new(Kind::Parameter, name);
            item.owner = tags
                .into_iter()
                .find_map(|(key, value)| (key == CUSTOMER_TAG_KEY).then_some(value));
            add(item);
        }
        let has = |found: &Self, name: &str| found.own.iter().any(|item| item.id == name);
        let name = customer.brain_key_parameter();
        if has(&found, &name) {
            let ids = key_ids(context).await?;
            if ids.is_empty() {
                found.own.push(Item::new(
                    Kind::BrainKey,
                    format!("in {name}, for which the brain gave no id"),
                ));
            }
            let ids = ids.into_iter().map(|id| Item::new(Kind::BrainKey, id));
            found.own.extend(ids);
        }
        let mut keys: Vec<String> = Vec::new();
        if has(&found, &customer.tailscale_auth_key_parameter()) {
            keys.extend(stored_auth_key_id(context).await?);
        }
        if let Some(tailnet) = &context.tailnet {
            for key in minted_keys(tailnet, context).await? {
                if !keys.contains(&key.id) {
                    keys.push(key.id);
                }
            }
            for device in devices_to_remove(tailnet, context).await? {
                found.own.push(Item::new(
                    Kind::Device,
                    format!("{} ({})", device.node_id, device.hostname),
                ));
            }
            let tag = customer.tailscale_tag();
            if policy_names(tailnet, &tag).await? {
                found.own.push(Item::new(Kind::PolicyEntry, tag));
            }
        }
        let keys = keys.into_iter().map(|id| Item::new(Kind::AuthKey, id));
        found.own.extend(keys);
        found.own.sort_by_key(|item| item.kind);
        Ok(found)
    }

    /// Whether role, profile or device are there and nothing of a region: a living host may have them elsewhere.
    pub fn may_be_of_another_region(&self) -> bool {
        let regional = |item: &Item| {
            matches!(
                item.kind,
                Kind::Host | Kind::SecurityGroup | Kind::Parameter
            )
        };
        let of_a_host = |item: &Item| {
            matches!(
                item.kind,
                Kind::IamRole | Kind::InstanceProfile | Kind::Device
            )
        };
        self.own.iter().any(of_a_host) && !self.own.iter().any(regional)
    }

    fn is_foreign(&self, kind: Kind, id: &str) -> bool {
        self.foreign
            .iter()
            .any(|item| item.kind == kind && item.id == id)
    }
}

/// Whether the tailnet's policy file has an owner for a customer's tag.
async fn policy_names(tailnet: &Tailnet, tag: &str) -> Result<bool, StepError> {
    let file = tailnet.policy_file().await?;
    let document =
        Document::parse(file.text).map_err(|e| ChangeError::from(MergeError::from(e)))?;
    Ok(owned_customers(&document).contains(tag))
}

/// Parameters beneath the customer's path that this program does not make.
async fn other_parameters(context: &Context) -> Result<Vec<String>, StepError> {
    let customer = &context.customer;
    let path = format!("/m8trx/{customer}");
    let beneath = format!("{path}/");
    let made = [
        customer.brain_key_parameter(),
        customer.tailscale_auth_key_parameter(),
    ];
    let mut names = context.aws.parameter_names(&path).await?;
    // Whatever a filter lets through: `/m8trx/cust_ab/…` is not beneath `/m8trx/cust_a`.
    names.retain(|name| name.starts_with(&beneath) && !made.contains(name));
    Ok(names)
}

async fn stored_auth_key_id(context: &Context) -> Result<Option<String>, StepError> {
    let name = context.customer.tailscale_auth_key_parameter();
    let stored = context.aws.parameter(&name).await?;
    Ok(stored.and_then(|stored| {
        let key = TailscaleAuthKey::parse(stored.value.expose_secret()).ok()?;
        Some(key.id().to_owned())
    }))
}

/// What became of an offboarding.
#[derive(Debug, Default)]
pub struct Offboarded {
    /// What was removed, in words, in order.
    pub removed: Vec<String>,
    /// What a person has to do, since it cannot be done from here.
    pub by_hand: Vec<String>,
    /// The steps that could not be undone, and why.
    pub failures: Vec<(&'static str, StepError)>,
    /// What is still there.
    pub left: Vec<Item>,
}

/// What steps tell a person to do.
type ByHand = Arc<Mutex<Vec<String>>>;

fn tell(by_hand: &ByHand, what: String) {
    by_hand
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(what);
}

/// An offboarding whose belongings are known.
pub struct Offboarding {
    context: Arc<Context>,
    steps: Vec<Arc<dyn Step>>,
    by_hand: ByHand,
}

impl Offboarding {
    /// Everything but what is another customer's. With `leave_brain_key`, a key that cannot be revoked from here is
    /// forgotten although it works.
    pub fn new(context: Arc<Context>, found: &Belongings, leave_brain_key: bool) -> Self {
        let by_hand = ByHand::default();
        let customer = &context.customer;
        let name = customer.resource_name();
        let mut steps: Vec<Arc<dyn Step>> = Vec::new();
        for step in removal::steps(&context) {
            let foreign = |kind, id: &str| found.is_foreign(kind, id);
            match Resource::named(step.name()) {
                // The fleet's.
                Some(Resource::BrainUrl) => {}
                Some(Resource::BrainKey)
                    if foreign(Kind::Parameter, &customer.brain_key_parameter()) => {}
                Some(Resource::BrainKey) => steps.push(Arc::new(Gone::BrainKey(BrainKeyGone {
                    context: Arc::clone(&context),
                    leave: leave_brain_key,
                    by_hand: Arc::clone(&by_hand),
                }))),
                Some(Resource::TailscaleAuthKey) => {
                    if !foreign(Kind::Parameter, &customer.tailscale_auth_key_parameter()) {
                        steps.push(Arc::new(Gone::AuthKey(AuthKeyGone {
                            context: Arc::clone(&context),
                            by_hand: Arc::clone(&by_hand),
                        })));
                    }
                    steps.push(Arc::new(Gone::OtherParameters(OtherParametersGone {
                        context: Arc::clone(&context),
                        foreign: found.foreign.clone(),
                    })));
                }
                Some(Resource::InstanceProfile) if foreign(Kind::InstanceProfile, &name) => {}
                Some(Resource::IamRole) if foreign(Kind::IamRole, &name) => {}
                _ => steps.push(step),
            }
        }
        Self {
            context,
            steps,
            by_hand,
        }
    }

    /// Its steps, in the order in which they are undone.
    pub fn steps(&self) -> &[Arc<dyn Step>] {
        &self.steps
    }

    /// Removes everything, and looks whether anything is left.
    pub async fn carry_out(&self, events: Events, interrupt: &CancellationToken) -> Offboarded {
        let began = Instant::now();
        let mut done = Offboarded::default();
        let undone = undo_all(&self.steps, "nothing of this customer", &events, interrupt).await;
        for Undone { step, result } in undone {
            match result {
                Ok(removed) => done.removed.extend(removed),
                Err(error) => done.failures.push((step, error)),
            }
        }
        match self.still_there(!done.failures.is_empty()).await {
            Ok(left) => done.left = left,
            Err(error) => done.failures.push(("inventory", error)),
        }
        done.by_hand = self
            .by_hand
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let interrupted = |(_, error): &(_, StepError)| matches!(error, StepError::Interrupted);
        let end = if done.failures.iter().any(interrupted) {
            RunEnd::Interrupted
        } else if done.failures.is_empty() && done.left.is_empty() {
            RunEnd::Done
        } else {
            RunEnd::Failed
        };
        events.send(Event::RunFinished {
            end,
            elapsed_ms: millis(began.elapsed()),
        });
        done
    }

    /// AWS may list what is gone for some seconds more.
    async fn still_there(&self, failed: bool) -> Result<Vec<Item>, StepError> {
        let began = Instant::now();
        loop {
            let left = Belongings::read(&self.context).await?.own;
            if left.is_empty() || failed || began.elapsed() > GONE_PATIENCE {
                return Ok(left);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
