//! RunInstances.

use http::StatusCode;

use super::instance::{Instance, PowerState, Volume};
use super::launch_input::{LaunchInput, ProfileReference};
use super::{ApiError, Call, Context, Params, Store, Xml, dry_run, instances, network};
use crate::cloud::MachineCommand;
use crate::cloud::iam::{ProfileView, ReadyProfile, role_arn};
use crate::fault::Fault;
use crate::random;

/// A launch under a client token.
#[derive(Debug)]
pub(super) struct Launch {
    params: Params,
    reservation: String,
    instances: Vec<String>,
}

/// What a launch names, found.
struct Placed {
    subnet: network::Subnet,
    groups: Vec<String>,
    profile: Option<ReadyProfile>,
}

pub(super) fn run(call: &mut Call, params: &Params) -> Result<Xml, ApiError> {
    let mut input = LaunchInput::read(params, &call.region)?;
    authorize(call, &input)?;
    // The same request again is the same launch: whatever has changed since (the profile may be gone) does not matter.
    let compared = params.without(&["ClientToken", "DryRun", "Action", "Version"]);
    let store = &call.region().ec2;
    let token = input.client_token.as_ref();
    if let Some(launch) = token.and_then(|token| store.launches.get(token)) {
        return repeat(store, launch, &compared);
    }
    let placed = place(call, &input)?;
    if let Some(profile) = &placed.profile {
        let path = call.state.iam.roles.get(&profile.role);
        let role = role_arn(path.map_or("/", |role| &role.path), &profile.role);
        call.authorize_plain("iam:PassRole", &role)?;
    }
    dry_run(params)?;
    if call.has_fault(Fault::Capacity) {
        return Err(no_capacity(
            &input.kind.name,
            &placed.subnet.zone,
            &call.region,
        ));
    }
    if call.has_fault(Fault::MetadataTagsDisabled) {
        input.options.tags_enabled = false;
    }

    let now = call.now;
    let region = call.region.clone();
    let store = &mut call.region().ec2;
    let reservation = format!("r-0{}", random::hex(16));
    let mut ids = Vec::new();
    for index in 0..input.count {
        let (third, fourth) = store.take_address(&placed.subnet);
        let instance = Instance {
            id: format!("i-0{}", random::hex(16)),
            reservation: reservation.clone(),
            launch_index: index,
            launched: now,
            image: input.image_id.clone(),
            kind: input.kind.clone(),
            subnet: placed.subnet.id.clone(),
            zone: placed.subnet.zone.clone(),
            private_address: format!("172.31.{third}.{fourth}"),
            mac: mac(),
            interface: format!("eni-0{}", random::hex(16)),
            groups: placed.groups.clone(),
            client_token: input.client_token.clone().unwrap_or_default(),
            user_data: input.user_data.clone(),
            options: input.options.clone(),
            profile: placed
                .profile
                .clone()
                .map(|profile| (format!("iip-assoc-0{}", random::hex(16)), profile)),
            volume: Volume {
                id: format!("vol-0{}", random::hex(16)),
                encrypted: input.root.encrypted,
                size_gib: input.root.size_gib.unwrap_or(8),
                kind: input
                    .root
                    .kind
                    .clone()
                    .unwrap_or_else(|| input.image.volume_type().to_owned()),
                delete_on_termination: input.root.delete_on_termination.unwrap_or(true),
            },
            terminates_on_shutdown: input.terminates_on_shutdown,
            termination_protected: input.termination_protected,
            state: PowerState::Pending,
            reason: None,
            transition: String::new(),
            console: None,
        };
        for (kind, id) in [
            ("instance", &instance.id),
            ("volume", &instance.volume.id),
            ("network-interface", &instance.interface),
        ] {
            if let Some(tags) = input.tags.get(kind) {
                store.tags.insert(id.clone(), tags.clone());
            }
        }
        ids.push(instance.id.clone());
        store.instances.insert(instance.id.clone(), instance);
    }
    if let Some(token) = input.client_token {
        let launch = Launch {
            params: compared,
            reservation: reservation.clone(),
            instances: ids.clone(),
        };
        store.launches.insert(token, launch);
    }
    let xml = instances::reservation(store, &reservation, &ids);
    for instance in ids {
        call.command(MachineCommand::Boot {
            region: region.clone(),
            instance,
        });
    }
    Ok(xml)
}

fn repeat(store: &Store, launch: &Launch, compared: &Params) -> Result<Xml, ApiError> {
    if launch.params != *compared {
        return Err(ApiError::new(
            "IdempotentParameterMismatch",
            "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).",
        ));
    }
    let ended = |id: &String| {
        store
            .instances
            .get(id)
            .is_none_or(|instance| instance.state == PowerState::Terminated)
    };
    if launch.instances.iter().all(ended) {
        return Err(ApiError::new(
            "IdempotentInstanceTerminated",
            "The request is not valid: the instance that was launched with this client token has been terminated.",
        ));
    }
    Ok(instances::reservation(
        store,
        &launch.reservation,
        &launch.instances,
    ))
}

