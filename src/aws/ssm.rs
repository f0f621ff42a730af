//! Parameters in AWS Systems Manager Parameter Store.

use std::time::Duration;

use aws_sdk_ssm::types::{ParameterStringFilter, ParameterType, ResourceTypeForTagging, Tag};
use jiff::Timestamp;

use super::{Aws, AwsError};
use crate::secret::{ExposeSecret as _, SecretString};

/// The most values that a filter of `DescribeParameters` takes.
pub const MAX_FILTER_VALUES: usize = 50;
const PARAMETERS_IN_A_PAGE: i32 = 50;

/// A parameter as it stands.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// The decrypted value.
    pub value: SecretString,
    /// `String` or `SecureString`.
    pub kind: String,
    /// Raised by one at each overwrite.
    pub version: i64,
    /// When the value was last written.
    pub modified: Option<Timestamp>,
}

/// What is known of a parameter without reading its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Its whole name.
    pub name: String,
    /// `String`, `StringList` or `SecureString`.
    pub kind: String,
    /// Raised by one at each overwrite.
    pub version: i64,
    /// When the value was last written.
    pub modified: Option<Timestamp>,
}

/// Whether a value is stored encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Readable to whoever may read the parameter.
    Plain,
    /// `SecureString` under the account's default key.
    Secure,
}

impl Kind {
    fn sdk(self) -> ParameterType {
        match self {
            Self::Plain => ParameterType::String,
            Self::Secure => ParameterType::SecureString,
        }
    }

    /// AWS's name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "String",
            Self::Secure => "SecureString",
        }
    }
}

/// What became of an attempt to create a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It was created, with this version.
    Created(i64),
    /// It existed before, and was left as it was.
    Existed,
}

/// A write that is not to be relied on.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// It failed, and reading the parameter shows that nothing of it is stored.
    #[error(transparent)]
    NotStored(AwsError),
    /// It is stored, and its tags could not be set.
    #[error(transparent)]
    Untagged(AwsError),
    /// Its answer was lost, and the parameter could not be read: it may be stored.
    #[error("{0}; whether it is stored could not be looked up")]
    Unknown(AwsError),
    /// It was stored, and somebody else has stored something else since.
    #[error(
        "{name} was stored by somebody else at the same time: it reads back as version {version} with something else"
    )]
    Replaced {
        /// The parameter.
        name: String,
        /// Its version now.
        version: i64,
    },
}

impl PutError {
    /// Whether what was to be stored is surely not what stands there now: only then may it be undone.
    pub fn is_not_there(&self) -> bool {
        !matches!(self, Self::Unknown(_) | Self::Untagged(_))
    }
}

/// How often a parameter is read until it shows what was just written.
const READS_BACK: u32 = 5;
const READ_BACK_PAUSE: Duration = Duration::from_millis(100);

fn sdk_tags(tags: &[(&str, &str)]) -> Vec<Tag> {
    tags.iter()
        .map(|(key, value)| {
            Tag::builder()
                .key(*key)
                .value(*value)
                .build()
                .expect("key and value are set")
        })
        .collect()
}

impl Aws {
    pub(super) fn ssm_error<E, R>(
        &self,
        operation: &'static str,
        error: aws_smithy_runtime_api::client::result::SdkError<E, R>,
    ) -> AwsError
    where
        E: aws_smithy_types::error::metadata::ProvideErrorMetadata
            + aws_sdk_ssm::operation::RequestId
            + std::error::Error
            + 'static,
        R: std::fmt::Debug + 'static,
    {
        AwsError::from_sdk("ssm", operation, &self.region, error)
    }

    /// Reads one parameter, decrypted; `None` when there is none of this name. `name:3` is its version 3.
    pub async fn parameter(&self, name: &str) -> Result<Option<Parameter>, AwsError> {
        let answer = self
            .ssm
            .get_parameter()
            .name(name)
            .with_decryption(true)
            .send()
            .await;
        let parameter = match answer {
            Ok(answer) => answer.parameter,
            Err(error)
                if error.as_service_error().is_some_and(|e| {
                    e.is_parameter_not_found() || e.is_parameter_version_not_found()
                }) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(self.ssm_error("GetParameter", error).about(name)),
        };
        let incomplete =
            |what| AwsError::incomplete("ssm", "GetParameter", &self.region, what).about(name);
        let parameter = parameter.ok_or_else(|| incomplete("parameter"))?;
        Ok(Some(Parameter {
            kind: parameter
                .r#type()
                .map(|kind| kind.as_str().to_owned())
                .unwrap_or_default(),
            version: parameter.version(),
            modified: parameter
                .last_modified_date()
                .and_then(|at| Timestamp::from_second(at.secs()).ok()),
            value: parameter.value.ok_or_else(|| incomplete("value"))?.into(),
        }))
    }

