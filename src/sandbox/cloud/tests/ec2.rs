use aws_sdk_ec2::Client;
use aws_sdk_ec2::operation::run_instances::builders::RunInstancesFluentBuilder;
use aws_sdk_ec2::types::*;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::iam::{NAME, POLICY, make_profile};
use super::*;

async fn image(running: &Running) -> String {
    let images = Client::new(&running.config)
        .describe_images()
        .filters(filter("name", "*jammy-22.04-amd64*"))
        .send()
        .await
        .unwrap();
    images.images()[0].image_id().unwrap().to_owned()
}

pub(super) fn filter(name: &str, value: &str) -> Filter {
    Filter::builder().name(name).values(value).build()
}

/// The launch that onboarding makes.
pub(super) async fn launch(running: &Running) -> RunInstancesFluentBuilder {
    let tags = TagSpecification::builder()
        .resource_type(ResourceType::Instance)
        .tags(Tag::builder().key("Customer").value("cust_acme").build())
        .tags(Tag::builder().key("Name").value("m8trx-cust_acme").build())
        .build();
    let options = InstanceMetadataOptionsRequest::builder()
        .http_tokens(HttpTokensState::Required)
        .http_put_response_hop_limit(1)
        .instance_metadata_tags(InstanceMetadataTagsState::Enabled)
        .build();
    let root = BlockDeviceMapping::builder()
        .device_name("/dev/sda1")
        .ebs(
            EbsBlockDevice::builder()
                .encrypted(true)
                .volume_size(16)
                .build(),
        )
        .build();
    Client::new(&running.config)
        .run_instances()
        .image_id(image(running).await)
        .instance_type(InstanceType::T3Small)
        .min_count(1)
        .max_count(1)
        .client_token("token-1")
        .user_data(BASE64_STANDARD.encode("#!/bin/bash\necho hello\n"))
        .iam_instance_profile(
            IamInstanceProfileSpecification::builder()
                .name(NAME)
                .build(),
        )
        .tag_specifications(tags)
        .metadata_options(options)
        .block_device_mappings(root)
}

pub(super) async fn ready(running: &Running) {
    make_profile(&aws_sdk_iam::Client::new(&running.config), POLICY).await;
}

pub(super) async fn visible() {
    tokio::time::sleep(Duration::from_millis(170)).await;
}

#[tokio::test]
async fn a_launch_is_as_it_was_asked_for() {
    let mut running = running(&[]).await;
    ready(&running).await;
    let client = Client::new(&running.config);
    let launched = launch(&running).await.send().await.unwrap();
    let id = launched.instances()[0].instance_id().unwrap().to_owned();
    assert_eq!(
        running.commands.try_recv().unwrap(),
        MachineCommand::Boot {
            region: DEFAULT_REGION.to_owned(),
            instance: id.clone()
        }
    );
    let describe = || client.describe_instances().instance_ids(&id).send();
    assert_eq!(refusal(describe().await).0, "InvalidInstanceID.NotFound");
    visible().await;
    let described = describe().await.unwrap();
    let instance = &described.reservations()[0].instances()[0];
    assert_eq!(
        instance.state().unwrap().name(),
        Some(&InstanceStateName::Pending)
    );
    running.cloud.host_booted(DEFAULT_REGION, &id);
    assert_eq!(instance.client_token(), Some("token-1"));
    let options = instance.metadata_options().unwrap();
    assert_eq!(options.http_tokens(), Some(&HttpTokensState::Required));
    assert_eq!(
        options.instance_metadata_tags(),
        Some(&InstanceMetadataTagsState::Enabled)
    );
    assert_eq!(
        instance.iam_instance_profile().unwrap().arn().unwrap(),
        format!("arn:aws:iam::123456789012:instance-profile/{NAME}")
    );
    assert!(
        instance
            .tags()
            .iter()
            .any(|tag| tag.key() == Some("Customer") && tag.value() == Some("cust_acme"))
    );
    let volumes = client
        .describe_volumes()
        .filters(filter("attachment.instance-id", &id))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            volumes.volumes()[0].encrypted(),
            volumes.volumes()[0].size()
        ),
        (Some(true), Some(16))
    );

    let by_filters = client
        .describe_instances()
        .filters(filter("tag:Customer", "cust_acme"))
        .filters(filter("instance-state-name", "running"))
        .filters(filter("client-token", "token-1"))
        .filters(filter("tag-key", "Name"))
        .send()
        .await
        .unwrap();
    assert_eq!(by_filters.reservations().len(), 1);
    let none = client
        .describe_instances()
        .filters(filter("tag:Customer", "cust_b"))
        .send()
        .await
        .unwrap();
    assert!(none.reservations().is_empty());
    let unknown = client
        .describe_instances()
        .filters(filter("colour", "red"))
        .send()
        .await;
    assert_eq!(refusal(unknown).0, "InvalidParameterValue");

    let data = client
        .describe_instance_attribute()
        .instance_id(&id)
        .attribute(InstanceAttributeName::UserData)
        .send()
        .await
        .unwrap();
    let data = data.user_data().unwrap().value().unwrap();
    assert_eq!(
        BASE64_STANDARD.decode(data).unwrap(),
        b"#!/bin/bash\necho hello\n"
    );
    let status = client
        .describe_instance_status()
        .instance_ids(&id)
        .send()
        .await
        .unwrap();
    assert_eq!(
        status.instance_statuses()[0]
            .instance_status()
            .unwrap()
            .status(),
        Some(&SummaryStatus::Ok)
    );
    let console = client
        .get_console_output()
        .instance_id(&id)
        .latest(true)
        .send()
        .await
        .unwrap();
    assert_eq!(console.output().unwrap_or_default(), "");
}

