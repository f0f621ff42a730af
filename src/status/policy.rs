//! How customers stand in the tailnet's policy file, where Tailscale's API is configured: out of it, a host reaches no brain,
//! whatever AWS says of it.

use std::collections::BTreeSet;

use crate::customer::CustomerId;
use crate::tailnet::Tailnet;
use crate::tailnet::policy::check::{Kind, check};
use crate::tailnet::policy::hujson::Document;
use crate::tailnet::policy::merge::owned_customers;

/// What the policy file says of a fleet.
#[derive(Debug, Default)]
pub struct PolicyFacts {
    /// The tags that have an owner in it; none where it could not be read.
    owned: Option<BTreeSet<String>>,
    /// The tags from which no rule leads to the brain.
    cut_off: BTreeSet<String>,
    /// The first thing that keeps it from isolating customers, and how many there are.
    pub violations: Option<(String, usize)>,
    /// Why it could not be looked at.
    pub problem: Option<String>,
}

impl PolicyFacts {
    /// Reads the file and checks it.
    pub async fn read(tailnet: &Tailnet, brain_port: u16) -> Self {
        let document = match tailnet.policy_file().await {
            Ok(file) => Document::parse(file.text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match document {
            Ok(document) => Self::of(&document, brain_port),
            Err(problem) => Self {
                problem: Some(problem),
                ..Self::default()
            },
        }
    }

    fn of(document: &Document, brain_port: u16) -> Self {
        let report = check(document, brain_port);
        let cut_off = |kind: Kind| kind == Kind::BrainUnreachable;
        let mut others = report
            .violations
            .iter()
            .filter(|finding| !cut_off(finding.kind) && finding.kind != Kind::SshUnreachable);
        let first = others.next().map(ToString::to_string);
        Self {
            owned: Some(owned_customers(document)),
            cut_off: report
                .violations
                .iter()
                .filter(|finding| cut_off(finding.kind))
                .filter_map(|finding| finding.source.clone())
                .collect(),
            violations: first.map(|first| (first, others.count() + 1)),
            problem: None,
        }
    }

    /// What keeps a customer's hosts from the brain.
    pub(super) fn trouble(&self, customer: &CustomerId) -> Option<String> {
        let tag = customer.tailscale_tag();
        let owned = self.owned.as_ref()?;
        if !owned.contains(&tag) {
            return Some(format!(
                "the tailnet's policy file does not name {tag}: its host reaches no brain, and none can join"
            ));
        }
        self.cut_off
            .contains(&tag)
            .then(|| format!("no rule of the tailnet's policy file lets {tag} reach the brain"))
    }
}
