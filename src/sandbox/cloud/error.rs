//! A refused call, as each service words it.

use http::StatusCode;

/// The services of the sandbox's cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Ssm,
    Iam,
    Sts,
    Ec2,
}

impl Service {
    /// The name in a credential scope, an action and an ARN.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ssm => "ssm",
            Self::Iam => "iam",
            Self::Sts => "sts",
            Self::Ec2 => "ec2",
        }
    }

    /// The service of a credential scope.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Ssm, Self::Iam, Self::Sts, Self::Ec2]
            .into_iter()
            .find(|service| service.name() == name)
    }
}

/// An error answer: status, code and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
}

impl ApiError {
    /// A client error: status 400.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self::with_status(StatusCode::BAD_REQUEST, code, message)
    }

    /// An error with another status.
    pub fn with_status(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// SSM and others: a value that breaks a rule of the service.
    pub fn validation(service: Service, message: impl Into<String>) -> Self {
        let code = match service {
            Service::Ssm => "ValidationException",
            Service::Iam | Service::Sts => "ValidationError",
            Service::Ec2 => "InvalidParameterValue",
        };
        Self::new(code, message)
    }

    /// The access key is not known.
    pub fn unknown_access_key(service: Service) -> Self {
        const MESSAGE: &str = "The security token included in the request is invalid.";
        match service {
            Service::Ssm => Self::new("UnrecognizedClientException", MESSAGE),
            Service::Iam | Service::Sts => {
                Self::with_status(StatusCode::FORBIDDEN, "InvalidClientTokenId", MESSAGE)
            }
            Service::Ec2 => Self::ec2_authentication(),
        }
    }

    fn ec2_authentication() -> Self {
        Self::with_status(
            StatusCode::UNAUTHORIZED,
            "AuthFailure",
            "AWS was not able to validate the provided access credentials",
        )
    }

    /// The signature is not the one this request and the caller's secret give.
    pub fn signature(service: Service, message: impl Into<String>) -> Self {
        match service {
            Service::Ssm => Self::new("InvalidSignatureException", message),
            Service::Iam | Service::Sts => {
                Self::with_status(StatusCode::FORBIDDEN, "SignatureDoesNotMatch", message)
            }
            // EC2 does not tell a wrong secret from a wrong key.
            Service::Ec2 => Self::ec2_authentication(),
        }
    }

    /// The request was signed too long ago, or in the future.
    pub fn stale_signature(service: Service, message: impl Into<String>) -> Self {
        match service {
            Service::Ec2 => Self::new("RequestExpired", "Request has expired."),
            _ => Self::signature(service, message),
        }
    }

    /// Temporary credentials past their time.
    pub fn expired_token(service: Service) -> Self {
        const MESSAGE: &str = "The security token included in the request is expired";
        match service {
            Service::Ssm => Self::new("ExpiredTokenException", MESSAGE),
            Service::Iam | Service::Sts => {
                Self::with_status(StatusCode::FORBIDDEN, "ExpiredToken", MESSAGE)
            }
            Service::Ec2 => Self::new("RequestExpired", "Request has expired."),
        }
    }

    /// The request carries no signature.
    pub fn unsigned(service: Service) -> Self {
        match service {
            Service::Ssm => Self::new(
                "MissingAuthenticationTokenException",
                "Missing Authentication Token",
            ),
            Service::Iam | Service::Sts => Self::with_status(
                StatusCode::FORBIDDEN,
                "MissingAuthenticationToken",
                "Request is missing Authentication Token",
            ),
            Service::Ec2 => Self::new(
                "MissingParameter",
                "The request must contain the parameter AWSAccessKeyId",
            ),
        }
    }

    /// The service has no such action, or the sandbox does not know it.
    pub fn unknown_action(service: Service, action: &str) -> Self {
        match service {
            Service::Ssm => Self::new(
                "UnknownOperationException",
                format!("the sandbox does not know the action AmazonSSM.{action}"),
            ),
            Service::Iam | Service::Sts | Service::Ec2 => Self::new(
                "InvalidAction",
                format!(
                    "The action {action} is not valid for this web service: the sandbox does not know it."
                ),
            ),
        }
    }

    /// Too many calls.
    pub fn throttled(service: Service) -> Self {
        match service {
            Service::Ssm => Self::new("ThrottlingException", "Rate exceeded"),
            Service::Iam | Service::Sts => Self::new("Throttling", "Rate exceeded"),
            Service::Ec2 => Self::with_status(
                StatusCode::SERVICE_UNAVAILABLE,
                "RequestLimitExceeded",
                "Request limit exceeded.",
            ),
        }
    }

    /// Whether the caller was refused for who it is, not for what it asked.
    pub fn is_refusal(&self) -> bool {
        matches!(
            self.code,
            "AccessDeniedException"
                | "AccessDenied"
                | "UnauthorizedOperation"
                | "AuthFailure"
                | "UnrecognizedClientException"
                | "InvalidClientTokenId"
                | "InvalidSignatureException"
                | "SignatureDoesNotMatch"
                | "ExpiredTokenException"
                | "ExpiredToken"
                | "RequestExpired"
                | "MissingAuthenticationTokenException"
                | "MissingAuthenticationToken"
        )
    }
}