#[tokio::test]
async fn the_client_token_makes_a_launch_happen_once() {
    let running = running(&[]).await;
    ready(&running).await;
    let client = Client::new(&running.config);
    let first = launch(&running).await.send().await.unwrap();
    let id = first.instances()[0].instance_id().unwrap();
    let second = launch(&running).await.send().await.unwrap();
    assert_eq!(second.instances()[0].instance_id(), Some(id));
    assert_eq!(second.reservation_id(), first.reservation_id());
    let other = launch(&running)
        .await
        .instance_type(InstanceType::T3Micro)
        .send()
        .await;
    assert_eq!(refusal(other).0, "IdempotentParameterMismatch");
    visible().await;
    client
        .terminate_instances()
        .instance_ids(id)
        .send()
        .await
        .unwrap();
    running.cloud.host_down(DEFAULT_REGION, id, Down::Off);
    assert_eq!(
        refusal(launch(&running).await.send().await).0,
        "IdempotentInstanceTerminated"
    );
    let all = client.describe_instances().send().await.unwrap();
    assert_eq!(all.reservations().len(), 1);
}

#[tokio::test]
async fn a_dry_run_launches_nothing() {
    let mut running = running(&[]).await;
    let dry = launch(&running).await.dry_run(true).send().await;
    assert_eq!(
        refusal(dry).0,
        "InvalidParameterValue",
        "the profile is missing"
    );
    ready(&running).await;
    let before = running.cloud.calls().len();
    let (code, message) = refusal(launch(&running).await.dry_run(true).send().await);
    assert_eq!(code, "DryRunOperation", "{message}");
    assert!(running.commands.try_recv().is_err());
    let calls = &running.cloud.calls()[before..];
    assert!(calls.iter().all(|call| !call.mutating), "{calls:?}");
    assert!(calls.iter().any(|call| call.action == "RunInstances"));
}

#[tokio::test]
async fn a_new_profile_takes_time_to_arrive() {
    let (cloud, commands) = Cloud::new(Vec::new(), None, Some(Duration::from_millis(250)));
    let running = running_as(cloud, commands).await;
    ready(&running).await;
    let (code, message) = refusal(launch(&running).await.send().await);
    assert_eq!(code, "InvalidParameterValue");
    assert_eq!(
        message,
        "Value (m8trx-cust_acme) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name"
    );
    tokio::time::sleep(Duration::from_millis(270)).await;
    launch(&running).await.send().await.unwrap();

    let iam = aws_sdk_iam::Client::new(&running.config);
    iam.remove_role_from_instance_profile()
        .instance_profile_name(NAME)
        .role_name(NAME)
        .send()
        .await
        .unwrap();
    let (_, message) = refusal(launch(&running).await.client_token("token-2").send().await);
    assert!(
        message.ends_with("has no associated IAM Roles"),
        "{message}"
    );
}

