//! Changing the tailnet's policy file: read, merged, checked, validated, kept, and replaced as a whole, or not at all.

use std::collections::BTreeSet;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use similar::TextDiff;

use super::check::{Finding, Report, check, check_policy};
use super::hujson::Document;
use super::merge::{MergeError, add_customers_marked, owned_customers};
use super::model::{DEFAULT_BRAIN_PORT, Policy};
use super::removal::remove_tag;
use crate::customer::CustomerId;
use crate::tailnet::devices::Device;
use crate::tailnet::error::Refusal;
use crate::tailnet::policy_file::{PolicyFile, Verdict};
use crate::tailnet::{Tailnet, TailnetError, backoff};

/// How long a change starts again and again because somebody else was faster.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the API may say that a file was changed which reads the same as before.
const MAX_PHANTOMS: u32 = 4;
/// The most violations that one message shows.
const SHOWN: usize = 5;

/// What should be in the file, and what should not.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Customers that should be there.
    pub add: BTreeSet<CustomerId>,
    /// Customers that should not.
    pub remove: BTreeSet<CustomerId>,
    /// The port of the brain; that of a brain which nothing is known of where there is none.
    pub brain_port: Option<u16>,
    /// A remark at the tag owner of each customer put in, by which it is known again.
    pub mark: Option<String>,
    /// A whole file instead, as it was once kept.
    pub restore: Option<String>,
}

impl Wish {
    /// Whether it only takes customers out. Rules only ever add, so that cannot make a file worse.
    pub fn only_removes(&self) -> bool {
        self.add.is_empty() && self.restore.is_none()
    }
}

/// A file as it is, as it should be, and what the check says of the latter.
#[derive(Debug)]
pub struct Proposal {
    /// As it is, with its ETag.
    pub before: PolicyFile,
    /// As it should be.
    pub after: String,
    /// What the check says of that.
    pub report: Report,
}

/// A policy file that was not changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Tailscale's API refused or did not answer.
    #[error(transparent)]
    Tailnet(#[from] TailnetError),
    /// Customers cannot be put into the file or taken out of it.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// The file would not isolate customers.
    #[error("the policy file would not isolate customers: {}", shown(.0))]
    DoesNotHold(Vec<Finding>),
    /// Tailscale does not take the file.
    #[error("Tailscale does not take the policy file: {0}")]
    Invalid(Refusal),
    /// The previous file cannot be kept.
    #[error("the previous policy file cannot be kept in {path}: {reason}")]
    NotKept {
        /// Where.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// There is no place to keep the previous file.
    #[error(
        "there is no place to keep the previous policy file: neither XDG_STATE_HOME nor HOME is set"
    )]
    NoPlace,
    /// Others change the file all the time.
    #[error(
        "the policy file was changed by others {tries} times within {seconds} s while it was being changed"
    )]
    KeepsChanging {
        /// How often it was tried.
        tries: u32,
        /// For how long.
        seconds: u64,
    },
    /// The API takes no ETag of the file, which nobody has changed.
    #[error(
        "Tailscale says that the policy file was changed since it was read (412), and yet it reads the same each time: its ETag does not come through"
    )]
    EtagNotTaken,
}

fn shown(findings: &[Finding]) -> String {
    let mut lines: Vec<String> = findings
        .iter()
        .take(SHOWN)
        .map(Finding::to_string)
        .collect();
    if findings.len() > SHOWN {
        lines.push(format!("and {} more", findings.len() - SHOWN));
    }
    lines.join("; ")
}

impl ChangeError {
    /// What the operator can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Tailnet(error) => return error.hint(),
            Self::Merge(_) => "mend the file in the admin console under Access controls, then run the same command again".to_owned(),
            Self::DoesNotHold(_) => "narrow these rules in the admin console under Access controls (m8trx tailnet check shows them all); nothing was changed".to_owned(),
            Self::Invalid(_) => "mend what it names in the admin console under Access controls; nothing was changed".to_owned(),
            Self::NotKept { .. } | Self::NoPlace => "set XDG_STATE_HOME to a folder that can be written to; the policy file was not changed".to_owned(),
            Self::KeepsChanging { .. } => "wait until others are done (a pipeline, perhaps), then run the same command again".to_owned(),
            Self::EtagNotTaken => "look for a proxy between this machine and Tailscale that changes the headers ETag or If-Match; nothing was changed".to_owned(),
        })
    }
}

