//! What AWS holds of a fleet, read in bulk and sorted by customer.

use std::collections::{BTreeMap, BTreeSet};

use super::words;
use crate::aws::customers::homes_of;
use crate::aws::ec2::Instance;
use crate::aws::fleet::RoleDetail;
use crate::aws::ssm::Parameter;
use crate::aws::ssm::{MAX_FILTER_VALUES, ParameterInfo};
use crate::aws::{Aws, AwsError};
use crate::customer::{BRAIN_URL_PARAMETER, CustomerId};
use crate::home::{Home, Known};

/// The path of every parameter of the fleet.
const ROOT: &str = "/m8trx";
/// What the names of a customer's role and instance profile begin with.
const NAME_PREFIX: &str = "m8trx-";

/// What AWS holds of a fleet.
pub struct Facts {
    /// By customer.
    pub customers: BTreeMap<CustomerId, CustomerFacts>,
    /// The stored URL of the brain, or why it could not be read.
    pub brain_url: Result<Option<Parameter>, AwsError>,
    /// Customers of the account of which nothing is in this region, with where they live.
    pub elsewhere: BTreeMap<CustomerId, Known>,
    /// What is there and belongs to no customer, in words: somebody should look at it.
    pub problems: Vec<String>,
    /// What could not be looked at, in words.
    pub notes: Vec<String>,
}

/// What AWS holds of one customer.
#[derive(Debug, Clone, Default)]
pub struct CustomerFacts {
    /// `/m8trx/<id>/brain-key`.
    pub brain_key: Option<ParameterInfo>,
    /// `/m8trx/<id>/tailscale-auth-key`.
    pub tailscale_auth_key: Option<ParameterInfo>,
    /// The names of other parameters beneath `/m8trx/<id>`.
    pub other_parameters: Vec<String>,
    /// Instances tagged with the customer, ended ones too, in the order of their launch.
    pub hosts: Vec<Instance>,
    /// Live instances that run with the customer's instance profile without being tagged with the customer.
    pub impostors: Vec<Instance>,
    /// What IAM holds; none where IAM could not be read.
    pub iam: Option<IamFacts>,
}

/// What IAM holds of one customer.
#[derive(Debug, Clone, Default)]
pub struct IamFacts {
    /// The role of the customer's name.
    pub role: Option<RoleDetail>,
    /// The names of the roles in the instance profile of that name.
    pub profile_roles: Vec<String>,
}

impl CustomerFacts {
    /// Instances that exist or are about to.
    pub fn live_hosts(&self) -> impl Iterator<Item = &Instance> {
        self.hosts.iter().filter(|host| host.is_live())
    }

    /// Whether there is more than what an ended host leaves for an hour.
    fn exists(&self) -> bool {
        self.brain_key.is_some()
            || self.tailscale_auth_key.is_some()
            || !self.other_parameters.is_empty()
            || !self.impostors.is_empty()
            || self.live_hosts().next().is_some()
    }
}

impl Facts {
    /// Asks AWS about every customer, or about these.
    pub async fn read(aws: &Aws, only: &[CustomerId]) -> Result<Self, AwsError> {
        // A filter takes so many values; a longer list is picked out of everything.
        let narrow = !only.is_empty() && only.len() <= MAX_FILTER_VALUES;
        let paths: Vec<String> = if narrow {
            only.iter().map(|id| format!("{ROOT}/{id}")).collect()
        } else {
            vec![ROOT.to_owned()]
        };
        let ids: Vec<&str> = only.iter().map(CustomerId::as_str).collect();
        let names: Vec<String> = only.iter().map(CustomerId::resource_name).collect();
        let every_name = format!("{NAME_PREFIX}*");
        let profiles: Vec<&str> = if narrow {
            names.iter().map(String::as_str).collect()
        } else {
            vec![&every_name]
        };
        let is_ours = |name: &str| name.starts_with(NAME_PREFIX);
        let (parameters, tagged, with_profile, roles, brain_url) = futures::join!(
            aws.parameters_beneath(paths),
            aws.customers_instances(narrow.then_some(ids.as_slice())),
            aws.instances_with_profiles(&profiles),
            aws.role_details(is_ours),
            aws.parameter(BRAIN_URL_PARAMETER),
        );
        let mut facts = Self {
            customers: only
                .iter()
                .map(|id| (id.clone(), CustomerFacts::default()))
                .collect(),
            brain_url,
            elsewhere: BTreeMap::new(),
            problems: Vec::new(),
            notes: Vec::new(),
        };
        facts.sort_parameters(parameters?);
        let tagged = tagged?;
        facts.sort_tagged(&tagged);
        match with_profile {
            Ok(instances) => facts.sort_by_profile(instances),
            Err(error) => facts.notes.push(format!(
                "whether hosts run without the Customer tag is not known: {}",
                words(&error)
            )),
        }
        if !only.is_empty() {
            facts.customers.retain(|id, _| only.contains(id));
            facts.problems.clear();
        }
        match roles {
            Ok(roles) => {
                facts.sort_roles(&roles);
                facts.elsewhere = homes_of(&roles, &aws.account);
            }
            Err(error) => facts.notes.push(format!(
                "roles and their policies are not known: {}",
                words(&error)
            )),
        }
        facts.customers.retain(|_, customer| customer.exists());
        let (here, customers) = (Home::of(aws), &facts.customers);
        facts.elsewhere.retain(|id, known| {
            known.home != here
                && !customers.contains_key(id)
                && (only.is_empty() || only.contains(id))
        });
        for customer in facts.customers.values_mut() {
            customer
                .hosts
                .sort_by(|a, b| (a.launched, &a.id).cmp(&(b.launched, &b.id)));
        }
        Ok(facts)
    }