#[tokio::test]
async fn bad_launches_are_refused() {
    let running = running(&[]).await;
    ready(&running).await;
    let base = async || launch(&running).await.set_client_token(None);
    let bad_key = TagSpecification::builder()
        .resource_type(ResourceType::Instance)
        .tags(Tag::builder().key("My Key").value("x").build())
        .build();
    let arm = Client::new(&running.config)
        .describe_images()
        .filters(filter("architecture", "arm64"))
        .send()
        .await
        .unwrap();
    let arm = arm.images()[0].image_id().unwrap().to_owned();
    let hops = InstanceMetadataOptionsRequest::builder()
        .http_put_response_hop_limit(65)
        .build();
    let too_long = BASE64_STANDARD.encode(vec![b'#'; 16 * 1024 + 1]);
    for (request, code) in [
        (base().await.user_data(too_long), "InvalidParameterValue"),
        (
            base().await.user_data("not base64!"),
            "InvalidParameterValue",
        ),
        (
            base().await.image_id("ami-0123456789abcdef0"),
            "InvalidAMIID.NotFound",
        ),
        (base().await.image_id("ami-x"), "InvalidAMIID.Malformed"),
        (base().await.image_id(arm), "InvalidParameterValue"),
        (
            base().await.instance_type(InstanceType::from("t9.huge")),
            "InvalidParameterValue",
        ),
        (
            base().await.subnet_id("subnet-0123456789abcdef0"),
            "InvalidSubnetID.NotFound",
        ),
        (
            base().await.security_group_ids("sg-0123456789abcdef0"),
            "InvalidGroup.NotFound",
        ),
        (
            base().await.set_tag_specifications(Some(vec![bad_key])),
            "InvalidParameterValue",
        ),
        (base().await.metadata_options(hops), "InvalidParameterValue"),
        (base().await.min_count(0), "InvalidParameterValue"),
        (base().await.key_name("mine"), "InvalidKeyPair.NotFound"),
        (
            base().await.client_token("x".repeat(65)),
            "InvalidParameterValue",
        ),
        (base().await.ramdisk_id("ari-1"), "UnknownParameter"),
    ] {
        let (got, message) = refusal(request.send().await);
        assert_eq!(got, code, "{message}");
    }
    let most = base()
        .await
        .user_data(BASE64_STANDARD.encode(vec![b'#'; 16 * 1024]));
    most.send().await.unwrap();
    let all = Client::new(&running.config)
        .describe_instances()
        .max_results(5)
        .send();
    visible().await;
    assert!(all.await.unwrap().reservations().len() <= 1);
}

#[tokio::test]
async fn states_and_their_reasons() {
    let mut running = running(&[]).await;
    ready(&running).await;
    let client = Client::new(&running.config);
    let mut ids = Vec::new();
    for number in 0..4 {
        let launched = launch(&running)
            .await
            .client_token(format!("t{number}"))
            .send()
            .await
            .unwrap();
        ids.push(launched.instances()[0].instance_id().unwrap().to_owned());
    }
    visible().await;
    let cloud = running.cloud.clone();
    let region = DEFAULT_REGION;
    for id in &ids[..3] {
        cloud.host_booted(region, id);
    }
    client
        .terminate_instances()
        .instance_ids(&ids[0])
        .send()
        .await
        .unwrap();
    let commands: Vec<_> = std::iter::from_fn(|| running.commands.try_recv().ok()).collect();
    assert!(commands.contains(&MachineCommand::ShutDown {
        region: region.to_owned(),
        instance: ids[0].clone()
    }));
    let state = async |id: &str| {
        let described = client
            .describe_instances()
            .instance_ids(id)
            .send()
            .await
            .unwrap();
        let instance = &described.reservations()[0].instances()[0];
        let reason = instance.state_reason().and_then(|reason| reason.code());
        (
            instance
                .state()
                .unwrap()
                .name()
                .unwrap()
                .as_str()
                .to_owned(),
            reason.unwrap_or_default().to_owned(),
        )
    };
    let is = |state: &str, reason: &str| (state.to_owned(), reason.to_owned());
    assert_eq!(
        state(&ids[0]).await,
        is("shutting-down", "Client.UserInitiatedShutdown")
    );
    cloud.host_down(region, &ids[0], Down::Off);
    assert_eq!(
        state(&ids[0]).await,
        is("terminated", "Client.UserInitiatedShutdown")
    );
    client
        .stop_instances()
        .instance_ids(&ids[1])
        .send()
        .await
        .unwrap();
    cloud.host_down(region, &ids[1], Down::Off);
    assert_eq!(
        state(&ids[1]).await,
        is("stopped", "Client.UserInitiatedShutdown")
    );
    cloud.host_down(region, &ids[2], Down::Off);
    assert_eq!(
        state(&ids[2]).await,
        is("stopped", "Client.InstanceInitiatedShutdown")
    );
    cloud.host_down(region, &ids[3], Down::Revoked);
    assert_eq!(
        state(&ids[3]).await,
        is("terminated", "Client.InternalError")
    );
    // A stopped instance has no machine; terminating it ends it at once.
    client
        .terminate_instances()
        .instance_ids(&ids[1])
        .send()
        .await
        .unwrap();
    assert_eq!(state(&ids[1]).await.0, "terminated");
    let start = client.start_instances().instance_ids(&ids[2]).send().await;
    assert_eq!(refusal(start).0, "UnsupportedOperation");
}

#[tokio::test]
async fn faults_of_ec2() {
    let no_capacity = running(&[Fault::Capacity]).await;
    ready(&no_capacity).await;
    assert_eq!(
        refusal(launch(&no_capacity).await.send().await).0,
        "InsufficientInstanceCapacity"
    );
    let disabled = running(&[Fault::MetadataTagsDisabled]).await;
    ready(&disabled).await;
    let launched = launch(&disabled).await.send().await.unwrap();
    let id = launched.instances()[0].instance_id().unwrap();
    assert!(
        !disabled
            .cloud
            .host_view(DEFAULT_REGION, id)
            .unwrap()
            .options
            .tags_enabled
    );
}