    /// What is stored, once it is at least of this version: what was just written may show a moment later.
    async fn read_back(&self, name: &str, version: i64) -> Result<Option<Parameter>, AwsError> {
        let mut reads = 0;
        loop {
            let found = self.parameter(name).await?;
            reads += 1;
            let is_new = found.as_ref().is_some_and(|found| found.version >= version);
            if is_new || version == 0 || reads == READS_BACK {
                return Ok(found);
            }
            tokio::time::sleep(READ_BACK_PAUSE * reads).await;
        }
    }

    /// Creates a parameter with tags; never overwrites one.
    ///
    /// It is believed when it reads back, whatever was answered: a repeated call finds its own first attempt, and says
    /// that the parameter exists. AWS refuses `Overwrite` together with `Tags`, so creating and overwriting are two calls.
    pub async fn create_parameter(
        &self,
        name: &str,
        value: &str,
        kind: Kind,
        tags: &[(&str, &str)],
    ) -> Result<Put, PutError> {
        let answer = self
            .ssm
            .put_parameter()
            .name(name)
            .value(value)
            .r#type(kind.sdk())
            .overwrite(false)
            .set_tags(Some(sdk_tags(tags)))
            .send()
            .await;
        let existed = answer.as_ref().is_err_and(|error| {
            error
                .as_service_error()
                .is_some_and(|e| e.is_parameter_already_exists())
        });
        let version = answer.as_ref().map_or(0, |answer| answer.version());
        let error = answer
            .err()
            .map(|e| self.ssm_error("PutParameter", e).about(name).masking(value));
        match (error, self.read_back(name, version).await) {
            (_, Ok(Some(found))) if found.value.expose_secret() == value => {
                Ok(Put::Created(found.version))
            }
            (Some(error), Ok(_)) if !existed => Err(PutError::NotStored(error)),
            (_, Ok(Some(_))) => Ok(Put::Existed),
            (Some(error), Ok(None)) => Err(PutError::NotStored(error)),
            (None, Ok(None)) => Err(PutError::NotStored(self.not_there("PutParameter", name))),
            (Some(error), Err(_)) | (None, Err(error)) => Err(PutError::Unknown(error)),
        }
    }

    fn not_there(&self, operation: &'static str, name: &str) -> AwsError {
        AwsError::incomplete(
            "ssm",
            operation,
            &self.region,
            "parameter that could be read back",
        )
        .about(name)
    }

    /// Overwrites a parameter and then sets its tags; returns it as it reads back.
    ///
    /// The type is sent always: sources disagree on what AWS does when it is left out.
    pub async fn overwrite_parameter(
        &self,
        name: &str,
        value: &str,
        kind: Kind,
        tags: &[(&str, &str)],
    ) -> Result<Parameter, PutError> {
        let answer = self
            .ssm
            .put_parameter()
            .name(name)
            .value(value)
            .r#type(kind.sdk())
            .overwrite(true)
            .send()
            .await
            .map_err(|e| self.ssm_error("PutParameter", e).about(name).masking(value));
        let version = answer.as_ref().map_or(0, |answer| answer.version());
        let found = match (answer, self.read_back(name, version).await) {
            (_, Ok(Some(found))) if found.value.expose_secret() == value => found,
            (Err(error), Ok(_)) => return Err(PutError::NotStored(error)),
            (Ok(_), Ok(Some(found))) => {
                return Err(PutError::Replaced {
                    name: name.to_owned(),
                    version: found.version,
                });
            }
            (Ok(_), Ok(None)) => {
                return Err(PutError::NotStored(self.not_there("PutParameter", name)));
            }
            (Err(error), Err(_)) | (Ok(_), Err(error)) => return Err(PutError::Unknown(error)),
        };
        if !tags.is_empty() {
            // The value is stored: whoever undoes it now undoes what hosts read.
            self.tag_parameter(name, tags)
                .await
                .map_err(PutError::Untagged)?;
        }
        Ok(found)
    }