fn authorize(call: &mut Call, input: &LaunchInput) -> Result<(), ApiError> {
    for kind in ["instance", "volume", "network-interface"] {
        let mut about = Context::default();
        about.set("ec2:InstanceType", &input.kind.name);
        if let Some(tags) = input.tags.get(kind) {
            about.set_tags("aws:RequestTag", tags);
            about.set_all("aws:TagKeys", tags.keys().cloned().collect());
        }
        let resource = call.arn(&format!("{kind}/*"));
        call.authorize("ec2:RunInstances", &resource, &about)?;
        if input.tags.get(kind).is_some_and(|tags| !tags.is_empty()) {
            about.set("ec2:CreateAction", "RunInstances");
            call.authorize("ec2:CreateTags", &resource, &about)?;
        }
    }
    let image = format!("arn:aws:ec2:{}::image/{}", call.region, input.image_id);
    call.authorize_plain("ec2:RunInstances", &image)
}

fn place(call: &mut Call, input: &LaunchInput) -> Result<Placed, ApiError> {
    let profile = match &input.profile {
        None => None,
        Some(reference) => Some(find_profile(call, reference)?),
    };
    let store = &call.region().ec2;
    let subnet = match (&input.subnet, &input.zone) {
        (Some(id), zone) => {
            let subnet = store.require_subnet(id)?;
            if zone.as_ref().is_some_and(|zone| *zone != subnet.zone) {
                return Err(ApiError::new(
                    "InvalidParameterCombination",
                    format!("The subnet '{id}' is not in the requested availability zone."),
                ));
            }
            subnet
        }
        (None, Some(zone)) => store
            .subnets
            .iter()
            .find(|subnet| subnet.zone == *zone)
            .ok_or_else(|| {
                ApiError::new(
                    "InvalidParameterValue",
                    format!("Invalid availability zone: [{zone}]"),
                )
            })?,
        (None, None) => &store.subnets[0],
    };
    let mut groups = input.groups.clone();
    for id in &groups {
        store.require_group(id)?;
    }
    for name in &input.group_names {
        let group = store.group_by_name(name).ok_or_else(|| {
            ApiError::new(
                "InvalidGroup.NotFound",
                format!(
                    "The security group '{name}' does not exist in default VPC '{}'",
                    store.vpc
                ),
            )
        })?;
        groups.push(group.id.clone());
    }
    if groups.is_empty() {
        groups.extend(store.group_by_name("default").map(|group| group.id.clone()));
    }
    Ok(Placed {
        subnet: subnet.clone(),
        groups,
        profile,
    })
}

fn find_profile(call: &Call, reference: &ProfileReference) -> Result<ReadyProfile, ApiError> {
    let ProfileReference {
        name,
        given_as,
        given,
    } = reference;
    let refuse = |why: String| {
        ApiError::new(
            "InvalidParameterValue",
            format!(
                "Value ({given}) for parameter iamInstanceProfile.{given_as} is invalid. {why}"
            ),
        )
    };
    let unknown = if *given_as == "name" { "name" } else { "ARN" };
    let view = call
        .state
        .iam
        .profile_for_ec2(name, call.now, call.settings.iam_delay);
    match view {
        ProfileView::Ready(profile) if *given_as == "name" || profile.arn == *given => Ok(profile),
        ProfileView::Ready(_) | ProfileView::Unknown => {
            Err(refuse(format!("Invalid IAM Instance Profile {unknown}")))
        }
        ProfileView::WithoutRole { arn } => Err(refuse(format!(
            "IAM Instance Profile \"{arn}\" has no associated IAM Roles"
        ))),
    }
}

fn no_capacity(kind: &str, zone: &str, region: &str) -> ApiError {
    let others: Vec<String> = network::zones(region)
        .into_iter()
        .filter(|other| other != zone)
        .collect();
    ApiError::with_status(
        StatusCode::INTERNAL_SERVER_ERROR,
        "InsufficientInstanceCapacity",
        format!(
            "We currently do not have sufficient {kind} capacity in the Availability Zone you requested ({zone}). Our system \
             will be working on provisioning additional capacity. You can currently get {kind} capacity by not specifying an \
             Availability Zone in your request or choosing {}.",
            others.join(", ")
        ),
    )
}

/// A locally administered address, as EC2's are.
fn mac() -> String {
    let [a, b, c, d, e] = random::bytes::<5>();
    format!("02:{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}")
}
