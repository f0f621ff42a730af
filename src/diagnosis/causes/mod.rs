//! The table: one entry a cause, or one a reading of a cause.
//!
//! To add a cause, add its entry to the file of the step it belongs to, and a recorded console with its name (and variant:
//! `name.variant.log`) to `tests/data/consoles`. The tests see to it that each entry has its console, and that each console
//! shows its own entry.

mod boot;
mod brain;
mod ec2;
mod host;
mod network;
mod packages;
mod parameters;
mod tailscale;
mod tailscale_key;

use Advice::{Do, Run};

/// Lines of the kernel and of systemd in any step, and after the bootstrap: what ails the host itself.
pub const SICK: &str = "sick";
/// What ends a boot for good, at any point.
pub const HALT: &str = "halt";
/// What shows that a host went down in the middle of its bootstrap.
pub const DOWN: &str = "down";
/// A boot in which cloud-init has not finished.
pub const BOOT_STUCK: &str = "boot-stuck";
/// A boot in which cloud-init has finished.
pub const BOOT_DONE: &str = "boot-done";
/// A boot in which cloud-init has finished without a source of user-data.
pub const BOOT_SOURCELESS: &str = "boot-sourceless";
/// The step `packages` after the first heartbeat.
pub const LATER_PACKAGES: &str = "packages-after-the-heartbeat";

/// The steps that install packages.
const APT: &[&str] = &["identity", "packages", "tailscale", LATER_PACKAGES];

/// One cause of a failed boot, or one reading of it.
#[derive(Debug)]
pub struct Cause {
    /// A stable word, part of the JSON output.
    pub name: &'static str,
    /// Tells apart the entries of one cause whose words or remedies differ.
    pub variant: &'static str,
    /// The stages in which it shows; any step of the bootstrap where there is none.
    pub at: &'static [&'static str],
    /// Regular expressions. A line that one of them matches shows the cause; a named group stands for `{name}` below.
    pub shows: &'static [&'static str],
    /// Regular expressions of lines that are shown beside, and whose named groups may stand in commands.
    pub beside: &'static [&'static str],
    /// It says what happened in general only, and counts where no other entry says more.
    pub general: bool,
    /// What happened, in one sentence that stands behind a colon.
    pub what: &'static str,
    /// What else the same lines may mean, each in a sentence; the remedy begins with what tells them apart.
    pub or: &'static [&'static str],
    /// What to do.
    pub remedy: &'static [Advice],
}

impl Cause {
    /// What an entry has where it says nothing else.
    const NEW: Self = Self {
        name: "",
        variant: "",
        at: &[],
        shows: &[],
        beside: &[],
        general: false,
        what: "",
        or: &[],
        remedy: &[],
    };

    /// The name of its recorded console.
    pub fn console(&self) -> String {
        match self.variant {
            "" => self.name.to_owned(),
            variant => format!("{}.{variant}", self.name),
        }
    }
}

/// One thing to do. `{customer}`, `{id}`, `{region}`, `{tag}` (of the tailnet), `{role}`, `{auth_key}` and `{brain_key}` (the
/// parameters) stand for what they are, and so do the names of a pattern's groups.
#[derive(Debug, Clone, Copy)]
pub enum Advice {
    /// A sentence.
    Do(&'static str),
    /// A command that can be pasted.
    Run(&'static str),
}

/// Every entry. Where a line shows two, the first counts.
pub fn all() -> impl Iterator<Item = &'static Cause> {
    [
        ec2::CAUSES,
        boot::CAUSES,
        host::CAUSES,
        parameters::CAUSES,
        tailscale_key::CAUSES,
        tailscale::CAUSES,
        brain::CAUSES,
        network::CAUSES,
        packages::CAUSES,
    ]
    .into_iter()
    .flatten()
}

/// How to get at a host that is kept, and how to be rid of it.
pub const REACH: &[Advice] = &[
    Do(
        "The host is kept. Get in by Session Manager, where its role has the statement for it (runbook, section IAM):",
    ),
    Run("aws ssm start-session --target {id} --region {region}"),
];

/// The same for a host that has joined the tailnet.
pub const REACH_BY_TAILNET: &[Advice] = &[
    Do("The host is kept, and in the tailnet:"),
    Run("tailscale ssh root@{node}"),
    Do("Or by Session Manager, where its role has the statement for it (runbook, section IAM):"),
    Run("aws ssm start-session --target {id} --region {region}"),
];

/// How to go on with a host that is kept.
pub const GO_ON: &[Advice] = &[
    Do("When the cause is fixed, run the same user-data again on it:"),
    Run("sudo bash /var/lib/cloud/instance/scripts/part-001"),
    Do("Or terminate it and launch another:"),
    Run("aws ec2 terminate-instances --instance-ids {id} --region {region}"),
    Run("m8trx onboard {customer}"),
];

/// What to do about a failure that nothing recognises.
pub const UNRECOGNISED: &[Advice] = &[
    Do("Read the lines above, and the whole log:"),
    Run("aws ec2 get-console-output --latest --output text --instance-id {id} --region {region}"),
];
