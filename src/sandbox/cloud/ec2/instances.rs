//! Describing instances.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::instance::{Instance, PowerState};
use super::{
    ACCOUNT, ApiError, Call, Params, Store, Xml, authorize, authorize_list, filter, groups, images,
    invalid, page, write_tags,
};
use crate::cloud::iso;

/// Chooses the instances of a request: by id, or all that pass the filters.
fn choose(call: &mut Call, params: &Params) -> Result<Vec<Instance>, ApiError> {
    let ids = params.list("InstanceId");
    if !ids.is_empty() && params.get("MaxResults").is_some() {
        return Err(ApiError::new(
            "InvalidParameterCombination",
            "The parameter instancesSet cannot be used with the parameter maxResults",
        ));
    }
    let filters = filter::read(params);
    let now = call.now;
    let store = &mut call.region().ec2;
    for id in &ids {
        store.require_instance(id, now)?;
    }
    let mut chosen = Vec::new();
    for instance in store.instances.values() {
        let asked = ids.is_empty() || ids.contains(&instance.id);
        let passes = filter::passes(&filters, &store.tags_of(&instance.id), |name| {
            attribute(store, instance, name)
        })?;
        if asked && passes && instance.is_visible(now) {
            chosen.push(instance.clone());
        }
    }
    chosen.sort_by(|a, b| (a.launched, &a.id).cmp(&(b.launched, &b.id)));
    Ok(chosen)
}

fn attribute(store: &Store, instance: &Instance, name: &str) -> Option<Vec<String>> {
    let one = |value: &str| Some(vec![value.to_owned()]);
    match name {
        "instance-id" => one(&instance.id),
        "instance-state-name" => one(instance.state.name()),
        "instance-state-code" => one(&instance.state.code().to_string()),
        "client-token" => one(&instance.client_token),
        "instance-type" => one(&instance.kind.name),
        "image-id" => one(&instance.image),
        "subnet-id" => one(&instance.subnet),
        "vpc-id" => one(&store.vpc),
        "availability-zone" => one(&instance.zone),
        "private-ip-address" => one(&instance.private_address),
        "reservation-id" => one(&instance.reservation),
        "owner-id" => one(ACCOUNT),
        "instance.group-id" | "network-interface.group-id" => Some(instance.groups.clone()),
        "instance.group-name" => Some(
            groups::names(&store.groups, &instance.groups)
                .into_iter()
                .map(|(_, name)| name)
                .collect(),
        ),
        "iam-instance-profile.arn" => Some(
            instance
                .profile
                .iter()
                .map(|(_, profile)| profile.arn.clone())
                .collect(),
        ),
        "metadata-options.http-tokens" => one(if instance.options.tokens_required {
            "required"
        } else {
            "optional"
        }),
        _ => None,
    }
}

pub(super) fn describe(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeInstances")?;
    let chosen = choose(call, params)?;
    let (chosen, token) = page(params, chosen, 5..=1000)?;
    let store = &call.region().ec2;
    let mut reservations: Vec<(&str, Vec<&Instance>)> = Vec::new();
    for instance in &chosen {
        match reservations.last_mut() {
            Some((id, instances)) if *id == instance.reservation => instances.push(instance),
            _ => reservations.push((&instance.reservation, vec![instance])),
        }
    }
    let mut xml = Xml::default();
    xml.list(
        "reservationSet",
        "item",
        reservations,
        |xml, (id, instances)| {
            write_reservation(xml, store, id, &instances);
        },
    )
    .optional("nextToken", token);
    Ok(xml)
}

/// The answer to a launch.
pub(super) fn reservation(store: &Store, id: &str, instances: &[String]) -> Xml {
    let instances: Vec<&Instance> = instances
        .iter()
        .filter_map(|id| store.instances.get(id))
        .collect();
    let mut xml = Xml::default();
    write_reservation(&mut xml, store, id, &instances);
    xml
}

fn write_reservation(xml: &mut Xml, store: &Store, id: &str, instances: &[&Instance]) {
    xml.text("reservationId", id)
        .text("ownerId", ACCOUNT)
        .element("groupSet", |_| {})
        .list("instancesSet", "item", instances, |xml, instance| {
            write(xml, store, instance);
        });
}

pub(super) fn write_state(xml: &mut Xml, name: &str, state: PowerState) {
    xml.element(name, |xml| {
        xml.text("code", state.code()).text("name", state.name());
    });
}

