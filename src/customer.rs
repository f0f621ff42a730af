//! The customer's vocabulary: id, Tailscale tag, parameter names and AWS resource names.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// Longest customer id, in characters (ASCII, so also bytes).
pub const MAX_CUSTOMER_ID_LENGTH: usize = 64;

/// The EC2 and IAM tag key that names the customer.
pub const CUSTOMER_TAG_KEY: &str = "Customer";

/// The inline policy of a customer's role.
pub const POLICY_NAME: &str = "m8trx-parameters";

/// The fleet-wide parameter that holds the brain's URL.
pub const BRAIN_URL_PARAMETER: &str = "/m8trx/brain-url";

/// A customer id: `^cust_[a-z0-9_]+$`, at most 64 characters.
///
/// It is the value of the EC2 tag `Customer` and one part of the customer's parameter names.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CustomerId(String);

/// Why a text is not a customer id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCustomerId {
    /// The text is empty.
    #[error("the customer id is empty; it looks like `cust_acme`")]
    Empty,
    /// The text does not begin with `cust_`.
    #[error("customer id `{0}` does not begin with `cust_`; it looks like `cust_acme`")]
    Prefix(String),
    /// Nothing follows `cust_`.
    #[error("customer id `cust_` has no name after `cust_`; it looks like `cust_acme`")]
    NoName,
    /// A character other than `a-z`, `0-9` and `_`.
    #[error(
        "customer id `{id}` holds {character:?}; only lower-case letters a-z, digits and `_` may follow `cust_`"
    )]
    Character {
        /// The text as given, control characters escaped.
        id: String,
        /// The first character that may not stand there.
        character: char,
    },
    /// More than 64 characters.
    #[error("the customer id has {0} characters; at most {MAX_CUSTOMER_ID_LENGTH} are allowed")]
    TooLong(usize),
}

impl FromStr for CustomerId {
    type Err = InvalidCustomerId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() {
            return Err(InvalidCustomerId::Empty);
        }
        let length = text.chars().count();
        if length > MAX_CUSTOMER_ID_LENGTH {
            return Err(InvalidCustomerId::TooLong(length));
        }
        let shown = || text.escape_debug().to_string();
        let name = text
            .strip_prefix("cust_")
            .ok_or_else(|| InvalidCustomerId::Prefix(shown()))?;
        if name.is_empty() {
            return Err(InvalidCustomerId::NoName);
        }
        if let Some(character) = name
            .chars()
            .find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '_'))
        {
            return Err(InvalidCustomerId::Character {
                id: shown(),
                character,
            });
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for CustomerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for CustomerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl CustomerId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The Tailscale tag of this customer's hosts: `tag:m8trx-cust-` and the id without `cust_`, each `_` written `-`.
    ///
    /// Tailscale refuses `_` in tags; since an id cannot hold `-`, the map is one-to-one. `bootstrap.sh` does the same
    /// in bash, and one table of cases tests both.
    pub fn tailscale_tag(&self) -> String {
        let name = self.0.strip_prefix("cust_").unwrap_or(&self.0);
        format!("tag:m8trx-cust-{}", name.replace('_', "-"))
    }

    /// The customer of a Tailscale tag; `None` where it is no customer's.
    pub fn from_tailscale_tag(tag: &str) -> Option<Self> {
        let name = tag.strip_prefix("tag:m8trx-cust-")?;
        if name.contains('_') {
            return None;
        }
        // An id holds no hyphen, so each stands for an underscore.
        format!("cust_{}", name.replace('-', "_")).parse().ok()
    }

    /// `/m8trx/<id>/brain-key`, a SecureString.
    pub fn brain_key_parameter(&self) -> String {
        format!("/m8trx/{self}/brain-key")
    }

    /// `/m8trx/<id>/tailscale-auth-key`, a SecureString.
    pub fn tailscale_auth_key_parameter(&self) -> String {
        format!("/m8trx/{self}/tailscale-auth-key")
    }

    /// The name shared by this customer's IAM role, instance profile and security group.
    ///
    /// `m8trx-<id>`, shortened with a hash where that would pass the 64 characters of an IAM role name.
    pub fn resource_name(&self) -> String {
        const MAX_ROLE_NAME_LENGTH: usize = 64;
        let name = format!("m8trx-{self}");
        if name.len() <= MAX_ROLE_NAME_LENGTH {
            return name;
        }
        let hash = hex(&Sha256::digest(self.0.as_bytes()));
        format!("{}-{}", &name[..MAX_ROLE_NAME_LENGTH - 13], &hash[..12])
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table that bootstrap.sh's own functions are tested on as well.
    fn cases() -> Vec<(Vec<u8>, Option<String>)> {
        let table = include_str!("../tests/data/customer-ids.tsv");
        table
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let mut columns = line.split('\t');
                let id = unescape(columns.next().unwrap());
                match columns.next().unwrap() {
                    "valid" => (id, Some(columns.next().unwrap().to_owned())),
                    "invalid" => (id, None),
                    other => panic!("{other} in {line}"),
                }
            })
            .collect()
    }

    fn unescape(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            if first != b'\\' {
                bytes.push(first);
                continue;
            }
            let (&kind, after) = rest.split_first().unwrap();
            rest = after;
            bytes.push(match kind {
                b'n' => b'\n',
                b't' => b'\t',
                b'\\' => b'\\',
                b'x' => {
                    let (digits, after) = rest.split_at(2);
                    rest = after;
                    u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap()
                }
                other => panic!("unknown escape {}", char::from(other)),
            });
        }
        bytes
    }

    #[test]
    fn the_table_of_ids_holds() {
        let cases = cases();
        assert!(cases.len() > 30);
        for (id, tag) in cases {
            let parsed = std::str::from_utf8(&id)
                .ok()
                .and_then(|id| id.parse::<CustomerId>().ok());
            if let (Some(parsed), Some(tag)) = (&parsed, &tag) {
                assert_eq!(CustomerId::from_tailscale_tag(tag).as_ref(), Some(parsed));
            }
            assert_eq!(
                parsed.map(|id| id.tailscale_tag()),
                tag,
                "{:?}",
                String::from_utf8_lossy(&id)
            );
        }
    }

    #[test]
    fn the_reason_names_what_is_wrong() {
        let reason = |id: &str| id.parse::<CustomerId>().unwrap_err().to_string();
        assert_eq!(
            reason("cust_a-b"),
            "customer id `cust_a-b` holds '-'; only lower-case letters a-z, digits and `_` may follow `cust_`"
        );
        assert!(reason("acme").contains("does not begin with `cust_`"));
        assert!(reason(&format!("cust_{}", "a".repeat(60))).contains("65 characters"));
        assert!(!reason("cust_a\u{1b}[2J").contains('\u{1b}'));
    }

    #[test]
    fn names_fit_iam_and_differ() {
        let id = |text: &str| text.parse::<CustomerId>().unwrap();
        assert_eq!(id("cust_acme").resource_name(), "m8trx-cust_acme");
        let long = format!("cust_{}", "a".repeat(58));
        let (one, other) = (id(&format!("{long}1")), id(&format!("{long}2")));
        assert_eq!(one.resource_name().len(), 64);
        assert_ne!(one.resource_name(), other.resource_name());
    }
}
