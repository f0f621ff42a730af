//! Faults by name: conditions that make an onboarding fail the way it fails in reality.

use std::fmt;
use std::str::FromStr;

/// A condition the sandbox can be started with, so that its diagnosis can be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// The metadata service knows no `Customer` tag, as if the launch had left it out.
    CustomerTagMissing,
    /// Instances are launched with `InstanceMetadataTags=disabled`, whatever the launch asks for.
    MetadataTagsDisabled,
    /// No policy of a host's role allows `ssm:GetParameter`.
    IamDenied,
    /// A host finds no `…/brain-key` parameter.
    ParameterMissing,
    /// A host gets no connection to `tailscale.com`.
    TailscaleInstallUnreachable,
    /// The tailnet refuses every auth key as used up or expired.
    TailscaleKeyRejected,
    /// The tailnet permits no tag.
    TailscaleTagRefused,
    /// The package mirror does not answer.
    AptFailed,
    /// The host's service manager fails.
    SystemdFailed,
    /// Nothing answers where a host expects the brain, also after it joined the tailnet.
    BrainUnreachable,
    /// The brain answers 401 to every event.
    BrainKeyRefused,
    /// The brain accepts events and loses them.
    NoHeartbeat,
    /// EC2 has no capacity for the instance type.
    Capacity,
    /// EC2 terminates the instance while it is pending.
    InstanceTerminated,
    /// EC2 accepts a new instance profile only after a long time.
    SlowIam,
    /// Every other call of the operator is throttled, and the first SSM calls of hosts.
    Throttling,
}

impl Fault {
    /// Every fault, in the order of the drills.
    pub const ALL: [Fault; 16] = [
        Self::CustomerTagMissing,
        Self::MetadataTagsDisabled,
        Self::IamDenied,
        Self::ParameterMissing,
        Self::TailscaleInstallUnreachable,
        Self::TailscaleKeyRejected,
        Self::TailscaleTagRefused,
        Self::AptFailed,
        Self::SystemdFailed,
        Self::BrainUnreachable,
        Self::BrainKeyRefused,
        Self::NoHeartbeat,
        Self::Capacity,
        Self::InstanceTerminated,
        Self::SlowIam,
        Self::Throttling,
    ];

    /// The name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CustomerTagMissing => "customer-tag-missing",
            Self::MetadataTagsDisabled => "metadata-tags-disabled",
            Self::IamDenied => "iam-denied",
            Self::ParameterMissing => "parameter-missing",
            Self::TailscaleInstallUnreachable => "tailscale-install-unreachable",
            Self::TailscaleKeyRejected => "tailscale-key-rejected",
            Self::TailscaleTagRefused => "tailscale-tag-refused",
            Self::AptFailed => "apt-failed",
            Self::SystemdFailed => "systemd-failed",
            Self::BrainUnreachable => "brain-unreachable",
            Self::BrainKeyRefused => "brain-key-refused",
            Self::NoHeartbeat => "no-heartbeat",
            Self::Capacity => "capacity",
            Self::InstanceTerminated => "instance-terminated",
            Self::SlowIam => "slow-iam",
            Self::Throttling => "throttling",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A text that names no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no fault `{}`; the faults are {}", .0.escape_debug(), Fault::ALL.map(Fault::name).join(", "))]
pub struct UnknownFault(String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|fault| fault.name() == text)
            .ok_or_else(|| UnknownFault(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_reads_back_and_an_unknown_one_lists_them_all() {
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(fault));
        }
        let message = "tailscale".parse::<Fault>().unwrap_err().to_string();
        for fault in Fault::ALL {
            assert!(message.contains(fault.name()), "{message}");
        }
    }
}