fn write(xml: &mut Xml, store: &Store, instance: &Instance) {
    let ended = instance.state == PowerState::Terminated;
    let tags = store.tags_of(&instance.id);
    xml.text("instanceId", &instance.id)
        .text("imageId", &instance.image);
    write_state(xml, "instanceState", instance.state);
    xml.text("reason", &instance.transition)
        .text("amiLaunchIndex", instance.launch_index)
        .text("instanceType", &instance.kind.name)
        .text("launchTime", iso(instance.launched))
        .element("placement", |xml| {
            xml.text("availabilityZone", &instance.zone)
                .text("groupName", "")
                .text("tenancy", "default");
        })
        .element("monitoring", |xml| {
            xml.text("state", "disabled");
        });
    // A terminated instance has given its address and interface back.
    if ended {
        xml.text("privateDnsName", "").text("dnsName", "");
    } else {
        xml.text("privateDnsName", instance.private_dns(&store.region))
            .text("dnsName", "")
            .text("privateIpAddress", &instance.private_address)
            .text("subnetId", &instance.subnet)
            .text("vpcId", &store.vpc)
            .text("sourceDestCheck", true);
        write_groups(xml, store, instance);
        write_interface(xml, store, instance);
    }
    if let Some(reason) = &instance.reason {
        xml.element("stateReason", |xml| {
            xml.text("code", reason.code)
                .text("message", &reason.message);
        });
    }
    xml.text("architecture", instance.kind.architecture.name())
        .text("rootDeviceType", "ebs")
        .text("rootDeviceName", images::ROOT_DEVICE);
    xml.element("blockDeviceMapping", |xml| {
        if !ended {
            xml.element("item", |xml| {
                xml.text("deviceName", images::ROOT_DEVICE)
                    .element("ebs", |xml| {
                        xml.text("volumeId", &instance.volume.id)
                            .text("status", "attached")
                            .text("attachTime", iso(instance.launched))
                            .text("deleteOnTermination", instance.volume.delete_on_termination);
                    });
            });
        }
    });
    xml.text("virtualizationType", "hvm")
        .text("clientToken", &instance.client_token)
        .text("hypervisor", "xen")
        .text("ebsOptimized", false)
        .text("enaSupport", true);
    write_tags(xml, &tags);
    if let Some((_, profile)) = &instance.profile {
        xml.element("iamInstanceProfile", |xml| {
            xml.text("arn", &profile.arn).text("id", &profile.id);
        });
    }
    xml.element("metadataOptions", |xml| instance.options.write(xml))
        .text("platformDetails", "Linux/UNIX");
}

fn write_groups(xml: &mut Xml, store: &Store, instance: &Instance) {
    let named = groups::names(&store.groups, &instance.groups);
    xml.list("groupSet", "item", named, |xml, (id, name)| {
        xml.text("groupId", id).text("groupName", name);
    });
}

fn write_interface(xml: &mut Xml, store: &Store, instance: &Instance) {
    xml.element("networkInterfaceSet", |xml| {
        xml.element("item", |xml| {
            xml.text("networkInterfaceId", &instance.interface)
                .text("subnetId", &instance.subnet)
                .text("vpcId", &store.vpc)
                .text("ownerId", ACCOUNT)
                .text("status", "in-use")
                .text("macAddress", &instance.mac)
                .text("privateIpAddress", &instance.private_address)
                .text("privateDnsName", instance.private_dns(&store.region))
                .element("attachment", |xml| {
                    xml.text("deviceIndex", 0)
                        .text("status", "attached")
                        .text("deleteOnTermination", true);
                });
            write_groups(xml, store, instance);
        });
    });
}

pub(super) fn describe_status(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeInstanceStatus")?;
    let all = params.boolean("IncludeAllInstances")? == Some(true);
    let mut chosen = choose(call, params)?;
    chosen.retain(|instance| all || instance.state == PowerState::Running);
    let (chosen, token) = page(params, chosen, 5..=1000)?;
    let mut xml = Xml::default();
    xml.list("instanceStatusSet", "item", chosen, |xml, instance| {
        let status = match instance.state {
            PowerState::Running => "ok",
            PowerState::Pending => "initializing",
            _ => "not-applicable",
        };
        xml.text("instanceId", &instance.id)
            .text("availabilityZone", &instance.zone);
        write_state(xml, "instanceState", instance.state);
        for name in ["systemStatus", "instanceStatus"] {
            xml.element(name, |xml| {
                xml.text("status", status).element("details", |_| {});
            });
        }
    })
    .optional("nextToken", token);
    Ok(xml)
}

