use bytes::Bytes;
use http_body_util::BodyExt;

use super::*;

const EVENT: &str = r#"{"event_type":"heartbeat","ts":"2026-11-24T00:00:00Z","payload":{"hostname":"ip-172-31-0-10"}}"#;

async fn ask(brain: &Brain, method: Method, path: &str, bearer: &str, body: &str) -> (u16, Value) {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("authorization", format!("Bearer {bearer}"))
        .body(Bytes::from(body.to_owned()))
        .unwrap();
    let answer = (brain.handler())(request).await;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn mint(brain: &Brain, customer: &str) -> (String, String) {
    let token = brain.admin_token().expose_secret().to_owned();
    let body = json!({"customer_id": customer, "label": "a label"}).to_string();
    let (status, made) = ask(brain, Method::POST, "/v1/keys", &token, &body).await;
    assert_eq!(status, 201, "{made}");
    assert_eq!(
        (&made["customer_id"], &made["label"]),
        (&json!(customer), &json!("a label"))
    );
    assert!(
        made["created_at"]
            .as_str()
            .unwrap()
            .parse::<Timestamp>()
            .is_ok()
    );
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("key"))
}

#[tokio::test]
async fn events_come_back_newest_first_and_to_their_customer_only() {
    let brain = Brain::new(Vec::new());
    let (_, acme) = mint(&brain, "cust_acme").await;
    let (_, bigco) = mint(&brain, "cust_bigco").await;
    assert!(acme.starts_with("m8k_"));
    for hour in [3, 1, 2] {
        let event = EVENT.replace("T00", &format!("T0{hour}"));
        let (status, _) = ask(&brain, Method::POST, "/v1/events", &acme, &event).await;
        assert_eq!(status, 202);
    }
    let call = r#"{"event_type":"tool_call","ts":"2026-11-24T05:00:00+01:00","payload":{"tool_name":"x"}}"#;
    assert_eq!(
        ask(&brain, Method::POST, "/v1/events", &acme, call).await.0,
        202
    );
    let list = async |key: &str, query: &str| {
        let (status, body) = ask(&brain, Method::GET, &format!("/v1/events{query}"), key, "").await;
        assert_eq!(status, 200, "{body}");
        let events = body["events"].as_array().unwrap().clone();
        let times = events
            .iter()
            .map(|event| event["ts"].as_str().unwrap()[11..13].to_owned());
        times.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list(&acme, "").await, "04 03 02 01");
    assert_eq!(
        list(&acme, "?event_type=heartbeat&since=2026-11-24T02:00:00Z").await,
        "03 02"
    );
    assert_eq!(list(&acme, "?event_type=heartbeat&limit=1").await, "03");
    assert_eq!(list(&bigco, "").await, "");
}

#[tokio::test]
async fn bad_events_and_keys_are_refused() {
    let brain = Brain::new(Vec::new());
    let (_, key) = mint(&brain, "cust_acme").await;
    let post =
        async |key: &str, body: &str| ask(&brain, Method::POST, "/v1/events", key, body).await;
    assert_eq!(post("m8k_wrong", EVENT).await.0, 401);
    assert_eq!(post("", EVENT).await.0, 401);
    for body in [
        "",
        "[]",
        r#"{"event_type":"heartbeat","ts":"2026-11-24T00:00:00Z"}"#,
        r#"{"event_type":"heartbeat","ts":"2026-11-24T00:00:00Z","payload":{}}"#,
        r#"{"event_type":"heartbeat","ts":"2026-11-24T00:00:00Z","payload":[]}"#,
        r#"{"event_type":"","ts":"2026-11-24T00:00:00Z","payload":{}}"#,
        r#"{"event_type":"tool_call","ts":"yesterday","payload":{}}"#,
        r#"{"event_type":"tool_call","ts":"2026-11-24 00:00:00Z","payload":{}}"#,
        r#"{"event_type":"tool_call","ts":"2026-11-24T00:00:00","payload":{}}"#,
        r#"{"event_type":"tool_call","ts":"2026-11-24T00:00:00Z","payload":{},"customer_id":"cust_b"}"#,
    ] {
        let (status, answer) = post(&key, body).await;
        assert_eq!(status, 400, "{body}");
        assert!(!answer["error"].as_str().unwrap().is_empty());
    }
    for query in ["?since=x", "?limit=0", "?limit=x", "?colour=red"] {
        let path = format!("/v1/events{query}");
        assert_eq!(
            ask(&brain, Method::GET, &path, &key, "").await.0,
            400,
            "{query}"
        );
    }
}

#[tokio::test]
async fn keys_are_listed_without_the_keys_and_deleted() {
    let brain = Brain::new(Vec::new());
    let (id, key) = mint(&brain, "cust_acme").await;
    mint(&brain, "cust_bigco").await;
    let admin = brain.admin_token().expose_secret().to_owned();
    for (method, path) in [
        (Method::POST, "/v1/keys"),
        (Method::GET, "/v1/keys"),
        (Method::DELETE, "/v1/keys/x"),
    ] {
        assert_eq!(
            ask(&brain, method, path, &key, "{}").await.0,
            401,
            "a brain key is no admin token"
        );
    }
    let bad = r#"{"customer_id":"acme","label":"x"}"#;
    assert_eq!(
        ask(&brain, Method::POST, "/v1/keys", &admin, bad).await.0,
        400
    );
    let (_, listed) = ask(
        &brain,
        Method::GET,
        "/v1/keys?customer_id=cust_acme",
        &admin,
        "",
    )
    .await;
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1);
    assert_eq!(
        (
            listed["keys"][0]["id"].as_str().unwrap(),
            listed["keys"][0]["prefix"].as_str().unwrap()
        ),
        (id.as_str(), &key[..8])
    );
    assert!(!listed.to_string().contains(&key));
    let path = format!("/v1/keys/{id}");
    assert_eq!(ask(&brain, Method::DELETE, &path, &admin, "").await.0, 200);
    assert_eq!(ask(&brain, Method::DELETE, &path, &admin, "").await.0, 404);
    assert_eq!(
        ask(&brain, Method::POST, "/v1/events", &key, EVENT).await.0,
        401
    );
}

#[tokio::test]
async fn routes_that_are_not_there() {
    let brain = Brain::new(Vec::new());
    let (_, key) = mint(&brain, "cust_acme").await;
    assert_eq!(ask(&brain, Method::GET, "/healthz", "", "").await.0, 200);
    assert_eq!(
        ask(&brain, Method::GET, "/v2/events", &key, "").await.0,
        404
    );
    assert_eq!(
        ask(&brain, Method::PUT, "/v1/events", &key, "").await.0,
        405
    );
    assert_eq!(
        ask(&brain, Method::GET, "/v1/events", &key, "").await.0,
        200
    );
    brain.turn_events_route_off();
    assert_eq!(
        ask(&brain, Method::GET, "/v1/events", &key, "").await.0,
        405
    );
    assert_eq!(
        ask(&brain, Method::POST, "/v1/events", &key, EVENT).await.0,
        202
    );
}
