//! Against a cloud in which an instance was launched through the SDK.

use bytes::Bytes;
use http_body_util::BodyExt;

use super::*;
use crate::cloud::trial::{self, Trial};

const TOKEN: &str = "/latest/api/token";

async fn ask(
    handler: &Handler,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, String) {
    let mut request = http::Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = handler(request.body(Bytes::new()).unwrap()).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn token(handler: &Handler, ttl: &str) -> (u16, String) {
    ask(
        handler,
        Method::PUT,
        TOKEN,
        &[("x-aws-ec2-metadata-token-ttl-seconds", ttl)],
    )
    .await
}

struct Instance {
    trial: Trial,
    handler: Handler,
    id: String,
    token: String,
}

impl Instance {
    async fn launch(faults: &[Fault]) -> Self {
        let trial = trial::start(faults).await;
        let id = trial.launch().await;
        let handler = handler(trial.cloud.clone(), trial::REGION.to_owned(), id.clone());
        let (status, token) = token(&handler, "60").await;
        assert_eq!(status, 200);
        Self {
            trial,
            handler,
            id,
            token,
        }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        ask(
            &self.handler,
            Method::GET,
            path,
            &[("x-aws-ec2-metadata-token", &self.token)],
        )
        .await
    }

    async fn text(&self, path: &str) -> String {
        let (status, text) = self.get(path).await;
        assert_eq!(status, 200, "{path}");
        text
    }
}

#[tokio::test]
async fn tokens() {
    let instance = Instance::launch(&[]).await;
    for ttl in ["0", "21601", "x", "-1", ""] {
        assert_eq!(token(&instance.handler, ttl).await.0, 400, "{ttl}");
    }
    assert_eq!(ask(&instance.handler, Method::PUT, TOKEN, &[]).await.0, 400);
    let forwarded = [
        ("x-aws-ec2-metadata-token-ttl-seconds", "60"),
        ("x-forwarded-for", "10.0.0.1"),
    ];
    assert_eq!(
        ask(&instance.handler, Method::PUT, TOKEN, &forwarded)
            .await
            .0,
        403
    );
    assert_eq!(ask(&instance.handler, Method::GET, TOKEN, &[]).await.0, 405);
    let path = "/latest/meta-data/instance-id";
    assert_eq!(ask(&instance.handler, Method::GET, path, &[]).await.0, 401);
    let bad = [("x-aws-ec2-metadata-token", "bad")];
    assert_eq!(ask(&instance.handler, Method::GET, path, &bad).await.0, 401);
    let (_, short) = token(&instance.handler, "1").await;
    let short = [("x-aws-ec2-metadata-token", short.as_str())];
    assert_eq!(
        ask(&instance.handler, Method::GET, path, &short).await.0,
        200
    );
    tokio::time::sleep(Duration::from_millis(1050)).await;
    assert_eq!(
        ask(&instance.handler, Method::GET, path, &short).await.0,
        401
    );
}

#[tokio::test]
async fn what_an_instance_knows_of_itself() {
    let instance = Instance::launch(&[]).await;
    let meta = async |path: &str| instance.text(&format!("/latest/meta-data/{path}")).await;
    assert_eq!(meta("instance-id").await, instance.id);
    assert_eq!(meta("placement/region").await, trial::REGION);
    assert_eq!(
        meta("placement/availability-zone").await,
        format!("{}a", trial::REGION)
    );
    assert_eq!(meta("local-hostname").await, "ip-172-31-0-10.ec2.internal");
    assert_eq!(meta("local-ipv4").await, "172.31.0.10");
    assert_eq!(meta("tags/instance/Customer").await, "cust_acme");
    assert_eq!(meta("tags/instance/").await, "Customer\nName");
    assert_eq!(meta("iam/security-credentials/").await, trial::ROLE);
    assert_eq!(instance.text("/latest/user-data").await, "#!/bin/bash\n");
    let document: serde_json::Value = serde_json::from_str(
        &instance
            .text("/latest/dynamic/instance-identity/document")
            .await,
    )
    .unwrap();
    assert_eq!(
        (&document["region"], &document["instanceId"]),
        (&json!(trial::REGION), &json!(instance.id))
    );
    for path in [
        "/latest/meta-data/tags/instance/Other",
        "/latest/meta-data/colour",
        "/latest/x",
        "/x",
    ] {
        assert_eq!(instance.get(path).await.0, 404, "{path}");
    }
    let path = format!("iam/security-credentials/{}", trial::ROLE);
    let held: serde_json::Value = serde_json::from_str(&meta(&path).await).unwrap();
    assert_eq!(held["Code"], "Success");
    let ends: Timestamp = held["Expiration"].as_str().unwrap().parse().unwrap();
    let left = ends.duration_since(Timestamp::now()).as_secs();
    assert!((3500..=3600).contains(&left), "{left}");
    let other = instance
        .get("/latest/meta-data/iam/security-credentials/other")
        .await;
    assert_eq!(other.0, 404);
}

#[tokio::test]
async fn changes_in_the_cloud_are_seen_at_once() {
    let instance = Instance::launch(&[]).await;
    let tag = "/latest/meta-data/tags/instance/Customer";
    instance.trial.set_tags_enabled(&instance.id, false).await;
    let (status, page) = instance.get(tag).await;
    assert_eq!((status, page.contains("404 - Not Found")), (404, true));
    assert_eq!(
        instance.get("/latest/meta-data/tags/instance/").await.0,
        404
    );
    assert!(!instance.text("/latest/meta-data/").await.contains("tags/"));
    instance.trial.set_tags_enabled(&instance.id, true).await;
    assert_eq!(instance.text(tag).await, "cust_acme");
}

#[tokio::test]
async fn a_missing_customer_tag() {
    let instance = Instance::launch(&[Fault::CustomerTagMissing]).await;
    assert_eq!(
        instance
            .get("/latest/meta-data/tags/instance/Customer")
            .await
            .0,
        404
    );
    assert_eq!(
        instance.text("/latest/meta-data/tags/instance/").await,
        "Name"
    );
}