impl Proposal {
    /// What a wish makes of a file.
    fn new(before: PolicyFile, wish: &Wish) -> Result<Self, MergeError> {
        let mut after = wish.restore.as_ref().unwrap_or(&before.text).clone();
        for customer in &wish.remove {
            after = remove_tag(&after, &customer.tailscale_tag())?;
        }
        let port = wish.brain_port.unwrap_or(DEFAULT_BRAIN_PORT);
        after = add_customers_marked(&after, &wish.add, port, wish.mark.as_deref())?;
        let report = check(&Document::parse(after.as_str())?, port);
        Ok(Self {
            before,
            after,
            report,
        })
    }

    /// The customers' tags that lose their owner, and with it all their rules.
    pub fn taken_out(&self) -> Result<BTreeSet<String>, MergeError> {
        let before = owned_customers(&Document::parse(self.before.text.as_str())?);
        let after = owned_customers(&Document::parse(self.after.as_str())?);
        Ok(before.difference(&after).cloned().collect())
    }

    /// Whether there is something to do.
    pub fn changes(&self) -> bool {
        self.before.text != self.after
    }

    /// The difference as a unified diff.
    pub fn diff(&self) -> String {
        diff(&self.before.text, &self.after)
    }

    /// How many lines come and go.
    pub fn counts(&self) -> (usize, usize) {
        let diff = TextDiff::from_lines(&self.before.text, &self.after);
        let count = |tag| {
            diff.iter_all_changes()
                .filter(|change| change.tag() == tag)
                .count()
        };
        (
            count(similar::ChangeTag::Insert),
            count(similar::ChangeTag::Delete),
        )
    }

    /// Refuses what the check refuses.
    pub fn isolates(&self) -> Result<(), ChangeError> {
        if self.report.holds() {
            Ok(())
        } else {
            Err(ChangeError::DoesNotHold(self.report.violations.clone()))
        }
    }
}

/// The difference of two files as a unified diff.
pub fn diff(before: &str, after: &str) -> String {
    TextDiff::from_lines(before, after)
        .unified_diff()
        .context_radius(3)
        .header("policy file as it is", "policy file as it will be")
        .to_string()
}

/// What became of an attempt to replace the file.
#[derive(Debug)]
pub enum Put {
    /// It was replaced; the previous one is kept here.
    Done(PathBuf),
    /// Somebody else changed it first: it must be looked at again.
    Changed,
}

impl Tailnet {
    /// Reads the policy file and says what a wish makes of it.
    pub async fn propose(&self, wish: &Wish) -> Result<Proposal, ChangeError> {
        let mut proposal = Proposal::new(self.policy_file().await?, wish)?;
        if proposal.report.names_addresses {
            let port = wish.brain_port.unwrap_or(DEFAULT_BRAIN_PORT);
            let document = Document::parse(proposal.after.as_str()).map_err(MergeError::from)?;
            proposal.report = self.check(&document, port).await?;
        }
        Ok(proposal)
    }

    /// Checks a file; where it names single addresses of the tailnet, with the devices that have them.
    pub async fn check(
        &self,
        document: &Document,
        brain_port: u16,
    ) -> Result<Report, TailnetError> {
        let report = check(document, brain_port);
        if !report.names_addresses {
            return Ok(report);
        }
        match self.devices().await {
            Ok(devices) => {
                let owners = devices.iter().flat_map(Device::address_owners).collect();
                Ok(check_policy(
                    Policy::read_with(document, owners),
                    brain_port,
                ))
            }
            // Whose they are stays open then, which the report says.
            Err(TailnetError::Forbidden { .. }) => Ok(report),
            Err(error) => Err(error),
        }
    }

    /// Has Tailscale look at the proposed file, without keeping it; gives what it warns of.
    pub async fn validate(&self, proposal: &Proposal) -> Result<Option<Refusal>, ChangeError> {
        match self.validate_policy(&proposal.after).await? {
            Verdict::Taken => Ok(None),
            Verdict::TakenWithWarnings(warnings) => Ok(Some(warnings)),
            Verdict::Refused(refusal) => Err(ChangeError::Invalid(refusal)),
        }
    }