    fn sort_parameters(&mut self, parameters: Vec<ParameterInfo>) {
        let mut strange: BTreeSet<String> = BTreeSet::new();
        for parameter in parameters {
            if parameter.name == BRAIN_URL_PARAMETER {
                continue;
            }
            let rest = parameter.name.strip_prefix(ROOT).unwrap_or_default();
            let id = rest.trim_start_matches('/').split_once('/');
            let Some(Ok(id)) = id.map(|(id, _)| id.parse::<CustomerId>()) else {
                strange.insert(parameter.name);
                continue;
            };
            let (brain_key, auth_key) =
                (id.brain_key_parameter(), id.tailscale_auth_key_parameter());
            let customer = self.customers.entry(id).or_default();
            if parameter.name == brain_key {
                customer.brain_key = Some(parameter);
            } else if parameter.name == auth_key {
                customer.tailscale_auth_key = Some(parameter);
            } else {
                customer.other_parameters.push(parameter.name);
            }
        }
        for name in strange {
            self.problems.push(format!(
                "the parameter {} belongs to no customer",
                name.escape_debug()
            ));
        }
    }

    fn sort_tagged(&mut self, tagged: &[Instance]) {
        for host in tagged {
            let tag = host.customer.as_deref().unwrap_or_default();
            match tag.parse::<CustomerId>() {
                Ok(id) => self
                    .customers
                    .entry(id)
                    .or_default()
                    .hosts
                    .push(host.clone()),
                // `Customer` is a common tag: a value of another form is somebody else's unless it nearly is one of ours.
                Err(error) if host.is_live() && nearly_an_id(tag) => {
                    self.problems.push(format!(
                        "{} is tagged Customer={}, and {error}",
                        host.id,
                        tag.escape_debug()
                    ));
                }
                Err(_) => {}
            }
        }
    }

    /// Hosts that run with a customer's profile and are not tagged with that customer.
    fn sort_by_profile(&mut self, instances: Vec<Instance>) {
        let by_name: BTreeMap<String, CustomerId> = self
            .customers
            .keys()
            .map(|id| (id.resource_name(), id.clone()))
            .collect();
        for host in instances.into_iter().filter(Instance::is_live) {
            let Some(profile) = profile_name(&host).map(str::to_owned) else {
                continue;
            };
            let of_profile = by_name.get(&profile).cloned().or_else(|| {
                let id = profile.strip_prefix(NAME_PREFIX)?;
                id.parse::<CustomerId>().ok()
            });
            match of_profile {
                Some(id) if host.customer.as_deref() == Some(id.as_str()) => {}
                Some(id) => self.customers.entry(id).or_default().impostors.push(host),
                None => self.problems.push(format!(
                    "{} runs with the instance profile {profile}, which is no customer's",
                    host.id
                )),
            }
        }
    }

    fn sort_roles(&mut self, roles: &BTreeMap<String, RoleDetail>) {
        let mut in_profiles: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (name, detail) in roles {
            for profile in &detail.profiles {
                in_profiles.entry(profile).or_default().push(name.clone());
            }
        }
        for (id, customer) in &mut self.customers {
            let name = id.resource_name();
            customer.iam = Some(IamFacts {
                role: roles.get(&name).cloned(),
                profile_roles: in_profiles.remove(name.as_str()).unwrap_or_default(),
            });
        }
    }
}

/// The last part of the ARN of a host's instance profile.
pub(super) fn profile_name(host: &Instance) -> Option<&str> {
    host.instance_profile.as_deref()?.rsplit('/').next()
}

fn nearly_an_id(tag: &str) -> bool {
    let tag = tag.trim().to_ascii_lowercase();
    tag.starts_with("cust_") || tag.starts_with("cust-") || tag.is_empty()
}
