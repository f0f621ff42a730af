//! Parameter Store.

mod describe;
mod name;
mod read;
mod tags;
mod write;

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Call;
use super::ec2::PUBLIC_IMAGES;
use super::error::{ApiError, Service};
use super::identity::ACCOUNT;
use super::policy::Context;

/// Every parameter of one region, by name.
#[derive(Debug, Default)]
pub(crate) struct Store {
    parameters: BTreeMap<String, Parameter>,
}

/// A parameter with its history.
#[derive(Debug, Clone)]
struct Parameter {
    tags: BTreeMap<String, String>,
    /// At least one, oldest first.
    versions: Vec<Version>,
}

#[derive(Clone)]
struct Version {
    number: u64,
    kind: Kind,
    value: String,
    description: Option<String>,
    tier: &'static str,
    data_type: String,
    modified: Timestamp,
    modified_by: String,
}

impl std::fmt::Debug for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the value: it may be a secret.
        f.debug_struct("Version")
            .field("number", &self.number)
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Kind {
    String,
    StringList,
    SecureString,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::String => "String",
            Self::StringList => "StringList",
            Self::SecureString => "SecureString",
        }
    }
}

/// The key that encrypts when none is named.
const DEFAULT_KEY: &str = "alias/aws/ssm";

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Tag {
    key: String,
    value: String,
}

impl Parameter {
    fn current(&self) -> &Version {
        self.versions.last().expect("a parameter has a version")
    }

    fn context(&self) -> Context {
        let mut context = Context::default();
        context.set_tags("aws:ResourceTag", &self.tags);
        context.set_tags("ssm:resourceTag", &self.tags);
        context
    }
}

/// Handles one call.
pub(crate) fn handle(call: &mut Call, action: &str, body: &Value) -> Result<Value, ApiError> {
    match action {
        "PutParameter" => write::put(call, input(body)?),
        "DeleteParameter" => write::delete_one(call, input(body)?),
        "DeleteParameters" => write::delete_many(call, input(body)?),
        "GetParameter" => read::get_one(call, input(body)?),
        "GetParameters" => read::get_many(call, input(body)?),
        "GetParametersByPath" => read::by_path(call, input(body)?),
        "GetParameterHistory" => read::history(call, input(body)?),
        "DescribeParameters" => describe::describe(call, input(body)?),
        "AddTagsToResource" => tags::add(call, input(body)?),
        "RemoveTagsFromResource" => tags::remove(call, input(body)?),
        "ListTagsForResource" => tags::list(call, input(body)?),
        _ => Err(ApiError::unknown_action(Service::Ssm, action)),
    }
}

fn input<T: DeserializeOwned>(body: &Value) -> Result<T, ApiError> {
    T::deserialize(body)
        .map_err(|error| validation(format!("1 validation error detected: {error}")))
}

fn validation(message: impl Into<String>) -> ApiError {
    ApiError::validation(Service::Ssm, message)
}

/// AWS sends this error without a message.
fn not_found() -> ApiError {
    ApiError::new("ParameterNotFound", "")
}

fn arn(call: &Call, name: &str) -> String {
    if name.starts_with("/aws/") {
        return format!("arn:aws:ssm:{}::parameter{name}", call.region);
    }
    let slash = if name.starts_with('/') { "" } else { "/" };
    call.arn(&format!("parameter{slash}{name}"))
}

/// Checks a page size against its limit.
fn page_size(asked: Option<usize>, limit: usize) -> Result<usize, ApiError> {
    match asked {
        None => Ok(limit),
        Some(size) if (1..=limit).contains(&size) => Ok(size),
        Some(size) => Err(validation(format!(
            "1 validation error detected: Value '{size}' at 'maxResults' failed to satisfy constraint: Member must have \
             value between 1 and {limit}"
        ))),
    }
}

/// One page of `things`, and the token of the next. A token is the position where a page begins, with a mark of the
/// sandbox so that nobody takes it for anything else.
fn page<T>(
    things: Vec<T>,
    token: Option<&str>,
    size: usize,
) -> Result<(Vec<T>, Option<String>), ApiError> {
    let start = match token {
        None => 0,
        Some(token) => token
            .strip_prefix("sandbox-page-")
            .and_then(|position| position.parse::<usize>().ok())
            .ok_or_else(|| ApiError::new("InvalidNextToken", "The specified token isn't valid."))?,
    };
    let end = start.saturating_add(size);
    let next = (end < things.len()).then(|| format!("sandbox-page-{end}"));
    Ok((things.into_iter().skip(start).take(size).collect(), next))
}

fn with_token(mut answer: Value, token: Option<String>) -> Value {
    if let Some(token) = token {
        answer["NextToken"] = json!(token);
    }
    answer
}

fn epoch(time: Timestamp) -> Value {
    json!(time.as_millisecond() as f64 / 1000.0)
}

/// The public parameters that name Ubuntu's images.
fn public_parameters(region: &str) -> BTreeMap<String, Parameter> {
    PUBLIC_IMAGES
        .iter()
        .map(|image| {
            let version = Version {
                number: 1,
                kind: Kind::String,
                value: image.id(region),
                description: None,
                tier: "Standard",
                data_type: "aws:ec2:image".to_owned(),
                modified: image.created(),
                modified_by: format!("arn:aws:iam::{ACCOUNT}:root"),
            };
            let parameter = Parameter {
                tags: BTreeMap::new(),
                versions: vec![version],
            };
            (image.parameter(), parameter)
        })
        .collect()
}
