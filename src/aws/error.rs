//! What AWS answered, converted once from the SDK's error types.

use std::error::Error as StdError;

use aws_sdk_sts::operation::RequestId;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use jiff::{SignedDuration, Timestamp};

use super::not_aws;

/// A call to AWS that did not succeed, with what a reader needs to act on it and nothing of the raw answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{service}:{operation} in {region}{}: {failure}", resource.as_ref().map(|r| format!(" for {r}")).unwrap_or_default())]
pub struct AwsError {
    /// `ssm`, `iam`, `ec2` or `sts`, as in the names of IAM actions.
    pub service: &'static str,
    /// The operation, as in the names of IAM actions: `PutParameter`.
    pub operation: &'static str,
    /// The region the call went to.
    pub region: String,
    /// What the call was about: a parameter name, a role, an instance id.
    pub resource: Option<String>,
    /// What happened.
    pub failure: Box<AwsFailure>,
}

/// How a call to AWS failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AwsFailure {
    /// AWS answered with an error.
    #[error("{code}: {message}{}", request_id.as_ref().map(|id| format!(" (request {id})")).unwrap_or_default())]
    Answered {
        /// The error code, `AccessDeniedException` for one.
        code: String,
        /// AWS's own words.
        message: String,
        /// For a support case.
        request_id: Option<String>,
        /// How far this machine's clock is ahead of the answer's, where the answer says when it was given.
        clock_ahead: Option<SignedDuration>,
    },
    /// Something answered that is not AWS: a proxy, a captive portal, a web server.
    #[error("something that is not AWS answered (HTTP {status}, {kind})")]
    NotAws {
        /// The HTTP status.
        status: u16,
        /// The content type, or that there is none.
        kind: String,
    },
    /// No credentials were found, or they could not be loaded.
    #[error("no usable credentials: {0}")]
    Credentials(String),
    /// The endpoint could not be reached.
    #[error("the endpoint could not be reached: {0}")]
    Unreachable(String),
    /// No answer in time.
    #[error("no answer in time: {0}")]
    Timeout(String),
    /// An answer that could not be understood.
    #[error("the answer could not be understood: {0}")]
    Unexpected(String),
}

impl AwsError {
    /// Converts the SDK's error for one operation.
    pub fn from_sdk<E, R>(
        service: &'static str,
        operation: &'static str,
        region: &str,
        error: SdkError<E, R>,
    ) -> Self
    where
        E: ProvideErrorMetadata + RequestId + StdError + 'static,
        R: std::fmt::Debug + 'static,
    {
        let failure = match &error {
            SdkError::ServiceError(context) => answered(context.err(), raw(context.raw())),
            SdkError::TimeoutError(_) => AwsFailure::Timeout(chain(&error)),
            SdkError::DispatchFailure(dispatch) => {
                let text = chain(&error);
                if dispatch.is_timeout() {
                    AwsFailure::Timeout(text)
                } else if dispatch.is_io() || dispatch.is_user() {
                    AwsFailure::Unreachable(text)
                } else {
                    of_text(text)
                }
            }
            SdkError::ConstructionFailure(_) => of_text(chain(&error)),
            // The raw response may hold a decrypted parameter: only its kind is told.
            SdkError::ResponseError(_) => AwsFailure::Unexpected(
                "it broke off, or is not in the form this service documents".to_owned(),
            ),
            _ => AwsFailure::Unexpected("it is not in the form this service documents".to_owned()),
        };
        Self {
            service,
            operation,
            region: region.to_owned(),
            resource: None,
            failure: Box::new(failure),
        }
    }

    /// An answer without the part that was asked for.
    pub fn incomplete(
        service: &'static str,
        operation: &'static str,
        region: &str,
        missing: &str,
    ) -> Self {
        Self {
            service,
            operation,
            region: region.to_owned(),
            resource: None,
            failure: Box::new(AwsFailure::Unexpected(format!("it holds no {missing}"))),
        }
    }

    /// Names what the call was about.
    pub fn about(mut self, resource: impl Into<String>) -> Self {
        self.resource = Some(resource.into());
        self
    }

