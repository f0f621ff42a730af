use aws_sdk_ssm::Client;
use aws_sdk_ssm::types::{
    ParameterStringFilter, ParameterTier, ParameterType, ResourceTypeForTagging, Tag,
};

use super::*;

const NAME: &str = "/m8trx/cust_acme/brain-key";

fn tag(key: &str, value: &str) -> Tag {
    Tag::builder().key(key).value(value).build().unwrap()
}

async fn put(client: &Client, name: &str, value: &str) {
    client
        .put_parameter()
        .name(name)
        .value(value)
        .r#type(ParameterType::SecureString)
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn a_secret_is_stored_and_shown_only_decrypted() {
    let running = running(&[]).await;
    let client = Client::new(&running.config);
    let put = client
        .put_parameter()
        .name(NAME)
        .value("m8k_secret")
        .r#type(ParameterType::SecureString)
        .tags(tag("Customer", "cust_acme"))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (put.version(), put.tier()),
        (1, Some(&ParameterTier::Standard))
    );

    let get = |decrypt| {
        client
            .get_parameter()
            .name(NAME)
            .with_decryption(decrypt)
            .send()
    };
    let parameter = get(true).await.unwrap().parameter.unwrap();
    assert_eq!(parameter.value(), Some("m8k_secret"));
    assert_eq!(
        parameter.arn(),
        Some("arn:aws:ssm:us-east-1:123456789012:parameter/m8trx/cust_acme/brain-key")
    );
    let age = parameter.last_modified_date().unwrap().secs() - Timestamp::now().as_second();
    assert!(age.abs() < 10);
    let hidden = get(false).await.unwrap().parameter.unwrap();
    let value = hidden.value().unwrap();
    assert!(
        value.starts_with("AQICAH") && !value.contains("m8k_secret"),
        "{value}"
    );

    let tags = client
        .list_tags_for_resource()
        .resource_type(ResourceTypeForTagging::Parameter)
        .resource_id(NAME)
        .send()
        .await
        .unwrap();
    assert_eq!(tags.tag_list(), [tag("Customer", "cust_acme")]);
}

#[tokio::test]
async fn overwriting() {
    let running = running(&[]).await;
    let client = Client::new(&running.config);
    put(&client, NAME, "one").await;
    let again = || {
        client
            .put_parameter()
            .name(NAME)
            .value("two")
            .r#type(ParameterType::SecureString)
    };
    assert_eq!(refusal(again().send().await).0, "ParameterAlreadyExists");
    let with_tags = again().overwrite(true).tags(tag("a", "b")).send().await;
    assert_eq!(refusal(with_tags).0, "ValidationException");
    assert_eq!(again().overwrite(true).send().await.unwrap().version(), 2);
    client
        .add_tags_to_resource()
        .resource_type(ResourceTypeForTagging::Parameter)
        .resource_id(NAME)
        .tags(tag("a", "b"))
        .send()
        .await
        .unwrap();

    let history = client
        .get_parameter_history()
        .name(NAME)
        .with_decryption(true)
        .send()
        .await
        .unwrap();
    let values: Vec<_> = history
        .parameters()
        .iter()
        .map(|p| (p.version(), p.value().unwrap()))
        .collect();
    assert_eq!(values, [(1, "one"), (2, "two")]);
    let first = client
        .get_parameter()
        .name(format!("{NAME}:1"))
        .with_decryption(true)
        .send()
        .await
        .unwrap();
    assert_eq!(first.parameter().unwrap().value(), Some("one"));

    client.delete_parameter().name(NAME).send().await.unwrap();
    let gone = client.get_parameter().name(NAME).send().await;
    assert_eq!(refusal(gone).0, "ParameterNotFound");
    assert_eq!(
        refusal(client.delete_parameter().name(NAME).send().await).0,
        "ParameterNotFound"
    );
}

