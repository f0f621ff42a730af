//! What the machines beneath the cloud see of an instance, and what they tell about it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Store;
use super::instance::{Instance, PowerState, StateReason};
use super::metadata_options::MetadataOptions;
use crate::cloud::Cloud;
use crate::cloud::iam::ReadyProfile;
use crate::cloud::identity::RoleCredentials;
use crate::host::Console;

/// An instance from within.
#[derive(Clone)]
pub(crate) struct HostView {
    pub instance_id: String,
    pub reservation: String,
    pub hostname: String,
    pub private_dns: String,
    pub private_address: String,
    pub mac: String,
    pub image: String,
    pub kind: String,
    pub architecture: &'static str,
    pub zone: String,
    pub launched: Timestamp,
    pub user_data: Vec<u8>,
    pub options: MetadataOptions,
    pub tags: BTreeMap<String, String>,
    pub profile: Option<ReadyProfile>,
}

/// The credentials of an instance.
pub(crate) enum HostCredentials {
    /// The instance has no profile, or the profile no role any more.
    None,
    /// The role's trust policy does not name EC2.
    NotTrusted { role: String },
    /// Good ones.
    Ready(RoleCredentials),
}

/// Why a machine is down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Down {
    /// It was told to, or ended by itself.
    Off,
    /// It could not be started.
    Failed(String),
    /// EC2 gave up on it while it was pending.
    Revoked,
}

impl Cloud {
    fn with_store<T>(&self, region: &str, action: impl FnOnce(&mut Store) -> T) -> T {
        action(&mut self.state().region(region).ec2)
    }

    /// What a machine needs to know of its instance now.
    pub fn host_view(&self, region: &str, id: &str) -> Option<HostView> {
        self.with_store(region, |store| {
            let instance = store.instances.get(id)?;
            Some(HostView {
                instance_id: instance.id.clone(),
                reservation: instance.reservation.clone(),
                hostname: instance.hostname(),
                private_dns: instance.private_dns(region),
                private_address: instance.private_address.clone(),
                mac: instance.mac.clone(),
                image: instance.image.clone(),
                kind: instance.kind.name.clone(),
                architecture: instance.kind.architecture.name(),
                zone: instance.zone.clone(),
                launched: instance.launched,
                user_data: instance.user_data.clone(),
                options: instance.options.clone(),
                tags: store.tags_of(id),
                profile: instance
                    .profile
                    .as_ref()
                    .map(|(_, profile)| profile.clone()),
            })
        })
    }

    /// The credentials that the metadata service hands to an instance.
    pub fn host_credentials(&self, region: &str, id: &str) -> HostCredentials {
        let now = Timestamp::now();
        let mut state = self.state();
        let profile = state
            .region(region)
            .ec2
            .instances
            .get(id)
            .and_then(|instance| instance.profile.as_ref())
            .map(|(_, profile)| profile.name.clone());
        let role = profile.and_then(|profile| {
            let (name, role) = state.iam.role_of_profile(&profile)?;
            Some((name.to_owned(), role.id.clone(), role.trusts_ec2()))
        });
        match role {
            None => HostCredentials::None,
            Some((role, _, false)) => HostCredentials::NotTrusted { role },
            Some((role, role_id, true)) => {
                HostCredentials::Ready(state.credentials.current(id, &role, &role_id, now))
            }
        }
    }

    /// A machine has a console from here on.
    pub fn attach_console(&self, region: &str, id: &str, console: Console) {
        self.change(region, id, |instance| instance.console = Some(console));
    }

    /// The consoles of all instances, by their ids.
    pub fn consoles(&self) -> Vec<(String, Vec<u8>)> {
        let state = self.state();
        let instances = state
            .regions
            .values()
            .flat_map(|r| r.ec2.instances.values());
        instances
            .filter_map(|instance| Some((instance.id.clone(), instance.console.as_ref()?.bytes())))
            .collect()
    }

    /// A machine has booted.
    pub fn host_booted(&self, region: &str, id: &str) {
        self.change(region, id, |instance| {
            if instance.state == PowerState::Pending {
                instance.state = PowerState::Running;
            }
        });
    }

    /// A machine is down for good.
    pub fn host_down(&self, region: &str, id: &str, why: Down) {
        self.change(region, id, |instance| match why {
            Down::Off => {
                let by_itself = matches!(instance.state, PowerState::Pending | PowerState::Running);
                if by_itself {
                    instance.state = if instance.terminates_on_shutdown {
                        PowerState::ShuttingDown
                    } else {
                        PowerState::Stopping
                    };
                    instance.reason = Some(StateReason {
                        code: "Client.InstanceInitiatedShutdown",
                        message: "Client.InstanceInitiatedShutdown: Instance initiated shutdown"
                            .to_owned(),
                    });
                }
                instance.set_down();
            }
            Down::Failed(why) => {
                instance.state = PowerState::Terminated;
                instance.reason = Some(StateReason {
                    code: "Server.InternalError",
                    message: format!("Server.InternalError: Internal error on launch: {why}"),
                });
            }
            Down::Revoked => {
                instance.state = PowerState::Terminated;
                // What EC2 says when, for one, the key of an encrypted volume cannot be used.
                instance.reason = Some(StateReason {
                    code: "Client.InternalError",
                    message: "Client.InternalError: Client error on launch".to_owned(),
                });
            }
        });
    }

    fn change(&self, region: &str, id: &str, action: impl FnOnce(&mut Instance)) {
        self.with_store(region, |store| {
            if let Some(instance) = store.instances.get_mut(id) {
                action(instance);
            }
        });
    }
}