    /// Adds tags to a parameter, overwriting those of the same key.
    pub async fn tag_parameter(&self, name: &str, tags: &[(&str, &str)]) -> Result<(), AwsError> {
        self.ssm
            .add_tags_to_resource()
            .resource_type(ResourceTypeForTagging::Parameter)
            .resource_id(name)
            .set_tags(Some(sdk_tags(tags)))
            .send()
            .await
            .map(drop)
            .map_err(|e| self.ssm_error("AddTagsToResource", e).about(name))
    }

    /// The tags of a parameter; `None` when there is none of this name.
    pub async fn parameter_tags(
        &self,
        name: &str,
    ) -> Result<Option<Vec<(String, String)>>, AwsError> {
        let answer = self
            .ssm
            .list_tags_for_resource()
            .resource_type(ResourceTypeForTagging::Parameter)
            .resource_id(name)
            .send()
            .await;
        match answer {
            Ok(answer) => Ok(Some(
                answer
                    .tag_list()
                    .iter()
                    .map(|tag| (tag.key().to_owned(), tag.value().to_owned()))
                    .collect(),
            )),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_invalid_resource_id()) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.ssm_error("ListTagsForResource", error).about(name)),
        }
    }

    /// The value of one tag of a parameter; `None` also when there is no such parameter.
    pub async fn parameter_tag(&self, name: &str, key: &str) -> Result<Option<String>, AwsError> {
        Ok(self
            .parameter_tags(name)
            .await?
            .into_iter()
            .flatten()
            .find_map(|(found, value)| (found == key).then_some(value)))
    }

    /// Takes tags off a parameter: all of them, or none where it fails.
    pub async fn untag_parameter(&self, name: &str, keys: &[&str]) -> Result<(), AwsError> {
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self.ssm
            .remove_tags_from_resource()
            .resource_type(ResourceTypeForTagging::Parameter)
            .resource_id(name)
            .set_tag_keys(Some(keys))
            .send()
            .await
            .map(drop)
            .map_err(|e| self.ssm_error("RemoveTagsFromResource", e).about(name))
    }

    /// The names of all parameters beneath a path, at any depth, without their values.
    pub async fn parameter_names(&self, path: &str) -> Result<Vec<String>, AwsError> {
        let found = self.parameters_beneath([path]).await?;
        Ok(found.into_iter().map(|parameter| parameter.name).collect())
    }

    /// Every parameter beneath these paths, at any depth, without values. At most [`MAX_FILTER_VALUES`] paths.
    pub async fn parameters_beneath(
        &self,
        paths: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Vec<ParameterInfo>, AwsError> {
        let paths: Vec<String> = paths.into_iter().map(Into::into).collect();
        let about = paths.join(", ");
        let beneath = ParameterStringFilter::builder()
            .key("Path")
            .option("Recursive")
            .set_values(Some(paths))
            .build()
            .expect("the key is set");
        self.described(beneath, &about).await
    }

    /// One parameter, without its value; `None` when there is none of this name.
    pub async fn described_parameter(&self, name: &str) -> Result<Option<ParameterInfo>, AwsError> {
        let named = ParameterStringFilter::builder()
            .key("Name")
            .option("Equals")
            .values(name)
            .build()
            .expect("the key is set");
        Ok(self.described(named, name).await?.into_iter().next())
    }

    async fn described(
        &self,
        filter: ParameterStringFilter,
        about: &str,
    ) -> Result<Vec<ParameterInfo>, AwsError> {
        let mut pages = self
            .ssm
            .describe_parameters()
            .parameter_filters(filter)
            .max_results(PARAMETERS_IN_A_PAGE)
            .into_paginator()
            .send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| self.ssm_error("DescribeParameters", e).about(about))?;
            found.extend(page.parameters().iter().filter_map(|parameter| {
                Some(ParameterInfo {
                    name: parameter.name()?.to_owned(),
                    kind: parameter
                        .r#type()
                        .map(|kind| kind.as_str().to_owned())
                        .unwrap_or_default(),
                    version: parameter.version(),
                    modified: parameter
                        .last_modified_date()
                        .and_then(|at| Timestamp::from_second(at.secs()).ok()),
                })
            }));
        }
        Ok(found)
    }

    /// Deletes a parameter; `false` when there was none.
    pub async fn delete_parameter(&self, name: &str) -> Result<bool, AwsError> {
        match self.ssm.delete_parameter().name(name).send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_parameter_not_found()) =>
            {
                Ok(false)
            }
            Err(error) => Err(self.ssm_error("DeleteParameter", error).about(name)),
        }
    }
}
