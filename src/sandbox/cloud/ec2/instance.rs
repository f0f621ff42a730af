//! An instance.

use jiff::{SignedDuration, Timestamp};

use super::metadata_options::MetadataOptions;
use super::{ApiError, Store};
use crate::cloud::iam::ReadyProfile;
use crate::host::Console;

/// For this long after its launch the describing calls do not know an instance yet.
const VISIBLE_AFTER: SignedDuration = SignedDuration::from_millis(150);

/// The state of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PowerState {
    Pending,
    Running,
    ShuttingDown,
    Terminated,
    Stopping,
    Stopped,
}

impl PowerState {
    /// The name that EC2 gives it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::ShuttingDown => "shutting-down",
            Self::Terminated => "terminated",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
        }
    }

    /// The code that EC2 gives it.
    pub const fn code(self) -> u16 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::ShuttingDown => 32,
            Self::Terminated => 48,
            Self::Stopping => 64,
            Self::Stopped => 80,
        }
    }
}

/// Why an instance is not running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateReason {
    pub code: &'static str,
    pub message: String,
}

/// The root volume of an instance.
#[derive(Debug, Clone)]
pub(super) struct Volume {
    pub id: String,
    pub encrypted: bool,
    pub size_gib: i64,
    pub kind: String,
    pub delete_on_termination: bool,
}

/// An instance; its tags are held by the store.
#[derive(Clone)]
pub(super) struct Instance {
    pub id: String,
    pub reservation: String,
    pub launch_index: usize,
    pub launched: Timestamp,
    pub image: String,
    pub kind: super::types::InstanceType,
    pub subnet: String,
    pub zone: String,
    pub private_address: String,
    pub mac: String,
    pub interface: String,
    pub groups: Vec<String>,
    pub client_token: String,
    pub user_data: Vec<u8>,
    pub options: MetadataOptions,
    pub profile: Option<(String, ReadyProfile)>,
    pub volume: Volume,
    pub terminates_on_shutdown: bool,
    pub termination_protected: bool,
    pub state: PowerState,
    pub reason: Option<StateReason>,
    /// `User initiated (…)`, as the console shows it.
    pub transition: String,
    pub console: Option<Console>,
}

impl Instance {
    /// `ip-172-31-0-10`.
    pub fn hostname(&self) -> String {
        format!("ip-{}", self.private_address.replace('.', "-"))
    }

    /// The name in the private DNS.
    pub fn private_dns(&self, region: &str) -> String {
        let domain = if region == "us-east-1" {
            "ec2.internal".to_owned()
        } else {
            format!("{region}.compute.internal")
        };
        format!("{}.{domain}", self.hostname())
    }

    /// Whether the describing calls know the instance already.
    pub fn is_visible(&self, now: Timestamp) -> bool {
        now.duration_since(self.launched) >= VISIBLE_AFTER
    }

    /// Ends in `Terminated` or `Stopped`.
    pub fn set_down(&mut self) {
        self.state = match self.state {
            PowerState::ShuttingDown | PowerState::Terminated => PowerState::Terminated,
            _ => PowerState::Stopped,
        };
    }
}

impl Store {
    /// The instance of an id, or EC2's error.
    pub(super) fn require_instance(
        &mut self,
        id: &str,
        now: Timestamp,
    ) -> Result<&mut Instance, ApiError> {
        let digits = id.strip_prefix("i-").unwrap_or_default();
        if !matches!(digits.len(), 8 | 17) || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
            return Err(ApiError::new(
                "InvalidInstanceID.Malformed",
                format!("Invalid id: \"{id}\" (expecting \"i-...\")"),
            ));
        }
        self.instances
            .get_mut(id)
            .filter(|instance| instance.is_visible(now))
            .ok_or_else(|| {
                ApiError::new(
                    "InvalidInstanceID.NotFound",
                    format!("The instance ID '{id}' does not exist"),
                )
            })
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Instance")
            .field("id", &self.id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
