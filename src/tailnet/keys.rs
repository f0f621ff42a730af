//! Auth keys: what is known of one, what is wrong with it, and how one is asked for.

use std::hash::{BuildHasher as _, Hasher as _};

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::devices::{moment, nullable};
use crate::customer::CustomerId;
use crate::secret::TailscaleAuthKey;

/// How long a minted key is good: the most that Tailscale allows.
pub const KEY_LIFETIME: SignedDuration = SignedDuration::from_hours(90 * 24);

/// Tailscale cuts a longer description in silence.
const MAX_DESCRIPTION_LENGTH: usize = 50;
/// What the API tells of an auth key; never the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthKey {
    /// Its id, the part after `tskey-auth-`.
    pub id: String,
    /// What it is: `auth`, `client`, `api`. Older answers do not say.
    #[serde(default)]
    pub key_type: Option<String>,
    /// What it is for, in its maker's words.
    #[serde(default, deserialize_with = "nullable")]
    pub description: String,
    /// When it was made.
    #[serde(default, deserialize_with = "moment")]
    pub created: Option<Timestamp>,
    /// Until when it is good.
    #[serde(default, deserialize_with = "moment")]
    pub expires: Option<Timestamp>,
    /// When it was revoked.
    #[serde(default, deserialize_with = "moment")]
    pub revoked: Option<Timestamp>,
    /// Revoked, expired or used up.
    #[serde(default)]
    pub invalid: bool,
    #[serde(default)]
    pub(super) capabilities: Option<Capabilities>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Capabilities {
    #[serde(default)]
    devices: DeviceCapabilities,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct DeviceCapabilities {
    #[serde(default)]
    create: CreateCapabilities,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct CreateCapabilities {
    #[serde(default)]
    reusable: bool,
    #[serde(default)]
    ephemeral: bool,
    #[serde(default)]
    preauthorized: bool,
    #[serde(default, deserialize_with = "nullable")]
    tags: Vec<String>,
}

impl AuthKey {
    fn create(&self) -> Option<&CreateCapabilities> {
        self.capabilities.as_ref().map(|all| &all.devices.create)
    }

    /// The tags of devices that join with it.
    pub fn tags(&self) -> &[String] {
        self.create().map_or(&[], |create| &create.tags)
    }

    /// Whether it was revoked, has expired, or is used up.
    pub fn is_dead(&self, now: Timestamp) -> bool {
        self.invalid || self.revoked.is_some() || self.expires.is_some_and(|at| at <= now)
    }

    /// How long it is still good, in whole days, where it ends at all.
    pub fn days_left(&self, now: Timestamp) -> Option<i64> {
        self.expires
            .map(|at| at.duration_since(now).as_hours().max(0) / 24)
    }

    /// Whether this program made it, by its description.
    pub fn is_minted(&self) -> bool {
        self.description.starts_with("m8trx-")
    }

    /// Whether it lets in devices of exactly this customer.
    pub fn is_of(&self, customer: &CustomerId) -> bool {
        self.tags() == [customer.tailscale_tag()]
    }

    /// Why hosts of a customer cannot, or must not, join with it; empty where nothing is wrong.
    ///
    /// Each is a reason to refuse it. One that is not ephemeral leaves a dead device behind for every host that ends,
    /// which keeps the customer's tag; one that is not pre-approved lets nobody in where devices need approval.
    pub fn problems(&self, customer: &CustomerId, now: Timestamp) -> Vec<String> {
        let tag = customer.tailscale_tag();
        let mut problems = Vec::new();
        if self.key_type.as_deref().is_some_and(|kind| kind != "auth") {
            problems.push("it is no auth key".to_owned());
            return problems;
        }
        if self.revoked.is_some() {
            problems.push("it was revoked".to_owned());
        } else if let Some(at) = self.expires.filter(|at| *at <= now) {
            problems.push(format!("it expired at {at}"));
        } else if self.invalid {
            problems.push("it is not valid any more".to_owned());
        }
        let create = self.create().cloned().unwrap_or_default();
        if create.tags != [tag.as_str()] {
            problems.push(if create.tags.is_empty() {
                format!("it has no tag, so devices join under its user's own access; it needs exactly {tag}")
            } else {
                format!("its tags are {}; it needs exactly {tag}", create.tags.join(", "))
            });
        }
        for (holds, what) in [
            (
                create.reusable,
                "reusable: a second host, or a rebuilt one, could not join",
            ),
            (
                create.ephemeral,
                "ephemeral: hosts that end would stay in the tailnet",
            ),
            (
                create.preauthorized,
                "pre-approved: hosts would wait for an administrator",
            ),
        ] {
            if !holds {
                problems.push(format!("it is not {what}"));
            }
        }
        problems
    }
}

/// What a new key is for.
#[derive(Debug, Clone)]
pub struct NewKey {
    /// The one tag of devices that join with it.
    pub tag: String,
    /// Its description: unique, so that the key is found by it. See [`description`].
    pub description: String,
    /// How long it is good.
    pub lifetime: SignedDuration,
}

impl NewKey {
    /// A key for a customer's hosts, for as long as Tailscale allows.
    pub fn for_customer(customer: &CustomerId, run: &str) -> Self {
        Self {
            tag: customer.tailscale_tag(),
            description: description(customer, run),
            lifetime: KEY_LIFETIME,
        }
    }
}

/// A key that was just minted.
#[derive(Debug, Clone)]
pub struct MintedAuthKey {
    /// The key itself; shown this once.
    pub key: TailscaleAuthKey,
    /// Until when it is good.
    pub expires: Option<Timestamp>,
}

/// The description of a key: what made it, for whom, and in which run; letters, digits and hyphens only.
///
/// The run's mark stands at the end and is never cut: by it the key is found.
pub fn description(customer: &CustomerId, run: &str) -> String {
    let run: String = run
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || *c == '-')
        .collect();
    let mut text = description_prefix(customer);
    text.truncate(MAX_DESCRIPTION_LENGTH.saturating_sub(run.len() + 1));
    format!("{}-{run}", text.trim_end_matches('-'))
}

/// How the descriptions of a customer's minted keys begin, unless the name is too long for that.
pub fn description_prefix(customer: &CustomerId) -> String {
    let tag = customer.tailscale_tag();
    format!("m8trx-{}", tag.trim_start_matches("tag:m8trx-cust-"))
}

/// The part of a run's mark `<customer>/<run>` that goes into descriptions.
pub fn run_of(mark: &str) -> &str {
    mark.rsplit_once('/').map_or(mark, |(_, run)| run)
}

/// A mark for a run that has none: 16 hexadecimal digits.
pub fn random_mark() -> String {
    // The standard library seeds every such state from the system's randomness.
    format!(
        "{:016x}",
        std::hash::RandomState::new().build_hasher().finish()
    )
}

/// What to click where no OAuth client is configured.
pub fn how_to_make_a_key(customer: &CustomerId) -> String {
    let tag = customer.tailscale_tag();
    format!(
        "make one at https://login.tailscale.com/admin/settings/keys > Generate auth key: Reusable on, Expiration 90 days, \
         Ephemeral on, Pre-approved on (it is shown where devices need approval), Tags on with {tag} and no other \
         (the policy file must define it under tagOwners first); pass it with --tailscale-key-file FILE, or - for \
         standard input. With an OAuth client (M8TRX_TAILSCALE_CLIENT_ID, M8TRX_TAILSCALE_CLIENT_SECRET_FILE) it is made for you"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn acme() -> CustomerId {
        "cust_acme".parse().unwrap()
    }

    fn key(json: serde_json::Value) -> AuthKey {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn what_is_wrong_with_a_key_is_told_each_thing_once() {
        let now: Timestamp = "2026-11-24T00:00:00Z".parse().unwrap();
        let good = json!({"id": "kA", "expires": "2026-12-24T00:00:00Z", "capabilities": {"devices": {"create":
            {"reusable": true, "ephemeral": true, "preauthorized": true, "tags": ["tag:m8trx-cust-acme"]}}}});
        assert_eq!(
            key(good.clone()).problems(&acme(), now),
            Vec::<String>::new()
        );
        assert_eq!(key(good.clone()).days_left(now), Some(30));
        let with = |path: &str, value: serde_json::Value| {
            let mut changed = good.clone();
            *changed.pointer_mut(path).unwrap() = value;
            key(changed).problems(&acme(), now).join("; ")
        };
        let create = "/capabilities/devices/create";
        for (path, value, words) in [
            (
                format!("{create}/tags"),
                json!(["tag:m8trx-cust-bigco"]),
                "its tags are tag:m8trx-cust-bigco; it needs exactly tag:m8trx-cust-acme",
            ),
            (
                format!("{create}/tags"),
                json!(["tag:m8trx-cust-acme", "tag:m8trx-team"]),
                "its tags are tag:m8trx-cust-acme, tag:m8trx-team",
            ),
            (format!("{create}/tags"), json!(null), "it has no tag"),
            (
                format!("{create}/reusable"),
                json!(false),
                "it is not reusable",
            ),
            (
                format!("{create}/ephemeral"),
                json!(false),
                "it is not ephemeral",
            ),
            (
                format!("{create}/preauthorized"),
                json!(false),
                "it is not pre-approved",
            ),
            (
                "/expires".to_owned(),
                json!("2026-11-24T00:00:00Z"),
                "it expired at 2026-11-24T00:00:00Z",
            ),
        ] {
            let told = with(&path, value);
            assert!(
                told.starts_with(words) && !told.contains("; it is"),
                "{told}"
            );
        }
        let dead = key(json!({"id": "kA", "invalid": true}));
        assert!(dead.problems(&acme(), now)[0].contains("not valid any more"));
    }

    proptest! {
        #[test]
        fn a_description_fits_and_keeps_its_mark(name in "[a-z0-9_]{1,59}", run in "[a-z0-9-]{1,25}[a-z0-9]") {
            let customer: CustomerId = format!("cust_{name}").parse().unwrap();
            let text = description(&customer, &run);
            prop_assert!(text.len() <= MAX_DESCRIPTION_LENGTH, "{}", text);
            prop_assert!(text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'));
            let mark = format!("-{run}");
            prop_assert!(text.starts_with("m8trx") && text.ends_with(&mark));
        }
    }
}
