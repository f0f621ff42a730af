//! How an instance's metadata service answers.

use std::collections::BTreeMap;

use super::{ApiError, Call, Params, Xml, authorize, dry_run, invalid};

/// Metadata options of an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MetadataOptions {
    /// Requests need a session token (IMDSv2).
    pub tokens_required: bool,
    /// The service answers at all.
    pub endpoint_enabled: bool,
    pub hop_limit: i64,
    /// The instance's tags can be read.
    pub tags_enabled: bool,
}

impl Default for MetadataOptions {
    /// What an image and an account without settings of their own give.
    fn default() -> Self {
        Self {
            tokens_required: false,
            endpoint_enabled: true,
            hop_limit: 1,
            tags_enabled: false,
        }
    }
}

impl MetadataOptions {
    /// These options, changed by those of a request.
    pub fn changed_by(&self, params: &Params) -> Result<Self, ApiError> {
        let either = |name: &str, yes: &str, no: &str, held: bool| match params.get(name) {
            None => Ok(held),
            Some(value) if value == yes => Ok(true),
            Some(value) if value == no => Ok(false),
            Some(value) => Err(invalid(
                name,
                value,
                &format!("Valid values are {yes} and {no}."),
            )),
        };
        let hop_limit = match params.number("HttpPutResponseHopLimit")? {
            None => self.hop_limit,
            Some(limit) if (1..=64).contains(&limit) => limit,
            Some(limit) => {
                return Err(invalid(
                    "HttpPutResponseHopLimit",
                    &limit.to_string(),
                    "It must be between 1 and 64.",
                ));
            }
        };
        Ok(Self {
            tokens_required: either("HttpTokens", "required", "optional", self.tokens_required)?,
            endpoint_enabled: either("HttpEndpoint", "enabled", "disabled", self.endpoint_enabled)?,
            hop_limit,
            tags_enabled: either(
                "InstanceMetadataTags",
                "enabled",
                "disabled",
                self.tags_enabled,
            )?,
        })
    }

    /// The members in an answer.
    pub(super) fn write(&self, xml: &mut Xml) {
        let either = |yes: bool, a: &'static str, b: &'static str| if yes { a } else { b };
        xml.text("state", "applied")
            .text(
                "httpTokens",
                either(self.tokens_required, "required", "optional"),
            )
            .text("httpPutResponseHopLimit", self.hop_limit)
            .text(
                "httpEndpoint",
                either(self.endpoint_enabled, "enabled", "disabled"),
            )
            .text("httpProtocolIpv6", "disabled")
            .text(
                "instanceMetadataTags",
                either(self.tags_enabled, "enabled", "disabled"),
            );
    }
}

/// Tag keys are path parts of the metadata service once instance tags are enabled.
pub(super) fn check_tag_keys(tags: &BTreeMap<String, String>) -> Result<(), ApiError> {
    let charset = |c: char| c.is_ascii_alphanumeric() || "-_+=,.@:".contains(c);
    for key in tags.keys() {
        let valid = (1..=255).contains(&key.len()) && key.chars().all(charset);
        if !valid || matches!(key.as_str(), "." | ".." | "_index") {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!(
                    "'{key}' is not a valid tag key. Tag keys must match pattern ([0-9a-zA-Z\\-_+=,.@:]{{1,255}}), and must \
                     not be a reserved name ('.', '..', '_index')"
                ),
            ));
        }
    }
    Ok(())
}

pub(super) fn modify(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let id = params.required("InstanceId")?.to_owned();
    authorize(call, "ModifyInstanceMetadataOptions", "instance", &id)?;
    let now = call.now;
    let store = &mut call.region().ec2;
    let tags = store.tags_of(&id);
    let instance = store.require_instance(&id, now)?;
    let options = instance.options.changed_by(params)?;
    if options.tags_enabled {
        check_tag_keys(&tags)?;
    }
    dry_run(params)?;
    instance.options = options.clone();
    let mut xml = Xml::default();
    xml.text("instanceId", id)
        .element("instanceMetadataOptions", |xml| options.write(xml));
    Ok(xml)
}
