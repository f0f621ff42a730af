//! The tailnet's keys and devices as the API shows and changes them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{AuthKey, State};

impl AuthKey {
    pub(super) fn is_dead(&self) -> bool {
        self.revoked.is_some()
            || self.expires <= Timestamp::now()
            || (self.used && !self.spec.reusable)
    }
}

impl State {
    /// Whether owners of these names may give a device a tag.
    pub(super) fn may_assign(&self, tag: &str, owners: &[&str]) -> bool {
        if self.policy.defines(tag) {
            return self.policy.is_owned_by(tag, owners);
        }
        // The policy file says who owns a tag; until one names the customer, the sandbox takes the design's word.
        self.conduct.takes_undefined_customer_tags && tag.starts_with(super::CUSTOMER_TAG_PREFIX)
    }

    pub(super) fn show_key(&self, id: &str) -> Option<Value> {
        let key = self.keys.get(id)?;
        let mut shown = json!({
            "id": id,
            "keyType": "auth",
            "description": key.description,
            "created": key.created,
            "expires": key.expires,
            "capabilities": {"devices": {"create": {
                "reusable": key.spec.reusable,
                "ephemeral": key.spec.ephemeral,
                "preauthorized": key.spec.preauthorized,
                "tags": key.spec.tags,
            }}},
        });
        if key.is_dead() {
            shown["invalid"] = json!(true);
        }
        if let Some(at) = key.revoked {
            shown["revoked"] = json!(at);
        }
        Some(shown)
    }

    pub(super) fn show_devices(&self) -> Vec<Value> {
        let joined = self.devices.values().map(|device| {
            let mut shown = json!({
                "id": device.node_id.trim_start_matches('n'),
                "nodeId": device.node_id,
                "name": format!("{}.tail8trx.ts.net", device.hostname),
                "hostname": device.hostname,
                "addresses": [device.ip],
                "user": super::USER,
                "os": "linux",
                "clientVersion": "1.90.8",
                "authorized": device.authorized,
                "isEphemeral": device.ephemeral,
                "isExternal": false,
                "created": device.created,
                "lastSeen": if device.online { Value::Null } else { json!(device.last_seen) },
                "connectedToControl": device.online,
                "nodeKey": device.node_key,
                "tailnetLockError": device.lock_error,
                "tailnetLockKey": format!("nlpub:{}", &device.node_key["nodekey:".len()..]),
            });
            // Like the real one, it leaves the field out where there are none.
            if !device.tags.is_empty() {
                shown["tags"] = json!(device.tags);
            }
            shown
        });
        self.residents.iter().cloned().chain(joined).collect()
    }

    pub(super) fn remove_device(&mut self, node_id: &str) -> bool {
        let residents = self.residents.len();
        self.residents.retain(|device| device["nodeId"] != node_id);
        let devices = self.devices.len();
        self.devices.retain(|_, device| device.node_id != node_id);
        self.residents.len() < residents || self.devices.len() < devices
    }

    pub(super) fn revoke(&mut self, id: &str) -> bool {
        match self.keys.get_mut(id).filter(|key| key.revoked.is_none()) {
            Some(key) => {
                key.revoked = Some(Timestamp::now());
                true
            }
            None => false,
        }
    }
}
