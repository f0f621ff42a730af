//! Why the tailnet refused a host's auth key: `tailscale up` says several things in the same words, which Tailscale's API
//! tells apart.

use jiff::Timestamp;

use crate::aws::Aws;
use crate::customer::CustomerId;
use crate::diagnosis::Diagnosis;
use crate::secret::{ExposeSecret as _, TailscaleAuthKey};
use crate::tailnet::Tailnet;

/// The diagnosis as Tailscale's API explains it. Where it does not answer, or knows of nothing that explains what the host
/// said, that stands as it is.
pub(crate) async fn explained(
    diagnosis: Diagnosis,
    aws: &Aws,
    tailnet: &Tailnet,
    customer: &CustomerId,
) -> Diagnosis {
    let says = |words: &str| diagnosis.evidence.iter().any(|line| line.contains(words));
    let (key, tags) = (says("invalid key: "), says("requested tags "));
    if !key && !tags {
        return diagnosis;
    }
    let Some(id) = stored_key_id(aws, customer).await else {
        return diagnosis;
    };
    // The host may have read another one than is stored by now.
    let another = says("invalid key: API key ") && says(" not valid") && !says(&id);
    if another {
        return diagnosis;
    }
    let mut facts = Vec::new();
    match tailnet.auth_key(&id).await {
        Err(_) => {}
        Ok(None) => facts.push(format!("the tailnet has no auth key {id}")),
        Ok(Some(held)) if key => {
            if held.revoked.is_some() {
                facts.push(format!("the auth key {id} was revoked"));
            } else if let Some(at) = held.expires.filter(|at| *at <= Timestamp::now()) {
                facts.push(format!("the auth key {id} expired at {at}"));
            } else if held.invalid {
                facts.push(format!("the auth key {id} is used up"));
            }
        }
        Ok(Some(held)) => {
            let tag = customer.tailscale_tag();
            if held.tags() != [tag.as_str()] && !held.tags().is_empty() {
                let carries = held.tags().join(" ");
                facts.push(format!(
                    "the auth key {id} carries {carries} instead of {tag}"
                ));
            }
        }
    }
    diagnosis.explained_by(&facts)
}

async fn stored_key_id(aws: &Aws, customer: &CustomerId) -> Option<String> {
    let name = customer.tailscale_auth_key_parameter();
    let stored = aws.parameter(&name).await.ok()??;
    let key = TailscaleAuthKey::parse(stored.value.expose_secret()).ok()?;
    Some(key.id().to_owned())
}
