//! Signatures, and what holds for requests of every service.

use aws_sdk_ssm::types::ParameterType;

use super::*;

const REGION: &str = DEFAULT_REGION;

#[tokio::test]
async fn wrong_keys_and_secrets_are_told_apart_as_each_service_does() {
    let running = running(&[]).await;
    for (key, secret, codes) in [
        (
            "AKIANOBODY",
            "x",
            [
                "InvalidClientTokenId",
                "InvalidClientTokenId",
                "UnrecognizedClientException",
                "AuthFailure",
            ],
        ),
        (
            OPERATOR_ACCESS_KEY,
            "x",
            [
                "SignatureDoesNotMatch",
                "SignatureDoesNotMatch",
                "InvalidSignatureException",
                "AuthFailure",
            ],
        ),
    ] {
        let config = config(&running.url, Credentials::from_keys(key, secret, None));
        let got = [
            refusal(
                aws_sdk_sts::Client::new(&config)
                    .get_caller_identity()
                    .send()
                    .await,
            )
            .0,
            refusal(aws_sdk_iam::Client::new(&config).list_roles().send().await).0,
            refusal(
                aws_sdk_ssm::Client::new(&config)
                    .describe_parameters()
                    .send()
                    .await,
            )
            .0,
            refusal(
                aws_sdk_ec2::Client::new(&config)
                    .describe_vpcs()
                    .send()
                    .await,
            )
            .0,
        ];
        assert_eq!(got, codes);
    }
    assert!(
        running
            .cloud
            .calls()
            .iter()
            .all(|call| !call.allowed && call.identity.is_none())
    );
}

#[tokio::test]
async fn a_changed_body_or_an_old_date_voids_a_signature() {
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use aws_sigv4::sign::v4;
    let running = running(&[]).await;
    let secret = running.cloud.operator_secret();
    let identity = Credentials::from_keys(OPERATOR_ACCESS_KEY, secret.expose_secret(), None).into();
    let body = "Action=GetCallerIdentity&Version=2011-06-15";
    let send = async |signed_body: &str, sent_body: &str, age: Duration| {
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region(REGION)
            .name("sts")
            .time(std::time::SystemTime::now() - age)
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let url = format!("{}/", running.url);
        let signable = SignableRequest::new(
            "POST",
            &url,
            std::iter::empty(),
            SignableBody::Bytes(signed_body.as_bytes()),
        )
        .unwrap();
        let (instructions, _) = sign(signable, &params).unwrap().into_parts();
        let mut request = http::Request::post(&url).body(()).unwrap();
        instructions.apply_to_request_http1x(&mut request);
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(tls())
            .build()
            .unwrap();
        let mut builder = client.post(&url).body(sent_body.to_owned());
        for (name, value) in request.headers() {
            builder = builder.header(name, value);
        }
        builder.send().await.unwrap().text().await.unwrap()
    };
    let zero = Duration::ZERO;
    let good = send(body, body, zero).await;
    assert!(good.contains("user/sandbox-operator"), "{good}");
    let changed = send(
        body,
        "Action=GetCallerIdentity&Version=2011-06-15&X=1",
        zero,
    )
    .await;
    assert!(changed.contains("SignatureDoesNotMatch"), "{changed}");
    let old = send(body, body, Duration::from_secs(301)).await;
    assert!(old.contains("Signature expired"), "{old}");
}

fn tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(rustls::RootCertStore::empty())
    .with_no_client_auth()
}

#[tokio::test]
async fn unknown_actions_and_unsigned_requests() {
    let running = running(&[]).await;
    let ec2 = aws_sdk_ec2::Client::new(&running.config);
    assert_eq!(
        refusal(ec2.describe_key_pairs().send().await).0,
        "InvalidAction"
    );
    let ssm = aws_sdk_ssm::Client::new(&running.config);
    assert_eq!(
        refusal(ssm.list_documents().send().await).0,
        "UnknownOperationException"
    );
    let client = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(tls())
        .build()
        .unwrap();
    let unsigned = client
        .post(&running.url)
        .body("Action=GetCallerIdentity&Version=2011-06-15")
        .send()
        .await
        .unwrap();
    assert_eq!(unsigned.status(), 403);
    assert!(
        unsigned
            .text()
            .await
            .unwrap()
            .contains("MissingAuthenticationToken")
    );
    let calls = client
        .get(format!("{}/_sandbox/calls", running.url))
        .send()
        .await
        .unwrap();
    let calls: serde_json::Value = serde_json::from_str(&calls.text().await.unwrap()).unwrap();
    assert_eq!(calls["calls"].as_array().unwrap().len(), 3);
    assert_eq!(calls["calls"][0]["action"], "DescribeKeyPairs");
}

#[tokio::test]
async fn throttling_lets_every_second_call_of_the_operator_through() {
    let running = running(&[Fault::Throttling]).await;
    let ssm = aws_sdk_ssm::Client::new(&running.config);
    assert_eq!(
        refusal(ssm.describe_parameters().send().await).0,
        "ThrottlingException"
    );
    ssm.describe_parameters().send().await.unwrap();
    let retrying = running
        .config
        .to_builder()
        .retry_config(aws_config::retry::RetryConfig::standard())
        .build();
    aws_sdk_ec2::Client::new(&retrying)
        .describe_vpcs()
        .send()
        .await
        .unwrap();
}

#[tokio::test]
async fn regions_are_separate_and_must_exist() {
    let running = running(&[]).await;
    let elsewhere = |region: &'static str| {
        let config = running
            .config
            .to_builder()
            .region(SdkRegion::new(region))
            .build();
        aws_sdk_ssm::Client::new(&config)
    };
    let put = elsewhere("eu-west-1")
        .put_parameter()
        .name("/m8trx/brain-url")
        .value("x");
    put.r#type(ParameterType::String).send().await.unwrap();
    let here = aws_sdk_ssm::Client::new(&running.config);
    assert_eq!(
        refusal(here.get_parameter().name("/m8trx/brain-url").send().await).0,
        "ParameterNotFound"
    );
    let nowhere = elsewhere("mars-1").describe_parameters().send().await;
    assert_eq!(refusal(nowhere).0, "InvalidSignatureException");
}

#[tokio::test]
async fn latency_is_added_to_every_call() {
    let latency = Duration::from_millis(120);
    let (cloud, commands) = Cloud::new(Vec::new(), Some(latency), None);
    let running = running_as(cloud, commands).await;
    let start = std::time::Instant::now();
    let sts = aws_sdk_sts::Client::new(&running.config);
    sts.get_caller_identity().send().await.unwrap();
    assert!(start.elapsed() >= latency);
}
