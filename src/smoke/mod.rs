//! Proving a real environment: one customer is taken the whole way, checked, and removed again.
//!
//! Nothing about a run is kept on this machine. What a run makes carries its mark as a tag, and a run that was killed is
//! found and finished by that tag alone, from anywhere.

pub mod checks;
pub mod removal;
pub mod report;
pub mod tailnet;
pub mod timeline;

use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

use jiff::Timestamp;

use crate::customer::CustomerId;
use crate::plan::{InvalidPlan, Plan};
use crate::steps::{self, Context};
use crate::tags::{MARK_KEY, Mark};
use checks::{BootstrapComplete, Findings, Hostname, ToolCalled};

/// The mark of a new run: `<customer>/<when it began>-<random>`.
///
/// The customer is part of it because the brain's URL, which a run may have to store, is not the customer's own.
pub fn new_mark(customer: &CustomerId) -> Mark {
    let began = Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    // The standard library seeds every such state from the system's randomness.
    let random = std::hash::RandomState::new().build_hasher().finish();
    Mark {
        key: MARK_KEY,
        value: format!("{customer}/{began}-{:08x}", random & 0xffff_ffff),
    }
}

/// The onboarding as it is, and what is checked after it.
pub fn plan(
    context: &Arc<Context>,
    findings: &Arc<Findings>,
    expect_tool_call: bool,
) -> Result<Plan, InvalidPlan> {
    let mut all = steps::onboarding(context)?.steps().to_vec();
    all.push(Arc::new(BootstrapComplete {
        context: Arc::clone(context),
        findings: Arc::clone(findings),
    }));
    all.push(Arc::new(Hostname {
        context: Arc::clone(context),
        findings: Arc::clone(findings),
    }));
    if expect_tool_call {
        all.push(Arc::new(ToolCalled {
            context: Arc::clone(context),
            findings: Arc::clone(findings),
        }));
    }
    Plan::new(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tags::mark_among;

    #[test]
    fn a_mark_is_a_legal_tag_and_each_run_has_its_own() {
        let customer: CustomerId = "cust_b4_smoke".parse().unwrap();
        let (one, other) = (new_mark(&customer), new_mark(&customer));
        assert_ne!(one.value, other.value);
        for mark in [&one, &other] {
            let key_fits = |c: char| c.is_ascii_alphanumeric() || "-_+=,.@:".contains(c);
            assert!(mark.key.chars().all(key_fits), "{mark:?}");
            let value_fits = |c: char| c.is_ascii_alphanumeric() || "_.:/=+-@".contains(c);
            assert!(mark.value.chars().all(value_fits), "{mark:?}");
            assert!(mark.value.len() <= 256);
        }
    }

    #[test]
    fn a_mark_of_another_customer_is_not_this_ones() {
        let customer: CustomerId = "cust_b4_smoke".parse().unwrap();
        let neighbour: CustomerId = "cust_b4_smoke2".parse().unwrap();
        let tags = |mark: &Mark| {
            vec![
                ("Customer".to_owned(), "x".to_owned()),
                (mark.key.to_owned(), mark.value.clone()),
            ]
        };
        let mark = new_mark(&neighbour);
        assert_eq!(mark_among(&customer, &tags(&mark)), None);
        assert_eq!(mark_among(&neighbour, &tags(&mark)), Some(mark));
    }
}
