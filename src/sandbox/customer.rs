//! What the sandbox knows of customers: the form of an id, and the tag that names one. Written a second time on purpose: an
//! emulator that shared the product's rules could not show where they are wrong.

/// The EC2 and IAM tag key that names the customer.
pub(crate) const TAG_KEY: &str = "Customer";

/// The fleet-wide parameter that holds the brain's URL.
pub(crate) const BRAIN_URL_PARAMETER: &str = "/m8trx/brain-url";

const MAX_LENGTH: usize = 64;

/// Whether a text is a customer id: `^cust_[a-z0-9_]+$`, at most 64 characters.
pub(crate) fn is_id(text: &str) -> bool {
    text.len() <= MAX_LENGTH
        && text.strip_prefix("cust_").is_some_and(|name| {
            !name.is_empty()
                && name
                    .bytes()
                    .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
        })
}
