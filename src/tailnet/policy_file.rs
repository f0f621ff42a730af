//! The tailnet's policy file as the API keeps it: read with its ETag, tried, and replaced as a whole.

use reqwest::Method;

use super::client::{Call, Tailnet};
use super::error::{Refusal, TailnetError};

const HUJSON: &str = "application/hujson";

/// A policy file as it was read: its very text, and by what a change since then is noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFile {
    /// HuJSON with its comments.
    pub text: String,
    /// The ETag, without quotes and without the mark of a weak one.
    pub etag: String,
}

/// What Tailscale says of a policy file that is not kept yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It takes it.
    Taken,
    /// It takes it, and warns: of a group that does not sync, for example.
    TakenWithWarnings(Refusal),
    /// It refuses it.
    Refused(Refusal),
}

impl Tailnet {
    /// Reads the policy file.
    pub async fn policy_file(&self) -> Result<PolicyFile, TailnetError> {
        const OPERATION: &str = "read the policy file";
        let path = ["tailnet", self.name(), "acl"];
        let mut call = Call::new(OPERATION, "policy_file:read", Method::GET, &path);
        call.accept = HUJSON;
        let answer = self.call(call).await?;
        policy_file(OPERATION, answer.etag, answer.body)
    }

    /// Has Tailscale check a policy file and run its tests, without keeping it.
    ///
    /// The API answers 200 to a file that fails: only its message tells.
    pub async fn validate_policy(&self, text: &str) -> Result<Verdict, TailnetError> {
        const OPERATION: &str = "validate the policy file";
        let path = ["tailnet", self.name(), "acl", "validate"];
        let mut call = Call::new(OPERATION, "policy_file:read", Method::POST, &path);
        call.body = Some((HUJSON, text.to_owned()));
        match self.call(call).await {
            Ok(answer) if answer.body.trim_ascii().is_empty() => Ok(Verdict::Taken),
            Ok(answer) => {
                // Anything but an object would be no verdict.
                let _: serde_json::Map<String, serde_json::Value> =
                    super::client::decode(OPERATION, &answer.body)?;
                let said = Refusal::parse(&answer.body);
                Ok(if said.is_silent() {
                    Verdict::Taken
                } else if said.is_warning() {
                    Verdict::TakenWithWarnings(said)
                } else {
                    Verdict::Refused(said)
                })
            }
            Err(TailnetError::Status {
                status: 400,
                refusal,
                ..
            }) => Ok(Verdict::Refused(refusal)),
            Err(error) => Err(error),
        }
    }

    /// Replaces the whole policy file, if it is still the one with this ETag; gives the new one.
    ///
    /// # Errors
    /// [`TailnetError::Changed`] where somebody else was faster: nothing was changed.
    pub async fn set_policy(&self, text: &str, etag: &str) -> Result<PolicyFile, TailnetError> {
        const OPERATION: &str = "replace the policy file";
        let path = ["tailnet", self.name(), "acl"];
        let mut call = Call::new(OPERATION, "policy_file", Method::POST, &path);
        call.accept = HUJSON;
        call.if_match = Some(format!("\"{etag}\""));
        call.body = Some((HUJSON, text.to_owned()));
        let answer = self.call(call).await?;
        policy_file(OPERATION, answer.etag, answer.body)
    }
}

fn policy_file(
    operation: &'static str,
    etag: Option<String>,
    body: Vec<u8>,
) -> Result<PolicyFile, TailnetError> {
    let unexpected = |reason: &str| TailnetError::Unexpected {
        operation,
        reason: reason.to_owned(),
    };
    let etag = etag
        // A proxy that compresses marks an ETag as weak; the API compares with the one it gave.
        .map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned())
        .filter(|etag| !etag.is_empty())
        .ok_or_else(|| {
            unexpected("it has no ETag, without which a change by others is not noticed")
        })?;
    Ok(PolicyFile {
        text: String::from_utf8(body).map_err(|_| unexpected("it is not UTF-8"))?,
        etag,
    })
}
