//! The devices of the tailnet.

use std::net::IpAddr;

use jiff::Timestamp;
use reqwest::Method;
use serde::Deserialize;

use super::client::{Call, Tailnet, decode};
use super::error::TailnetError;

/// A device of the tailnet as the API tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its stable id, by which it is removed.
    pub node_id: String,
    /// Its full name in the tailnet: `ip-172-31-0-10.tail1234.ts.net`.
    #[serde(default)]
    pub name: String,
    /// What the machine calls itself.
    #[serde(default)]
    pub hostname: String,
    /// Its addresses in the tailnet.
    #[serde(default, deserialize_with = "nullable")]
    pub addresses: Vec<String>,
    /// Its tags; none where it belongs to a user.
    #[serde(default, deserialize_with = "nullable")]
    pub tags: Vec<String>,
    /// Whose it is; of a tagged device, who let it in.
    #[serde(default)]
    pub user: String,
    /// When it was last connected; none while it is.
    #[serde(default, deserialize_with = "moment")]
    pub last_seen: Option<Timestamp>,
    /// When it joined.
    #[serde(default, deserialize_with = "moment")]
    pub created: Option<Timestamp>,
    /// Whether it is connected now, where the API says.
    #[serde(default)]
    pub connected_to_control: Option<bool>,
    /// Whether an administrator has approved it, where devices need that.
    #[serde(default = "approved")]
    pub authorized: bool,
    /// Whether it is removed after it goes offline.
    #[serde(default)]
    pub is_ephemeral: bool,
    /// `nodekey:…`, what Tailnet Lock signs.
    #[serde(default)]
    pub node_key: String,
    /// Why Tailnet Lock shuts it out; empty where it does not.
    #[serde(default, deserialize_with = "nullable")]
    pub tailnet_lock_error: String,
    /// `nlpub:…`, its own key for Tailnet Lock; every device has one.
    #[serde(default, deserialize_with = "nullable")]
    pub tailnet_lock_key: String,
}

impl Device {
    /// Whether it is connected now. Older answers only say since when it is not.
    pub fn is_online(&self) -> bool {
        self.connected_to_control
            .unwrap_or(self.last_seen.is_none())
    }

    /// Its addresses, each with whose it is: its tags, or its user's where it has none.
    pub fn address_owners(&self) -> impl Iterator<Item = (IpAddr, Vec<String>)> + '_ {
        let owners = if self.tags.is_empty() {
            vec![self.user.clone()]
        } else {
            self.tags.clone()
        };
        let addresses = self.addresses.iter().filter_map(|text| text.parse().ok());
        addresses.map(move |address| (address, owners.clone()))
    }

    /// Whether Tailnet Lock shuts it out.
    pub fn is_locked_out(&self) -> bool {
        !self.tailnet_lock_error.is_empty()
    }
}

#[derive(Deserialize)]
struct Devices {
    #[serde(deserialize_with = "nullable")]
    devices: Vec<Device>,
}

impl Tailnet {
    /// Every device.
    pub async fn devices(&self) -> Result<Vec<Device>, TailnetError> {
        const OPERATION: &str = "list the devices";
        let path = ["tailnet", self.name(), "devices"];
        let mut call = Call::new(OPERATION, "devices:core:read", Method::GET, &path);
        call.query = &[("fields", "all")];
        let answer = self.call(call).await?;
        Ok(decode::<Devices>(OPERATION, &answer.body)?.devices)
    }

    /// The devices with a tag.
    pub async fn devices_tagged(&self, tag: &str) -> Result<Vec<Device>, TailnetError> {
        let mut devices = self.devices().await?;
        devices.retain(|device| device.tags.iter().any(|own| own == tag));
        Ok(devices)
    }

    /// Removes a device; `false` when there is none of this id.
    pub async fn remove_device(&self, node_id: &str) -> Result<bool, TailnetError> {
        let path = ["device", node_id];
        let call = Call::new("remove the device", "devices:core", Method::DELETE, &path);
        match self.call(call).await {
            Ok(_) => Ok(true),
            Err(TailnetError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Go writes `null` for an empty list.
pub(super) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Go writes the year 1, or nothing, for a time that is not set.
pub(super) fn moment<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Timestamp>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    if text.is_empty() || text.starts_with("0001-01-01") {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

fn approved() -> bool {
    true
}
