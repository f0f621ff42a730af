//! The tags that this program reads and writes, besides the customer's.

use crate::customer::CustomerId;

/// The key of the tag on everything a smoke run makes.
pub const MARK_KEY: &str = "m8trx-smoke";

/// A tag by which what one run made is told from everything else, later and from elsewhere too.
///
/// The key must fit `[0-9a-zA-Z\-_+=,.@:]`: the metadata service offers the tags of a host, and EC2 refuses others
/// (EC2 user guide, "Work with instance tags in instance metadata").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The tag's key.
    pub key: &'static str,
    /// The tag's value.
    pub value: String,
}

impl Mark {
    /// Whether it is among tags.
    pub fn is_in(&self, tags: &[(String, String)]) -> bool {
        tags.iter()
            .any(|(key, value)| key == self.key && *value == self.value)
    }
}

/// The mark of this customer's smoke runs among tags, if there is one.
pub fn mark_among(customer: &CustomerId, tags: &[(String, String)]) -> Option<Mark> {
    let prefix = format!("{customer}/");
    tags.iter()
        .find(|(key, value)| key == MARK_KEY && value.starts_with(&prefix))
        .map(|(_, value)| Mark {
            key: MARK_KEY,
            value: value.clone(),
        })
}
