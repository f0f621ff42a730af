//! `m8trx config show`: each setting, and where it comes from.

use crate::common::Surroundings;

#[test]
fn each_value_says_where_it_comes_from_and_no_secret_is_shown() {
    let mut surroundings = Surroundings::new();
    let config = "\
[aws]
region = 'eu-central-1'
profile = 'prod'
[brain]
url = 'http://brain:8080'
mint_command = ['ssh', 'brain', 'node bin/mint-key.js']
database_url = 'postgresql://m8trx:s3cr3t@db/brain'
[tailscale]
client_secret_file = 'client-secret'
[launch]
subnet = 'subnet-1'
";
    let config = surroundings.file("config.toml", config);
    surroundings
        .set("M8TRX_CONFIG", config.to_str().unwrap())
        .set("M8TRX_BRAIN_URL", "http://other:8080");
    let shown = surroundings.m8trx(&["--region", "us-east-1", "config", "show"]);
    // The OAuth client has no id: that is shown, and said.
    shown.assert_code(3);
    assert!(!shown.stdout.contains("s3cr3t"), "{shown:?}");
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"/tmp/\.tmp\w+", "<home>");
    settings.bind(|| {
        insta::assert_snapshot!("shown", shown.stdout);
        insta::assert_snapshot!("said", shown.stderr);
    });
    let json = surroundings
        .m8trx(&["config", "show", "--all", "--json"])
        .json();
    assert_eq!(json["schema"], "m8trx.config-show/1");
    let of = |key: &str| {
        let settings = json["settings"].as_array().unwrap();
        settings
            .iter()
            .find(|row| row["key"] == key)
            .unwrap()
            .clone()
    };
    assert_eq!(
        (
            of("brain.url")["origin"].clone(),
            of("brain.url")["from"].clone()
        ),
        ("environment".into(), "M8TRX_BRAIN_URL".into())
    );
    assert_eq!(of("aws.region")["value"], "eu-central-1");
    assert_eq!(of("launch.ami")["origin"], "unset");
    assert_eq!(of("launch.timeout")["origin"], "default");
}

#[test]
fn without_a_file_it_says_where_one_would_be() {
    let surroundings = Surroundings::new();
    let shown = surroundings.m8trx(&["config", "show"]);
    let home = surroundings.home.path().display().to_string();
    insta::assert_snapshot!(
        "no_file",
        shown.assert_code(0).stdout.replace(&home, "<home>")
    );
}

/// What is shown is what counts: the same layers decide where settings are used.
#[test]
fn the_variable_that_is_shown_is_the_one_that_is_refused() {
    let mut surroundings = Surroundings::new();
    let config = surroundings.file("config.toml", "[brain]\nurl = 'ftp://file'\n");
    surroundings.set("M8TRX_CONFIG", config.to_str().unwrap());
    for (variable, expected) in [
        ("", "brain.url in "),
        ("ftp://variable", "M8TRX_BRAIN_URL: "),
    ] {
        surroundings.set("M8TRX_BRAIN_URL", variable);
        let shown = surroundings.m8trx(&["config", "show"]);
        assert!(shown.assert_code(3).stderr.contains(expected), "{shown:?}");
    }
}
