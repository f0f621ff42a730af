//! Tags.

use std::collections::BTreeMap;

use super::{
    ApiError, Call, Context, Params, Store, Xml, authorize_list, dry_run, filter, images,
    metadata_options, page,
};

const MAX_TAGS: usize = 50;

type Tags = BTreeMap<String, String>;

/// Reads tags `prefix.N.Key` and `prefix.N.Value`, checked.
fn read(params: &Params, prefix: &str) -> Result<Tags, ApiError> {
    let mut tags = Tags::new();
    for tag in params.structures(prefix) {
        let key = tag.get("Key").unwrap_or_default().to_owned();
        let value = tag.get("Value").unwrap_or_default().to_owned();
        if key.is_empty() {
            return Err(ApiError::new(
                "InvalidParameterValue",
                "Tag key cannot be empty.",
            ));
        }
        if key.chars().count() > 127 || value.chars().count() > 255 {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!(
                    "The tag {key} exceeds the maximum length of 127 characters for a key or 255 for a value."
                ),
            ));
        }
        if key.to_ascii_lowercase().starts_with("aws:") {
            return Err(ApiError::new(
                "InvalidParameterValue",
                "Tag keys starting with 'aws:' are reserved for internal use",
            ));
        }
        if tags.contains_key(&key) {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("Duplicate tag key '{key}' specified."),
            ));
        }
        tags.insert(key, value);
    }
    check_count(&tags)?;
    Ok(tags)
}

fn check_count(tags: &Tags) -> Result<(), ApiError> {
    if tags.len() > MAX_TAGS {
        return Err(ApiError::new(
            "TagLimitExceeded",
            "The maximum number of Tags for a resource has been reached.",
        ));
    }
    Ok(())
}

/// The tags of `TagSpecification.N`, by resource type.
pub(super) fn specified(
    params: &Params,
    kinds: &[&str],
) -> Result<BTreeMap<String, Tags>, ApiError> {
    let mut specified = BTreeMap::new();
    for specification in params.structures("TagSpecification") {
        let kind = specification.required("ResourceType")?;
        if !kinds.contains(&kind) {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("'{kind}' is not a valid taggable resource type for this operation."),
            ));
        }
        let tags = read(&specification, "Tag")?;
        if specified.insert(kind.to_owned(), tags).is_some() {
            return Err(ApiError::new(
                "InvalidParameterValue",
                format!("Duplicate resource type '{kind}' in the tag specifications."),
            ));
        }
    }
    Ok(specified)
}

/// The kind of a resource, from its id, if it exists.
fn kind_of(store: &Store, id: &str) -> Option<&'static str> {
    if store.instances.contains_key(id) {
        return Some("instance");
    }
    if store.groups.contains_key(id) {
        return Some("security-group");
    }
    if store.vpc == id {
        return Some("vpc");
    }
    if store.subnets.iter().any(|subnet| subnet.id == id) {
        return Some("subnet");
    }
    if store.instances.values().any(|i| i.volume.id == id) {
        return Some("volume");
    }
    if store.instances.values().any(|i| i.interface == id) {
        return Some("network-interface");
    }
    images::find(&store.region, id).map(|_| "image")
}

/// The resources of a request, after the caller was allowed to do `action` to each.
fn resources(
    call: &mut Call,
    params: &Params,
    action: &str,
    tags: &Tags,
) -> Result<Vec<String>, ApiError> {
    let ids = params.list("ResourceId");
    if ids.is_empty() {
        params.required("ResourceId")?;
    }
    for id in &ids {
        let kind = kind_of(&call.region().ec2, id).ok_or_else(|| {
            let prefix = id.split('-').next().unwrap_or_default();
            let code = match prefix {
                "i" => "InvalidInstanceID.NotFound",
                "sg" => "InvalidGroup.NotFound",
                "vol" => "InvalidVolume.NotFound",
                _ => "InvalidID",
            };
            ApiError::new(code, format!("The ID '{id}' is not valid"))
        })?;
        let held = call.region().ec2.tags_of(id);
        let mut about = Context::default();
        about.set_tags("aws:ResourceTag", &held);
        about.set_tags("ec2:ResourceTag", &held);
        about.set_tags("aws:RequestTag", tags);
        about.set_all("aws:TagKeys", tags.keys().cloned().collect());
        let resource = call.arn(&format!("{kind}/{id}"));
        call.authorize(&format!("ec2:{action}"), &resource, &about)?;
    }
    Ok(ids)
}

pub(super) fn create(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let tags = read(params, "Tag")?;
    if tags.is_empty() {
        params.required("Tag")?;
    }
    let ids = resources(call, params, "CreateTags", &tags)?;
    let store = &mut call.region().ec2;
    for id in &ids {
        let mut merged = store.tags_of(id);
        merged.extend(tags.clone());
        check_count(&merged)?;
        let instance = store.instances.get(id);
        if instance.is_some_and(|instance| instance.options.tags_enabled) {
            metadata_options::check_tag_keys(&tags)?;
        }
    }
    dry_run(params)?;
    for id in ids {
        store.tags.entry(id).or_default().extend(tags.clone());
    }
    let mut xml = Xml::default();
    xml.text("return", true);
    Ok(xml)
}

pub(super) fn delete(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let ids = resources(call, params, "DeleteTags", &Tags::new())?;
    dry_run(params)?;
    let wanted = params.structures("Tag");
    let store = &mut call.region().ec2;
    for id in ids {
        let held = store.tags.entry(id).or_default();
        if wanted.is_empty() {
            held.clear();
        }
        for tag in &wanted {
            let key = tag.get("Key").unwrap_or_default();
            // With a value, only a tag of that value is removed.
            if tag
                .get("Value")
                .is_none_or(|value| held.get(key).is_some_and(|h| h == value))
            {
                held.remove(key);
            }
        }
    }
    let mut xml = Xml::default();
    xml.text("return", true);
    Ok(xml)
}

pub(super) fn describe(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeTags")?;
    let filters = filter::read(params);
    let store = &call.region().ec2;
    let mut shown = Vec::new();
    for (id, tags) in &store.tags {
        let Some(kind) = kind_of(store, id) else {
            continue;
        };
        for (key, value) in tags {
            let one = Tags::from([(key.clone(), value.clone())]);
            let passes = filter::passes(&filters, &one, |name| {
                Some(vec![match name {
                    "resource-id" => id.clone(),
                    "resource-type" => kind.to_owned(),
                    "key" => key.clone(),
                    "value" => value.clone(),
                    _ => return None,
                }])
            })?;
            if passes {
                shown.push((id, kind, key, value));
            }
        }
    }
    let (shown, token) = page(params, shown, 5..=1000)?;
    let mut xml = Xml::default();
    xml.list("tagSet", "item", shown, |xml, (id, kind, key, value)| {
        xml.text("resourceId", id)
            .text("resourceType", kind)
            .text("key", key)
            .text("value", value);
    })
    .optional("nextToken", token);
    Ok(xml)
}