#[tokio::test]
async fn bad_parameters_are_refused() {
    let running = running(&[]).await;
    let client = Client::new(&running.config);
    let long = "x".repeat(4097);
    let deep = "/a".repeat(16);
    for (name, value, code) in [
        (NAME, "", "ValidationException"),
        (NAME, "{{ssm:x}}", "ValidationException"),
        (NAME, long.as_str(), "ValidationException"),
        ("/m8trx/a b", "x", "ValidationException"),
        ("m8trx/x", "x", "ValidationException"),
        ("/ssm/x", "x", "ValidationException"),
        ("/aws/x", "x", "AccessDeniedException"),
        (deep.as_str(), "x", "HierarchyLevelLimitExceededException"),
    ] {
        let put = client
            .put_parameter()
            .name(name)
            .value(value)
            .r#type(ParameterType::String);
        assert_eq!(refusal(put.send().await).0, code, "{name}");
    }
    let untyped = client.put_parameter().name(NAME).value("x").send().await;
    assert_eq!(refusal(untyped).0, "ValidationException");
    let advanced = client
        .put_parameter()
        .name(NAME)
        .value(&long)
        .r#type(ParameterType::String)
        .tier(ParameterTier::IntelligentTiering)
        .send()
        .await
        .unwrap();
    assert_eq!(advanced.tier(), Some(&ParameterTier::Advanced));
}

#[tokio::test]
async fn lists_come_in_pages() {
    let running = running(&[]).await;
    let client = Client::new(&running.config);
    for number in 0..23 {
        put(&client, &format!("/m8trx/cust_{number:02}/brain-key"), "x").await;
    }
    put(&client, "/aaa", "x").await;
    let refused = client
        .get_parameters_by_path()
        .path("/m8trx")
        .max_results(11)
        .send()
        .await;
    assert_eq!(refusal(refused).0, "ValidationException");
    let pages = client
        .get_parameters_by_path()
        .path("/m8trx")
        .recursive(true)
        .into_paginator()
        .send();
    let pages = pages.try_collect().await.unwrap();
    assert_eq!(pages.len(), 3);
    assert_eq!(
        pages
            .iter()
            .map(|page| page.parameters().len())
            .sum::<usize>(),
        23
    );
    let flat = client
        .get_parameters_by_path()
        .path("/m8trx/cust_17")
        .send()
        .await
        .unwrap();
    assert!(flat.parameters().is_empty(), "the match is on a later page");
    assert!(flat.next_token().is_some());

    let filter = ParameterStringFilter::builder()
        .key("Name")
        .option("BeginsWith")
        .values("/m8trx/cust_1")
        .build()
        .unwrap();
    let described = client
        .describe_parameters()
        .parameter_filters(filter)
        .send()
        .await
        .unwrap();
    assert_eq!(described.parameters().len(), 10);
    assert_eq!(described.parameters()[0].version(), 1);

    let some = client
        .get_parameters()
        .names("/aaa")
        .names("/none")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (some.parameters().len(), some.invalid_parameters()),
        (1, ["/none".to_owned()].as_slice())
    );
}

#[tokio::test]
async fn ubuntu_is_found_by_its_public_parameter() {
    let running = running(&[]).await;
    let client = Client::new(&running.config);
    let ec2 = aws_sdk_ec2::Client::new(&running.config);
    for (release, architecture, volume, wanted) in [
        ("22.04", "amd64", "ebs-gp2", "x86_64"),
        ("22.04", "arm64", "ebs-gp2", "arm64"),
        ("24.04", "amd64", "ebs-gp3", "x86_64"),
        ("24.04", "arm64", "ebs-gp3", "arm64"),
    ] {
        let name = format!(
            "/aws/service/canonical/ubuntu/server/{release}/stable/current/{architecture}/hvm/{volume}/ami-id"
        );
        let parameter = client
            .get_parameter()
            .name(&name)
            .send()
            .await
            .unwrap()
            .parameter
            .unwrap();
        assert_eq!(
            parameter.arn().unwrap(),
            format!("arn:aws:ssm:us-east-1::parameter{name}")
        );
        let images = ec2
            .describe_images()
            .image_ids(parameter.value().unwrap())
            .send()
            .await
            .unwrap();
        assert_eq!(images.images()[0].architecture().unwrap().as_str(), wanted);
        assert_eq!(images.images()[0].owner_id(), Some("099720109477"));
    }
}
