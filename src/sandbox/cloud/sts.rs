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
        // Roles here are for EC2 alone: their trust policies let no user in, and of a role that does not exist AWS says the same.
        "AssumeRole" => {
            let role = params.required("RoleArn")?;
            params.required("RoleSessionName")?;
            return Err(ApiError::new(
                "AccessDenied",
                format!(
                    "User: {} is not authorized to perform: sts:AssumeRole on resource: {role}",
                    call.caller.arn()
                ),
            ));
        }
        _ => return Err(ApiError::unknown_action(Service::Sts, action)),
    }
    Ok(xml)
}
