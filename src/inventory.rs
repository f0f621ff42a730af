//! What AWS holds of one customer, whose it is by its tags, and which of it smoke runs made.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::aws::{Aws, AwsError};
use crate::customer::{BRAIN_URL_PARAMETER, CUSTOMER_TAG_KEY, CustomerId};
use crate::resource::Resource;
use crate::smoke::{MARK_KEY, mark_among};
use crate::steps::Mark;

/// One thing of a customer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What kind of thing.
    pub kind: Kind,
    /// Its id or name.
    pub id: String,
    /// The customer its `Customer` tag names, where it has one.
    #[serde(skip)]
    pub owner: Option<String>,
    /// The smoke run that made it, if one did.
    #[serde(skip)]
    pub mark: Option<Mark>,
}

/// Kinds of things that an onboarding makes, in the order in which people look for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// An instance that has not ended.
    Host,
    /// A security group.
    SecurityGroup,
    /// A parameter.
    Parameter,
    /// An instance profile.
    InstanceProfile,
    /// An IAM role.
    IamRole,
    /// A device of the tailnet.
    Device,
    /// A Tailscale auth key.
    AuthKey,
    /// The customer's entries in the tailnet's policy file.
    PolicyEntry,
    /// A key that the brain accepts.
    BrainKey,
}

impl Kind {
    /// The resource that one of this kind with this id belongs to; none for a key that only the brain knows.
    pub fn resource(self, id: &str) -> Option<Resource> {
        Some(match self {
            Self::Host => Resource::Host,
            Self::SecurityGroup => Resource::SecurityGroup,
            Self::InstanceProfile => Resource::InstanceProfile,
            Self::IamRole => Resource::IamRole,
            Self::Device | Self::AuthKey => Resource::TailscaleAuthKey,
            Self::PolicyEntry => Resource::TailnetPolicy,
            // A parameter's last part is the name of its resource.
            Self::Parameter => return Resource::named(id.rsplit('/').next()?),
            Self::BrainKey => return None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::SecurityGroup => "security group",
            Self::Parameter => "parameter",
            Self::InstanceProfile => "instance profile",
            Self::IamRole => "IAM role",
            Self::Device => "tailnet device",
            Self::AuthKey => "Tailscale auth key",
            Self::PolicyEntry => "policy file entry",
            Self::BrainKey => "brain key",
        })
    }
}

impl Item {
    /// Something without tags.
    pub fn new(kind: Kind, id: impl Into<String>) -> Self {
        Self {
            kind,
            id: id.into(),
            owner: None,
            mark: None,
        }
    }

    /// Whether its tag names another customer.
    pub fn is_foreign(&self, customer: &CustomerId) -> bool {
        self.owner
            .as_ref()
            .is_some_and(|owner| owner != customer.as_str())
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.id)
    }
}

/// Everything of one customer, and the brain's URL where a smoke run of this customer stored it.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// The things.
    pub items: Vec<Item>,
}

impl Inventory {
    /// Asks AWS. Nothing is changed, and no secret is read.
    pub async fn read(aws: &Aws, customer: &CustomerId) -> Result<Self, AwsError> {
        let name = customer.resource_name();
        let (hosts, groups, role, profile, brain_key, auth_key, brain_url) = futures::try_join!(
            aws.customer_instances(customer),
            aws.customer_security_groups(customer, &name),
            aws.role(&name),
            aws.instance_profile(&name),
            aws.parameter_tags_of(customer.brain_key_parameter()),
            aws.parameter_tags_of(customer.tailscale_auth_key_parameter()),
            aws.parameter_tags_of(BRAIN_URL_PARAMETER.to_owned()),
        )?;
        let mut items = Vec::new();
        let mut add = |kind, id: String, tags: &[(String, String)]| {
            items.push(Item {
                owner: tags
                    .iter()
                    .find_map(|(key, value)| (key == CUSTOMER_TAG_KEY).then(|| value.clone())),
                mark: mark_among(customer, tags),
                ..Item::new(kind, id)
            });
        };
        for host in hosts.iter().filter(|host| host.state != "terminated") {
            add(Kind::Host, host.id.clone(), &host.tags);
        }
        for group in &groups {
            add(Kind::SecurityGroup, group.id.clone(), &group.tags);
        }
        for (parameter, tags) in [brain_key, auth_key].into_iter().flatten() {
            add(Kind::Parameter, parameter, &tags);
        }
        // The fleet's, unless a smoke run had to store it.
        if let Some((parameter, tags)) = brain_url
            && mark_among(customer, &tags).is_some()
        {
            add(Kind::Parameter, parameter, &tags);
        }
        if let Some(profile) = &profile {
            add(Kind::InstanceProfile, name.clone(), &profile.tags);
        }
        if let Some(role) = &role {
            add(Kind::IamRole, name, &role.tags);
        }
        Ok(Self { items })
    }

    /// The marks of the runs that made something of it.
    pub fn marks(&self) -> Vec<Mark> {
        let values: BTreeSet<&str> = self
            .items
            .iter()
            .filter_map(|item| item.mark.as_ref())
            .map(|mark| mark.value.as_str())
            .collect();
        values
            .into_iter()
            .map(|value| Mark {
                key: MARK_KEY,
                value: value.to_owned(),
            })
            .collect()
    }

    /// What a run made.
    pub fn made_by(&self, mark: &Mark) -> Vec<&Item> {
        self.items
            .iter()
            .filter(|item| item.mark.as_ref() == Some(mark))
            .collect()
    }

    /// What a run did not make.
    pub fn not_made_by(&self, mark: &Mark) -> Vec<&Item> {
        self.items
            .iter()
            .filter(|item| item.mark.as_ref() != Some(mark))
            .collect()
    }
}

impl Aws {
    async fn parameter_tags_of(
        &self,
        name: String,
    ) -> Result<Option<(String, Vec<(String, String)>)>, AwsError> {
        Ok(self.parameter_tags(&name).await?.map(|tags| (name, tags)))
    }
}