    /// Removes a secret this program sent from the words AWS answered with.
    pub fn masking(mut self, secret: &str) -> Self {
        if let AwsFailure::Answered { message, .. } = &mut *self.failure {
            *message = crate::secret::mask(message, &[secret]);
        }
        self
    }

    /// The error code AWS answered with, if it answered.
    pub fn code(&self) -> Option<&str> {
        match &*self.failure {
            AwsFailure::Answered { code, .. } => Some(code),
            _ => None,
        }
    }

    /// Whether AWS itself said no, rather than not being able to answer.
    pub fn is_refusal(&self) -> bool {
        const ITS_OWN: [&str; 7] = [
            "InternalError",
            "InternalFailure",
            "InternalServerError",
            "ServiceFailure",
            "ServiceUnavailable",
            "ServiceUnavailableException",
            "Unavailable",
        ];
        self.code().is_some_and(|code| !ITS_OWN.contains(&code))
    }

    /// The words AWS answered with, if it answered.
    pub fn message(&self) -> Option<&str> {
        match &*self.failure {
            AwsFailure::Answered { message, .. } => Some(message),
            _ => None,
        }
    }

    /// What the operator can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let AwsFailure::Answered {
            code,
            message,
            clock_ahead,
            ..
        } = &*self.failure
        else {
            return Some(match &*self.failure {
                AwsFailure::NotAws { .. } => {
                    "a proxy or a sign-in page stands between, or the endpoint URL points elsewhere: check HTTPS_PROXY, the network and --endpoint-url (AWS_ENDPOINT_URL), then run the same command again"
                }
                AwsFailure::Credentials(_) => {
                    "sign in (`aws sso login --profile NAME`) and pass --profile NAME, or set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
                }
                AwsFailure::Unreachable(_) | AwsFailure::Timeout(_) => {
                    "check the network, the region and the endpoint URL (--endpoint-url, AWS_ENDPOINT_URL), then run the same command again"
                }
                _ => "check that the endpoint URL points at AWS, then run the same command again",
            }
            .to_owned());
        };
        if is_about_time(code, message, *clock_ahead) {
            return Some(clock_hint(*clock_ahead));
        }
        Some(match code.as_str() {
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => {
                self.missing_permission(message)
            }
            "InvalidClientTokenId" | "UnrecognizedClientException" | "AuthFailure" | "SignatureDoesNotMatch" => {
                "the access key is unknown or its secret is wrong: check which credentials are in use with `aws sts get-caller-identity`".to_owned()
            }
            "ExpiredToken" | "ExpiredTokenException" | "RequestExpired" => {
                "the session has expired: sign in again (`aws sso login`), then run the same command again".to_owned()
            }
            "InsufficientInstanceCapacity" => {
                "AWS has no capacity for this instance type there now: try again, or another --instance-type, or --subnet in another availability zone".to_owned()
            }
            "VcpuLimitExceeded" | "InstanceLimitExceeded" => {
                "the account's EC2 quota is used up: end instances, or raise the quota in the Service Quotas console".to_owned()
            }
            "InvalidSubnetID.NotFound" => "list the subnets with `aws ec2 describe-subnets`, then pass one as --subnet".to_owned(),
            "InvalidAMIID.NotFound" | "InvalidAMIID.Malformed" => {
                "images differ by region: leave --ami out for Ubuntu 22.04, or pass an image of this region".to_owned()
            }
            "VPCIdNotSpecified" | "MissingInput" => "the region has no default VPC: pass --subnet".to_owned(),
            "PendingVerification" => "AWS is still verifying the account for this region; it takes up to four hours".to_owned(),
            "OptInRequired" => "the account is not signed up for this service or region: enable it in the AWS console".to_owned(),
            "ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "TooManyRequestsException" => {
                "AWS limits the rate of calls: wait a minute, then run the same command again; what was done is kept".to_owned()
            }
            _ => return None,
        })
    }
}

/// The response beneath an error, whatever the error is of.
fn raw<R: 'static>(response: &R) -> Option<&HttpResponse> {
    (response as &dyn std::any::Any).downcast_ref::<HttpResponse>()
}