pub(super) fn describe_attribute(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let id = params.required("InstanceId")?.to_owned();
    let attribute = params.required("Attribute")?.to_owned();
    authorize(call, "DescribeInstanceAttribute", "instance", &id)?;
    let now = call.now;
    let instance = call.region().ec2.require_instance(&id, now)?;
    let mut xml = Xml::default();
    xml.text("instanceId", &id);
    let value = match attribute.as_str() {
        "userData" if instance.user_data.is_empty() => None,
        "userData" => Some(BASE64_STANDARD.encode(&instance.user_data)),
        "instanceType" => Some(instance.kind.name.clone()),
        "instanceInitiatedShutdownBehavior" => Some(
            if instance.terminates_on_shutdown {
                "terminate"
            } else {
                "stop"
            }
            .to_owned(),
        ),
        "disableApiTermination" => Some(instance.termination_protected.to_string()),
        other => return Err(invalid("attribute", other, "The sandbox does not know it.")),
    };
    xml.element(&attribute, |xml| {
        xml.optional("value", value);
    });
    Ok(xml)
}

pub(super) fn console_output(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let id = params.required("InstanceId")?.to_owned();
    authorize(call, "GetConsoleOutput", "instance", &id)?;
    let latest = params.boolean("Latest")? == Some(true);
    let now = call.now;
    let instance = call.region().ec2.require_instance(&id, now)?;
    if latest && !instance.kind.nitro {
        return Err(ApiError::new(
            "UnsupportedOperation",
            "This instance type does not support retrieving the latest console logs. Only instances built on the AWS Nitro \
             System do.",
        ));
    }
    let output = instance.console.as_ref().map(|console| console.bytes());
    let mut xml = Xml::default();
    xml.text("instanceId", &id)
        .text("timestamp", iso(now))
        .text("output", BASE64_STANDARD.encode(output.unwrap_or_default()));
    Ok(xml)
}

pub(super) fn describe_volumes(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    authorize_list(call, "DescribeVolumes")?;
    let ids = params.list("VolumeId");
    let filters = filter::read(params);
    let store = &call.region().ec2;
    let mut shown = Vec::new();
    for instance in store.instances.values() {
        let volume = &instance.volume;
        let tags = store.tags_of(&volume.id);
        let passes = filter::passes(&filters, &tags, |name| {
            Some(vec![match name {
                "volume-id" => volume.id.clone(),
                "attachment.instance-id" => instance.id.clone(),
                "encrypted" => volume.encrypted.to_string(),
                "volume-type" => volume.kind.clone(),
                _ => return None,
            }])
        })?;
        let exists = instance.state != PowerState::Terminated;
        if exists && passes && (ids.is_empty() || ids.contains(&volume.id)) {
            shown.push((instance, tags));
        }
    }
    if let Some(unknown) = ids
        .iter()
        .find(|id| !store.instances.values().any(|i| i.volume.id == **id))
    {
        return Err(ApiError::new(
            "InvalidVolume.NotFound",
            format!("The volume '{unknown}' does not exist."),
        ));
    }
    let (shown, token) = page(params, shown, 5..=1000)?;
    let mut xml = Xml::default();
    xml.list("volumeSet", "item", shown, |xml, (instance, tags)| {
        let volume = &instance.volume;
        xml.text("volumeId", &volume.id)
            .text("size", volume.size_gib)
            .text("availabilityZone", &instance.zone)
            .text("status", "in-use")
            .text("createTime", iso(instance.launched))
            .text("volumeType", &volume.kind)
            .text("encrypted", volume.encrypted)
            .element("attachmentSet", |xml| {
                xml.element("item", |xml| {
                    xml.text("volumeId", &volume.id)
                        .text("instanceId", &instance.id)
                        .text("device", images::ROOT_DEVICE)
                        .text("status", "attached")
                        .text("deleteOnTermination", volume.delete_on_termination);
                });
            });
        write_tags(xml, &tags);
    })
    .optional("nextToken", token);
    Ok(xml)
}
