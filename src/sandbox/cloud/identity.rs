//! Who calls: the operator, or a host with the credentials of its role.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use super::State;
use super::error::{ApiError, Service};
use super::policy::{Context, Document};
use super::signature::{Authorization, same};
use crate::http::{Request, header};
use crate::random;

/// The account of every sandbox: the one AWS's own documentation uses, which belongs to nobody.
pub const ACCOUNT: &str = "123456789012";

/// The operator's access key id: fixed, and visibly not a real one.
pub(crate) const OPERATOR_ACCESS_KEY: &str = "AKIASANDBOXOPERATOR0";

/// Name of the operator's IAM user.
pub(crate) const OPERATOR_NAME: &str = "sandbox-operator";

/// Id of the operator's IAM user.
const OPERATOR_ID: &str = "AIDASANDBOXOPERATOR0";

/// How long a role's credentials are good.
const CREDENTIAL_LIFETIME: SignedDuration = SignedDuration::from_hours(1);

/// The metadata service hands out new credentials this long before the old ones end.
const RENEWED_BEFORE: SignedDuration = SignedDuration::from_mins(5);

/// The principal of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The IAM user of this sandbox.
    Operator,
    /// An instance under the role of its instance profile.
    Host {
        /// Name of the role.
        role: String,
        /// Id of the role (`AROA…`).
        role_id: String,
        /// The instance, which is also the session's name.
        instance: String,
    },
}

impl Caller {
    /// The ARN that AWS shows for the caller.
    pub fn arn(&self) -> String {
        match self {
            Self::Operator => format!("arn:aws:iam::{ACCOUNT}:user/{OPERATOR_NAME}"),
            Self::Host { role, instance, .. } => {
                format!("arn:aws:sts::{ACCOUNT}:assumed-role/{role}/{instance}")
            }
        }
    }

    /// The unique id of the caller.
    pub fn user_id(&self) -> String {
        match self {
            Self::Operator => OPERATOR_ID.to_owned(),
            Self::Host {
                role_id, instance, ..
            } => format!("{role_id}:{instance}"),
        }
    }

    /// Whether a host calls.
    pub fn is_host(&self) -> bool {
        matches!(self, Self::Host { .. })
    }

    /// The condition keys about the caller.
    pub fn context(&self, state: &State) -> Context {
        let mut context = Context::default();
        context.set("aws:userid", self.user_id());
        context.set("aws:PrincipalAccount", ACCOUNT);
        match self {
            Self::Operator => {
                context.set("aws:username", OPERATOR_NAME);
                context.set("aws:PrincipalArn", self.arn());
                context.set("aws:PrincipalType", "User");
            }
            Self::Host { role, .. } => {
                context.set(
                    "aws:PrincipalArn",
                    format!("arn:aws:iam::{ACCOUNT}:role/{role}"),
                );
                context.set("aws:PrincipalType", "AssumedRole");
                if let Some(role) = state.iam.roles.get(role) {
                    context.set_tags("aws:PrincipalTag", &role.tags);
                }
            }
        }
        context
    }

    /// The identity policies that hold for the caller.
    pub fn policies<'a>(&self, state: &'a State) -> Vec<&'a Document> {
        match self {
            Self::Operator => state.operator_policies.iter().collect(),
            Self::Host { role, .. } => state
                .iam
                .roles
                .get(role)
                .map(|role| role.policies().collect())
                .unwrap_or_default(),
        }
    }
}

/// Temporary credentials of an instance.
#[derive(Debug, Clone)]
pub(crate) struct RoleCredentials {
    pub access_key: String,
    pub secret: SecretString,
    pub token: SecretString,
    pub role: String,
    pub role_id: String,
    pub instance: String,
    pub issued: Timestamp,
    pub expires: Timestamp,
}

/// Every set of temporary credentials, by access key.
#[derive(Debug, Default)]
pub(crate) struct Credentials(HashMap<String, RoleCredentials>);

impl Credentials {
    /// The current credentials of an instance under a role; new ones when there are none or they end soon.
    pub fn current(
        &mut self,
        instance: &str,
        role: &str,
        role_id: &str,
        now: Timestamp,
    ) -> RoleCredentials {
        // Expired ones are kept for a while, so that a late call hears "expired" and not "unknown".
        self.0
            .retain(|_, held| held.expires + CREDENTIAL_LIFETIME > now);
        let current = self.0.values().find(|held| {
            held.instance == instance
                && held.role_id == role_id
                && held.expires - RENEWED_BEFORE > now
        });
        if let Some(current) = current {
            return current.clone();
        }
        let made = RoleCredentials {
            access_key: format!("ASIA{}", random::upper(16)),
            secret: random::mixed(40).into(),
            token: random::mixed(240).into(),
            role: role.to_owned(),
            role_id: role_id.to_owned(),
            instance: instance.to_owned(),
            issued: now,
            expires: now + CREDENTIAL_LIFETIME,
        };
        self.0.insert(made.access_key.clone(), made.clone());
        made
    }
}

/// Establishes who signed a request.
pub(crate) fn authenticate(
    state: &State,
    service: Service,
    authorization: &Authorization,
    request: &Request,
    now: Timestamp,
) -> Result<Caller, ApiError> {
    if authorization.access_key == OPERATOR_ACCESS_KEY {
        let secret = state.operator_secret.expose_secret();
        authorization.verify(service, request, secret, now)?;
        return Ok(Caller::Operator);
    }
    let held = state
        .credentials
        .0
        .get(&authorization.access_key)
        .ok_or_else(|| ApiError::unknown_access_key(service))?;
    let token = header(request, "x-amz-security-token").unwrap_or_default();
    if !same(token, held.token.expose_secret()) {
        return Err(ApiError::unknown_access_key(service));
    }
    authorization.verify(service, request, held.secret.expose_secret(), now)?;
    if held.expires <= now {
        return Err(ApiError::expired_token(service));
    }
    // The credentials of a role that was deleted, or made anew under the same name, are void.
    let role = state.iam.roles.get(&held.role);
    if role.is_none_or(|role| role.id != held.role_id) {
        return Err(ApiError::unknown_access_key(service));
    }
    Ok(Caller::Host {
        role: held.role.clone(),
        role_id: held.role_id.clone(),
        instance: held.instance.clone(),
    })
}