    /// Replaces the file by the proposed one, if it is still what it was; the previous one is kept first.
    pub async fn put(
        &self,
        proposal: &Proposal,
        keep_in: Option<&Path>,
    ) -> Result<Put, ChangeError> {
        let kept = keep(&proposal.before.text, keep_in.ok_or(ChangeError::NoPlace)?)?;
        let error = match self
            .set_policy(&proposal.after, &proposal.before.etag)
            .await
        {
            Ok(_) => return Ok(Put::Done(kept)),
            Err(TailnetError::Changed) => {
                // Nothing was replaced, so nothing needs to be kept.
                let _ = std::fs::remove_file(&kept);
                return Ok(Put::Changed);
            }
            Err(error) => error,
        };
        // The answer may be lost and the file replaced nevertheless: only looking tells.
        if let Ok(now) = self.policy_file().await {
            if now.text == proposal.after {
                return Ok(Put::Done(kept));
            }
            if now.text == proposal.before.text {
                let _ = std::fs::remove_file(&kept);
            }
        }
        Err(error.into())
    }

    /// Brings a wish about without asking: all of it, or nothing. Gives the last proposal, and where the previous file is
    /// kept if it was replaced.
    pub async fn bring_about(
        &self,
        wish: &Wish,
        keep_in: Option<&Path>,
    ) -> Result<(Proposal, Option<PathBuf>), ChangeError> {
        let mut contest = Contest::default();
        loop {
            let proposal = self.propose(wish).await?;
            if !proposal.changes() {
                return Ok((proposal, None));
            }
            if !wish.only_removes() {
                proposal.isolates()?;
            }
            if let Some(warnings) = self.validate(&proposal).await? {
                tracing::warn!("Tailscale warns of the policy file: {warnings}");
            }
            if let Put::Done(kept) = self.put(&proposal, keep_in).await? {
                return Ok((proposal, Some(kept)));
            }
            contest.lost(&proposal.before).await?;
        }
    }
}

/// Changes of one file by several at once: who was slower starts again after a pause, until the patience ends.
#[derive(Debug, Default)]
pub struct Contest {
    began: Option<Instant>,
    tries: u32,
    /// The ETag with which the last try was lost, and how often in a row.
    lost_with: (String, u32),
}

impl Contest {
    /// Somebody else was faster than the change of this file: pauses, or gives up.
    pub async fn lost(&mut self, before: &PolicyFile) -> Result<(), ChangeError> {
        let began = *self.began.get_or_insert_with(Instant::now);
        self.tries += 1;
        if self.lost_with.0 == before.etag {
            self.lost_with.1 += 1;
        } else {
            self.lost_with = (before.etag.clone(), 1);
        }
        if self.lost_with.1 >= MAX_PHANTOMS {
            return Err(ChangeError::EtagNotTaken);
        }
        let pause = backoff::pause(self.tries);
        if began.elapsed() + pause > PATIENCE {
            return Err(ChangeError::KeepsChanging {
                tries: self.tries,
                seconds: began.elapsed().as_secs(),
            });
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// Whether a file can be kept in a folder: known before anything is changed, since no policy file is changed without.
pub(crate) fn check_place(directory: Option<&Path>) -> Result<(), ChangeError> {
    let directory = directory.ok_or(ChangeError::NoPlace)?;
    let kept = keep("", directory)?;
    std::fs::remove_file(&kept).map_err(|reason| ChangeError::NotKept {
        path: directory.to_owned(),
        reason,
    })
}

/// Keeps a file in a folder, readable to its owner only.
fn keep(text: &str, directory: &Path) -> Result<PathBuf, ChangeError> {
    let write = || -> io::Result<PathBuf> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        let now = Timestamp::now().strftime("%Y%m%dT%H%M%S%.6f").to_string();
        let path = directory.join(format!("{now}-{}-policy.hujson", std::process::id()));
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(path)
    };
    write().map_err(|reason| ChangeError::NotKept {
        path: directory.to_owned(),
        reason,
    })
}
