//! What AWS answered, converted once from the SDK's error types.

use std::error::Error as StdError;

use aws_sdk_sts::operation::RequestId;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

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
        R: std::fmt::Debug,
    {
        let failure = match &error {
            SdkError::ServiceError(context) => {
                let answered = context.err();
                AwsFailure::Answered {
                    code: answered.code().unwrap_or("Unknown").to_owned(),
                    message: answered.message().unwrap_or("no message").trim().to_owned(),
                    request_id: answered.request_id().map(str::to_owned),
                }
            }
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

    /// The words AWS answered with, if it answered.
    pub fn message(&self) -> Option<&str> {
        match &*self.failure {
            AwsFailure::Answered { message, .. } => Some(message),
            _ => None,
        }
    }

    /// What the operator can do about it, where that is known.
    pub fn hint(&self) -> Option<String> {
        let AwsFailure::Answered { code, message, .. } = &*self.failure else {
            return Some(match &*self.failure {
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
        let action = format!("{}:{}", self.service, self.operation);
        Some(match code.as_str() {
            "AccessDenied" | "AccessDeniedException" => format!(
                "the identity in use needs {action}{}",
                self.resource.as_ref().map(|r| format!(" on {r}")).unwrap_or_default()
            ),
            "UnauthorizedOperation" if message.contains("ncoded authorization failure message") => format!(
                "the identity in use needs {action}; `aws sts decode-authorization-message --encoded-message …` shows why it was refused"
            ),
            "UnauthorizedOperation" => format!("the identity in use needs {action}"),
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
fn chain(error: &dyn StdError) -> String {
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
