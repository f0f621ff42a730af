//! The steps of onboarding, one file a step, and what they share.

pub(crate) mod auth_key_facts;
pub mod brain_key;
pub mod brain_url;
pub mod first_heartbeat;
pub mod host;
pub mod hosts_follow;
pub mod iam_role;
pub mod image;
pub mod instance_profile;
pub mod security_group;
pub mod stored_parameter;
pub mod tailnet_membership;
pub mod tailnet_policy;
pub mod tailnet_watch;
pub mod tailscale_auth_key;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::aws::ec2::{Image, Instance};
use crate::aws::ssm::Parameter;
use crate::aws::{Aws, AwsError};
use crate::brain::{Brain, BrainUrl, Heartbeat};
use crate::config::{DEFAULT_INSTANCE_TYPE, DEFAULT_TIMEOUT, Pace};
use crate::customer::{CUSTOMER_TAG_KEY, CustomerId};
use crate::home::{HOME_TAG_KEY, Home};
use crate::plan::{InvalidPlan, Plan, Step, StepError};
use crate::resource::Resource;
use crate::secret::{BrainKey, SecretString, TailscaleAuthKey};
use crate::tailnet::Tailnet;

/// What the steps of one customer share: who, where, what was given, and what was found on the way.
pub struct Context {
    /// The customer.
    pub customer: CustomerId,
    /// AWS.
    pub aws: Aws,
    /// The brain.
    pub brain: Brain,
    /// Tailscale's API, where an OAuth client is configured.
    pub tailnet: Option<Tailnet>,
    /// How a brain key comes to be, where one is needed.
    pub mint: Option<Mint>,
    /// The brain's admin token, where one is configured: to mint and to revoke.
    pub admin_token: Option<SecretString>,
    /// The brain's PostgreSQL, where heartbeats are read from it.
    pub database_url: Option<SecretString>,
    /// The instance type of a new host.
    pub instance_type: String,
    /// A subnet instead of the default VPC.
    pub subnet: Option<String>,
    /// An image instead of Ubuntu 22.04.
    pub ami: Option<String>,
    /// How long the first heartbeat is waited for.
    pub timeout: Duration,
    /// What the brain is told a new key is for.
    pub key_label: String,
    /// How closely a host is watched.
    pub pace: Pace,
    /// Where the policy file is kept before it is changed.
    pub state_directory: Option<PathBuf>,
    /// A tag on everything this run makes. With one, undoing removes what carries it and nothing else; without one,
    /// what is the customer's.
    pub mark: Option<Mark>,
    /// The Tailscale auth key, once given.
    pub tailscale_auth_key: OnceLock<TailscaleAuthKey>,
    /// What was found.
    pub found: Found,
}

/// A tag by which what one run made is told from everything else, later and from elsewhere too.
///
/// The key must fit `[0-9a-zA-Z\-_+=,.@:]`: the metadata service offers the tags of a host, and EC2 refuses others
/// (EC2 user guide, "Work with instance tags in instance metadata").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The tag's key.
    pub key: &'static str,
    /// The tag's value.
    pub value: String,
}

impl Mark {
    /// Whether it is among tags.
    pub fn is_in(&self, tags: &[(String, String)]) -> bool {
        tags.iter()
            .any(|(key, value)| key == self.key && *value == self.value)
    }
}

/// How a brain key comes to be.
#[derive(Debug, Clone)]
pub enum Mint {
    /// By running a command.
    Command(Vec<String>),
    /// By `POST /v1/keys` with the admin token.
    Api(SecretString),
    /// It was minted elsewhere and given.
    Given(BrainKey),
}

impl Mint {
    /// In a few words, for the plan.
    pub fn describe(&self) -> String {
        match self {
            Self::Command(words) => format!("with `{}`", shell_words::join(words)),
            Self::Api(_) => "by POST /v1/keys".to_owned(),
            Self::Given(_) => "given".to_owned(),
        }
    }
}

/// What observing and applying found, for the steps that come after.
#[derive(Default)]
pub struct Found {
    stored_brain_key: OnceCell<Option<Parameter>>,
    instances: OnceCell<Vec<Instance>>,
    image: OnceCell<Image>,
    vpc: OnceCell<String>,
    /// The security group, once it exists.
    pub security_group: OnceLock<String>,
    /// The key that is stored now, once it is known to be good.
    pub brain_key: OnceLock<BrainKey>,
    /// The host, once it exists.
    pub host: OnceLock<Instance>,
    /// Set where this run has launched it.
    pub launched: OnceLock<()>,
    /// Only a heartbeat after this counts, where the next one is wanted.
    pub heartbeat_after: OnceLock<Timestamp>,
    /// The heartbeat that was found or came.
    pub heartbeat: OnceLock<Heartbeat>,
}

impl Found {
    /// The image of a new host, where it was looked up.
    pub fn known_image(&self) -> Option<&Image> {
        self.image.get()
    }
}

impl Context {
    /// A customer at a brain in an AWS account, with nothing given yet: no way to mint, no database, no Tailscale API,
    /// the defaults of a new host. Callers set what else they know: `Context { mint, ..Context::new(customer, aws, brain) }`.
    pub fn new(customer: CustomerId, aws: Aws, brain: Brain) -> Self {
        Self {
            key_label: format!("m8trx onboard {customer}"),
            customer,
            aws,
            brain,
            tailnet: None,
            mint: None,
            admin_token: None,
            database_url: None,
            instance_type: DEFAULT_INSTANCE_TYPE.to_owned(),
            subnet: None,
            ami: None,
            timeout: DEFAULT_TIMEOUT,
            pace: Pace::default(),
            state_directory: None,
            mark: None,
            tailscale_auth_key: OnceLock::new(),
            found: Found::default(),
        }
    }

