//! What Tailscale knows of the stored auth keys, where its API is configured: until when they are good, and whether they are.

use std::collections::HashMap;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use jiff::Timestamp;

use super::keys::Keys;
use crate::aws::Aws;
use crate::aws::ssm::ParameterInfo;
use crate::customer::CustomerId;
use crate::secret::{ExposeSecret as _, InvalidSecret, TailscaleAuthKey};
use crate::tailnet::keys::AuthKey;
use crate::tailnet::{Tailnet, TailnetError};

/// How long Tailscale is asked in all. It is asked for more than can be known without it, so it is not waited for long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Keys that the list of good ones does not hold are looked up one by one: so many at once, and so many at most.
const LOOK_UPS_AT_ONCE: usize = 4;
const MOST_LOOK_UPS: usize = 50;

/// What is known of a stored auth key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoredKey {
    /// Tailscale knows it.
    Known {
        /// Its id, which is no secret.
        id: String,
        /// Until when it is good.
        expires: Option<Timestamp>,
        /// Why hosts of the customer cannot, or must not, join with it.
        problems: Vec<String>,
    },
    /// Tailscale does not know it any more.
    Gone {
        /// Its id, which is no secret.
        id: String,
    },
    /// The stored value cannot be an auth key.
    Bad(InvalidSecret),
}

/// What is known of all, and why it is not more.
#[derive(Debug, Default)]
pub struct StoredKeys {
    /// By customer; those of whom nothing is known are not there.
    pub by_customer: HashMap<CustomerId, StoredKey>,
    /// Why Tailscale could not be asked.
    pub problem: Option<String>,
}

/// Asks about the stored keys of customers.
pub async fn ask(
    tailnet: &Tailnet,
    aws: &Aws,
    keys: &mut Keys,
    customers: &[(&CustomerId, &ParameterInfo)],
    now: Timestamp,
) -> StoredKeys {
    if customers.is_empty() {
        return StoredKeys::default();
    }
    let (listed, unread) = futures::join!(
        tokio::time::timeout(PATIENCE, tailnet.auth_keys()),
        keys.read(aws, customers.iter().map(|(_, parameter)| *parameter)),
    );
    let mut found = StoredKeys {
        problem: unread.into_values().next(),
        ..StoredKeys::default()
    };
    let mut ids: Vec<(&CustomerId, String)> = Vec::new();
    for (customer, parameter) in customers {
        let Some(value) = keys.get(parameter) else {
            continue;
        };
        match TailscaleAuthKey::parse(value.expose_secret()) {
            Ok(key) => ids.push((customer, key.id().to_owned())),
            Err(error) => {
                let bad = StoredKey::Bad(error);
                found.by_customer.insert((*customer).clone(), bad);
            }
        }
    }
    let listed = match listed {
        Ok(Ok(listed)) => listed,
        Ok(Err(error)) => {
            found.problem = Some(error.to_string());
            return found;
        }
        Err(_) => {
            found.problem = Some(format!("no answer within {} s", PATIENCE.as_secs()));
            return found;
        }
    };
    let listed: HashMap<&str, &AuthKey> = listed.iter().map(|key| (key.id.as_str(), key)).collect();
    let mut unlisted = Vec::new();
    for (customer, id) in ids {
        match listed.get(id.as_str()) {
            Some(key) => {
                let known = known(key, customer, now);
                found.by_customer.insert(customer.clone(), known);
            }
            None => unlisted.push((customer, id)),
        }
    }
    if unlisted.len() > MOST_LOOK_UPS {
        found.problem = Some(format!(
            "its list of keys lacks {} of the stored ones, too many to look up one by one",
            unlisted.len()
        ));
        return found;
    }
    match look_up(tailnet, unlisted, now).await {
        Ok(looked_up) => found.by_customer.extend(looked_up),
        Err(error) => found.problem = Some(error.to_string()),
    }
    found
}

/// A list may lack a key that is good, so that what it lacks is asked for by its id.
async fn look_up(
    tailnet: &Tailnet,
    unlisted: Vec<(&CustomerId, String)>,
    now: Timestamp,
) -> Result<Vec<(CustomerId, StoredKey)>, TailnetError> {
    let look_ups = unlisted.into_iter().map(|(customer, id)| async move {
        let key = match tailnet.auth_key(&id).await? {
            Some(key) => known(&key, customer, now),
            None => StoredKey::Gone { id },
        };
        Ok((customer.clone(), key))
    });
    let looked_up: Vec<Result<_, TailnetError>> = stream::iter(look_ups)
        .buffer_unordered(LOOK_UPS_AT_ONCE)
        .collect()
        .await;
    looked_up.into_iter().collect()
}

fn known(key: &AuthKey, customer: &CustomerId, now: Timestamp) -> StoredKey {
    let ended = key.expires.is_some_and(|at| at <= now);
    let mut problems = key.problems(customer, now);
    if ended && key.revoked.is_none() {
        // That it has ended is told of every key in the same words, however that is known.
        problems.retain(|problem| !problem.starts_with("it expired"));
    }
    StoredKey::Known {
        id: key.id.clone(),
        expires: key.expires,
        problems,
    }
}
