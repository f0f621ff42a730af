//! STS: who am I, and what was I refused.

use super::Call;
use super::error::{ApiError, Service};
use super::identity::ACCOUNT;
use super::query::Params;
use super::xml::Xml;

/// Handles one call.
pub(crate) fn handle(call: &mut Call, action: &str, params: &Params) -> Result<Xml, ApiError> {
    let mut xml = Xml::default();
    match action {
        // Always allowed, whatever the policies say.
        "GetCallerIdentity" => {
            xml.text("Arn", call.caller.arn())
                .text("UserId", call.caller.user_id())
                .text("Account", ACCOUNT);
        }
        "DecodeAuthorizationMessage" => {
            call.authorize_plain("sts:DecodeAuthorizationMessage", "*")?;
            let encoded = params.required("EncodedMessage")?;
            let message = call.state.encoded_messages.get(encoded).ok_or_else(|| {
                ApiError::new(
                    "InvalidAuthorizationMessageException",
                    "Message is not valid",
                )
            })?;
            xml.text("DecodedMessage", message);
        }
        _ => return Err(ApiError::unknown_action(Service::Sts, action)),
    }
    Ok(xml)
}