/// What an error that was answered says; without a code it is none of AWS's.
fn answered<E: ProvideErrorMetadata + RequestId>(
    error: &E,
    response: Option<&HttpResponse>,
) -> AwsFailure {
    let header = |name: &str| response.and_then(|response| response.headers().get(name));
    match (error.code(), response) {
        (None, Some(response)) => AwsFailure::NotAws {
            status: not_aws::status(response),
            kind: header("content-type")
                .map_or("no content type", |kind| {
                    kind.split(';').next().unwrap_or(kind)
                })
                .chars()
                .filter(|c| c.is_ascii_graphic() || *c == ' ')
                .take(60)
                .collect(),
        },
        (code, _) => AwsFailure::Answered {
            code: code.unwrap_or("Unknown").to_owned(),
            message: error.message().unwrap_or("no message").trim().to_owned(),
            request_id: error.request_id().map(str::to_owned),
            clock_ahead: header("date")
                .and_then(|date| jiff::fmt::rfc2822::parse(date).ok())
                .map(|date| Timestamp::now().duration_since(date.timestamp())),
        },
    }
}

/// AWS takes a signature that is up to five minutes old, or early.
const CLOCK_TOLERANCE: SignedDuration = SignedDuration::from_mins(4);

/// Whether a refusal is of this machine's clock, whatever its code says.
fn is_about_time(code: &str, message: &str, ahead: Option<SignedDuration>) -> bool {
    let is_off = ahead.is_some_and(|ahead| ahead.abs() > CLOCK_TOLERANCE);
    matches!(code, "RequestTimeTooSkewed" | "RequestInTheFuture")
        || message.contains("Signature expired")
        || message.contains("Signature not yet current")
        || (is_off
            && matches!(
                code,
                "RequestExpired"
                    | "SignatureDoesNotMatch"
                    | "InvalidSignatureException"
                    | "AuthFailure"
            ))
}

fn clock_hint(ahead: Option<SignedDuration>) -> String {
    let off = match ahead.filter(|ahead| ahead.abs() > SignedDuration::from_mins(1)) {
        Some(ahead) => format!(
            "by {} ({} AWS's)",
            crate::text::duration(ahead.unsigned_abs()),
            if ahead.is_negative() {
                "behind"
            } else {
                "ahead of"
            }
        ),
        None => "by more than AWS allows".to_owned(),
    };
    format!(
        "this machine's clock is off {off}, and AWS refuses what it signs: set it (`timedatectl set-ntp true`), then run the same command again"
    )
}

impl AwsError {
    /// Which permission a refused call lacks: as AWS names it, since that may be another one than the call's own
    /// (`iam:PassRole` for a launch), else the call's.
    fn missing_permission(&self, message: &str) -> String {
        let (action, resource) = match named_permission(message) {
            Some((action, resource)) => (action.to_owned(), Some(resource.to_owned())),
            None => (
                format!("{}:{}", self.service, self.operation),
                self.resource.clone(),
            ),
        };
        let on = resource.map_or(String::new(), |resource| format!(" on {resource}"));
        if message.contains("explicit deny") {
            return format!(
                "the identity in use is denied {action}{on} by a policy that says so: whoever administers the account can lift it"
            );
        }
        let mut hint = format!(
            "the identity in use needs {action}{on}; `m8trx iam operator-policy` prints all that m8trx needs"
        );
        if named_permission(message).is_none()
            && message.contains("ncoded authorization failure message")
        {
            hint.push_str(
                ", and `aws sts decode-authorization-message --encoded-message …` shows why it was refused",
            );
        }
        hint
    }
}

/// Action and resource of `… is not authorized to perform: ACTION on resource: RESOURCE because …`.
fn named_permission(message: &str) -> Option<(&str, &str)> {
    let (_, rest) = message.split_once("is not authorized to perform: ")?;
    let (action, rest) = rest.split_once(" on resource: ")?;
    let end = [" because ", " with an explicit deny", ". ", "\n"]
        .iter()
        .filter_map(|mark| rest.find(mark))
        .min()
        .unwrap_or(rest.len());
    let resource = rest[..end].trim_end_matches('.');
    let is_action = action.split_once(':').is_some_and(|(service, name)| {
        !service.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric())
    });
    (is_action && !resource.is_empty()).then_some((action, resource))
}