    /// For the steps that never ask the brain, so that its URL need not be known. The name is one that resolves nowhere
    /// (RFC 6761): a question would be told that nothing answers.
    pub fn without_brain(customer: CustomerId, aws: Aws) -> Self {
        let nowhere: BrainUrl = "http://brain.invalid"
            .parse()
            .expect("it is well-formed and constant");
        Self::new(customer, aws, Brain::new(nowhere))
    }

    /// The tags of everything made for this customer.
    pub fn tags(&self) -> Vec<(&str, &str)> {
        let mut tags = vec![(CUSTOMER_TAG_KEY, self.customer.as_str())];
        tags.extend(self.mark_tag());
        tags
    }

    /// The tags of what is made for this customer and is of no region: also where the customer lives.
    pub fn global_tags(&self) -> Vec<(String, String)> {
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let mut tags: Vec<(String, String)> = self.tags().into_iter().map(own).collect();
        tags.push((HOME_TAG_KEY.to_owned(), Home::of(&self.aws).tag_value()));
        tags
    }

    /// The mark as a tag, where this run leaves one.
    pub fn mark_tag(&self) -> Option<(&str, &str)> {
        self.mark
            .as_ref()
            .map(|mark| (mark.key, mark.value.as_str()))
    }

    /// Whether undoing may remove something with these tags.
    pub fn may_remove(&self, tags: &[(String, String)]) -> bool {
        self.mark.as_ref().is_none_or(|mark| mark.is_in(tags))
    }

    /// Whether there is a parameter of this name and undoing may remove it.
    async fn may_remove_parameter(&self, name: &str) -> Result<bool, AwsError> {
        Ok(match self.aws.parameter_tags(name).await? {
            Some(tags) => self.may_remove(&tags),
            None => false,
        })
    }

    /// The stored brain key as it was when first asked for.
    pub async fn stored_brain_key(&self) -> Result<Option<&Parameter>, AwsError> {
        let name = self.customer.brain_key_parameter();
        self.found
            .stored_brain_key
            .get_or_try_init(|| self.aws.parameter(&name))
            .await
            .map(Option::as_ref)
    }

    /// The customer's live hosts as they were when first asked for.
    pub async fn live_hosts(&self) -> Result<Vec<&Instance>, AwsError> {
        let all = self
            .found
            .instances
            .get_or_try_init(|| self.aws.customer_instances(&self.customer))
            .await?;
        Ok(all.iter().filter(|instance| instance.is_live()).collect())
    }

    /// The image of a new host, looked up once and the same for the whole run.
    pub async fn image(&self) -> Result<&Image, StepError> {
        self.found
            .image
            .get_or_try_init(|| image::resolve(self))
            .await
    }

    /// The VPC of a new host.
    pub async fn vpc(&self) -> Result<&str, StepError> {
        self.found
            .vpc
            .get_or_try_init(|| security_group::resolve_vpc(self))
            .await
            .map(String::as_str)
    }
}

/// The whole path of one customer, from nothing to the first heartbeat.
pub fn onboarding(context: &Arc<Context>) -> Result<Plan, InvalidPlan> {
    Plan::new(
        Resource::all()
            .filter_map(|resource| step(resource, context))
            .collect(),
    )
}

/// The steps of what a host needs to come up.
pub fn needed_by_host(context: &Arc<Context>) -> Result<Plan, InvalidPlan> {
    let needed = Resource::all().filter(|resource| resource.is_needed_by_host());
    Plan::part(
        needed
            .filter_map(|resource| step(resource, context))
            .collect(),
    )
}

/// The step that ensures something; none for the policy file where Tailscale's API is not configured.
pub fn step(resource: Resource, context: &Arc<Context>) -> Option<Arc<dyn Step>> {
    let shared = Arc::clone(context);
    Some(match resource {
        Resource::BrainUrl => Arc::new(brain_url::BrainUrlParameter(shared)),
        Resource::BrainKey => Arc::new(brain_key::BrainKeyParameter(shared)),
        Resource::TailscaleAuthKey => {
            Arc::new(tailscale_auth_key::TailscaleAuthKeyParameter(shared))
        }
        Resource::IamRole => Arc::new(iam_role::IamRole(shared)),
        Resource::InstanceProfile => Arc::new(instance_profile::InstanceProfile(shared)),
        Resource::Image => Arc::new(image::HostImage(shared)),
        Resource::SecurityGroup => Arc::new(security_group::SecurityGroup(shared)),
        Resource::Host => Arc::new(host::Host(shared)),
        Resource::FirstHeartbeat => Arc::new(first_heartbeat::FirstHeartbeat(shared)),
        Resource::TailnetPolicy => return tailnet_policy(context),
    })
}

/// The step that puts the customer into the tailnet's policy file, where Tailscale's API is configured.
pub fn tailnet_policy(context: &Arc<Context>) -> Option<Arc<dyn Step>> {
    let tailnet = context.tailnet.clone()?;
    Some(Arc::new(tailnet_policy::TailnetPolicy {
        context: Arc::clone(context),
        tailnet,
    }))
}
