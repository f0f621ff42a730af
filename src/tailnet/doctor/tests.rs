//! Each finding, and none where nothing is wrong.

use serde_json::json;

use super::*;
use crate::tailnet::policy::generate;

fn customers(names: &[&str]) -> BTreeSet<CustomerId> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn device(hostname: &str, tags: &[&str]) -> Device {
    serde_json::from_value(json!({"nodeId": hostname, "hostname": hostname, "tags": tags})).unwrap()
}

fn key(tag: &str, days: i64) -> AuthKey {
    let now: Timestamp = NOW.parse().unwrap();
    let expires = now + jiff::SignedDuration::from_hours(24 * days + 1);
    serde_json::from_value(json!({
        "id": format!("k{days}"),
        "expires": expires.to_string(),
        "capabilities": {"devices": {"create": {"reusable": true, "tags": [tag]}}},
    }))
    .unwrap()
}

const NOW: &str = "2026-11-24T00:00:00Z";
const ACME: &str = "tag:m8trx-cust-acme";
const BIGCO: &str = "tag:m8trx-cust-bigco";

struct Scene {
    policy: String,
    devices: Vec<Device>,
    keys: Vec<AuthKey>,
    lock: LockState,
    customers: Option<BTreeSet<CustomerId>>,
}

impl Scene {
    /// Two customers, and nothing wrong.
    fn healthy() -> Self {
        let customers = customers(&["cust_acme", "cust_bigco"]);
        Self {
            policy: generate::policy(&generate::tags(&customers), 8080),
            devices: vec![device("ip-1", &[ACME]), device("ip-2", &[BIGCO])],
            keys: vec![key(ACME, 80), key(BIGCO, 80), key(ACME, 2)],
            lock: LockState::On,
            customers: Some(customers),
        }
    }

    fn examine(&self) -> Vec<Diagnosis> {
        examine(&Tailnet {
            policy: &Document::parse(self.policy.as_str()).unwrap(),
            brain_port: 8080,
            devices: &self.devices,
            keys: &self.keys,
            lock: self.lock,
            customers: self.customers.as_ref(),
            now: NOW.parse().unwrap(),
        })
    }

    fn with_rule(mut self, section: &str, rule: &str) -> Self {
        let opening = format!("  \"{section}\": [\n");
        self.policy = self
            .policy
            .replacen(&opening, &format!("{opening}    {rule},\n"), 1);
        self
    }
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    assert_eq!(Scene::healthy().examine(), []);
}

#[test]
fn each_finding_names_what_to_do() {
    let of = |change: &dyn Fn(&mut Scene)| {
        let mut scene = Scene::healthy();
        change(&mut scene);
        scene
    };
    let cases: Vec<(Scene, &str, &[&str])> = vec![
        (
            Scene::healthy().with_rule("grants", r#"{"src": ["*"], "dst": ["*"], "ip": ["*"]}"#),
            "allow-all",
            &["grants[0] at line", "take it out"],
        ),
        (of(&|s| s.policy = "{}".to_owned()), "allow-all", &["neither `grants` nor `acls`"]),
        (
            Scene::healthy().with_rule("grants", r#"{"src": ["autogroup:tagged"], "dst": ["tag:m8trx-cust-acme"], "ip": ["443"]}"#),
            "not-isolated",
            &["tag:m8trx-cust-bigco reaches tag:m8trx-cust-acme", "m8trx tailnet check"],
        ),
        (
            of(&|s| s.customers = Some(customers(&["cust_acme", "cust_bigco", "cust_new_one"]))),
            "tag-owners-missing",
            &["tag:m8trx-cust-new-one", "m8trx tailnet apply cust_new_one"],
        ),
        (
            of(&|s| s.policy = s.policy.replace("\"tag:m8trx-operator\": [\"autogroup:admin\"],", "")),
            "tag-owners-missing",
            &["does not define tag:m8trx-operator"],
        ),
        (
            of(&|s| {
                s.customers = Some(customers(&["cust_acme"]));
                s.devices.pop();
            }),
            "unused-tags",
            &[BIGCO, "m8trx tailnet apply --remove cust_bigco"],
        ),
        (of(&|s| s.keys = vec![key(ACME, 13)]), "keys-near-expiry", &["tag:m8trx-cust-acme (13 days)", "m8trx rotate-tailscale-key cust_acme"]),
        (
            of(&|s| s.devices.push(device("both", &[ACME, BIGCO]))),
            "mixed-tags",
            &["both", "Machines"],
        ),
        (
            of(&|s| s.devices.push(device("lost", &["tag:m8trx-cust-gone"]))),
            "undefined-tags",
            &["lost"],
        ),
        (of(&|s| s.devices.push(device("laptop", &[]))), "untagged-devices", &["laptop", "1 device has no tag"]),
        (
            Scene::healthy().with_rule("ssh", r#"{"action": "accept", "src": ["autogroup:member"], "dst": ["tag:m8trx-cust-acme"], "users": ["root"]}"#),
            "ssh-too-wide",
            &["as root: ssh[0] at line", "tag:m8trx-team"],
        ),
        (of(&|s| s.lock = LockState::Off), "tailnet-lock-off", &["tailscale lock init"]),
        (of(&|s| s.lock = LockState::Unknown), "tailnet-lock-unknown", &["tailscale lock status"]),
    ];
    for (scene, id, words) in cases {
        let found = scene.examine();
        let Some(finding) = found.iter().find(|finding| finding.id == id) else {
            panic!("no {id} in {found:#?}");
        };
        let text = format!("{} {} {}", finding.what, finding.why, finding.todo);
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text}");
        }
        let sorted = found.is_sorted_by_key(|finding| finding.severity);
        assert!(sorted, "{found:#?}");
    }
}

#[test]
fn what_is_not_known_is_not_guessed() {
    let mut scene = Scene::healthy();
    scene.customers = None;
    scene.devices.clear();
    scene.keys.clear();
    assert_eq!(scene.examine(), []);
}