/// The SDK reports missing credentials as text in a chain of causes, in several places.
fn of_text(text: String) -> AwsFailure {
    let lower = text.to_lowercase();
    if lower.contains("credential") || lower.contains("identity") || lower.contains("token") {
        AwsFailure::Credentials(text)
    } else if lower.contains("region") || lower.contains("endpoint") {
        AwsFailure::Unreachable(text)
    } else {
        AwsFailure::Unexpected(text)
    }
}

/// The causes below `error`, outermost first, without repeating a cause that its parent already told.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !parts.iter().any(|part| part.contains(&text)) {
            parts.push(text);
        }
        next = cause.source();
    }
    if parts.is_empty() {
        parts.push(error.to_string());
    }
    parts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: &str, message: &str) -> String {
        let error = AwsError {
            service: "ec2",
            operation: "RunInstances",
            region: "eu-central-1".to_owned(),
            resource: Some("t3.small".to_owned()),
            failure: Box::new(AwsFailure::Answered {
                code: code.to_owned(),
                message: message.to_owned(),
                request_id: None,
                clock_ahead: None,
            }),
        };
        error.hint().unwrap()
    }

    /// The words are AWS's, from its documentation of access denied errors.
    #[test]
    fn the_permission_that_lacks_is_named_as_aws_names_it() {
        for (code, message, words) in [
            (
                "AccessDenied",
                "User: arn:aws:iam::123456789012:user/x is not authorized to perform: iam:GetRole on resource: role m8trx-cust_a because no identity-based policy allows the iam:GetRole action",
                "needs iam:GetRole on role m8trx-cust_a;",
            ),
            (
                "UnauthorizedOperation",
                "You are not authorized to perform this operation. User: arn:aws:iam::123456789012:user/x is not authorized to perform: iam:PassRole on resource: arn:aws:iam::123456789012:role/m8trx-cust_a because no identity-based policy allows the iam:PassRole action. Encoded authorization failure message: abc",
                "needs iam:PassRole on arn:aws:iam::123456789012:role/m8trx-cust_a;",
            ),
            (
                "AccessDeniedException",
                "User: x is not authorized to perform: ssm:GetParameter on resource: arn:aws:ssm:a:1:parameter/m8trx/b with an explicit deny in a service control policy",
                "is denied ssm:GetParameter on arn:aws:ssm:a:1:parameter/m8trx/b by a policy",
            ),
            (
                "UnauthorizedOperation",
                "You are not authorized to perform this operation. Encoded authorization failure message: abc",
                "needs ec2:RunInstances on t3.small; `m8trx iam operator-policy` prints all that m8trx needs, and `aws sts decode",
            ),
        ] {
            let hint = refused(code, message);
            assert!(hint.contains(words), "{hint}");
        }
    }

    #[test]
    fn a_clock_that_is_off_is_told_as_that() {
        for (code, message) in [
            ("RequestTimeTooSkewed", "The difference is too large."),
            ("RequestInTheFuture", "Request is in the future."),
            (
                "SignatureDoesNotMatch",
                "Signature expired: 20261124T100000Z is now earlier than 20261124T105500Z",
            ),
            (
                "InvalidSignatureException",
                "Signature not yet current: 20261124T120000Z is still later than 20261124T110500Z",
            ),
        ] {
            let hint = refused(code, message);
            assert!(hint.starts_with("this machine's clock is off"), "{hint}");
        }
        let hint = refused("RequestExpired", "Request has expired.");
        assert!(hint.contains("the session has expired"), "{hint}");
        let ahead = Some(SignedDuration::from_secs(-3600));
        assert!(is_about_time(
            "RequestExpired",
            "Request has expired.",
            ahead
        ));
        assert!(
            clock_hint(ahead).contains("off by 1 h"),
            "{}",
            clock_hint(ahead)
        );
    }
}
