//! Whose credentials are used, in which account and region: what is asked for, or nothing at all.

use crate::common::{Ended, RunningSandbox, Surroundings};

/// Profiles beside the environment of a sandbox. `operator` has the sandbox's own key.
fn with_profiles(sandbox: &RunningSandbox, more: &str) -> Surroundings {
    let surroundings = Surroundings::of(sandbox);
    let key = &sandbox.environment["AWS_ACCESS_KEY_ID"];
    let secret = &sandbox.environment["AWS_SECRET_ACCESS_KEY"];
    std::fs::create_dir(surroundings.home.path().join(".aws")).unwrap();
    surroundings.file(
        ".aws/config",
        &format!(
            "[profile operator]\nregion = eu-central-1\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n\
             [profile stranger]\nregion = eu-west-1\naws_access_key_id = AKIASTRANGER\naws_secret_access_key = x\n{more}"
        ),
    );
    surroundings
}

fn without(mut surroundings: Surroundings, names: &[&str]) -> Surroundings {
    for name in names {
        surroundings.variables.remove(*name);
    }
    surroundings
}

const KEYS: [&str; 2] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"];
const REGIONS: [&str; 2] = ["AWS_REGION", "AWS_DEFAULT_REGION"];

/// What a person sees of it, the same in every run.
fn seen(ended: &Ended, surroundings: &Surroundings) -> String {
    let home = surroundings.home.path().display().to_string();
    let stderr: Vec<String> = ended
        .stderr
        .replace(&home, "HOME")
        .lines()
        // Another one each time.
        .map(|line| match line.split_once(" (request ") {
            Some((before, _)) => before.to_owned(),
            None => line.to_owned(),
        })
        .collect();
    format!(
        "exit {}\n{}{}\n",
        ended.code,
        ended.stdout,
        stderr.join("\n")
    )
}

fn list(surroundings: &Surroundings, arguments: &[&str]) -> String {
    let mut all = vec!["params", "list"];
    all.extend(arguments);
    seen(&surroundings.m8trx(&all), surroundings)
}

#[test]
fn a_profile_of_the_command_line_gives_the_credentials_beside_keys_in_the_environment() {
    let sandbox = RunningSandbox::up();
    // Without a region in the environment, it is the profile's.
    let surroundings = without(with_profiles(&sandbox, ""), &REGIONS);
    insta::assert_snapshot!(
        "profile_flag",
        [
            list(&surroundings, &["--profile", "operator"]),
            list(&surroundings, &["--profile", "stranger"]),
            list(
                &surroundings,
                &["--profile", "operator", "--region", "eu-west-3"]
            ),
        ]
        .join("\n")
    );
    // In the environment and in the file, a profile loses to keys, and that is said.
    let mut surroundings = with_profiles(&sandbox, "");
    surroundings.set("AWS_PROFILE", "stranger");
    let config = surroundings.file("config.toml", "[aws]\nprofile = 'stranger'\n");
    let by_variable = list(&surroundings, &[]);
    surroundings.variables.remove("AWS_PROFILE");
    let by_file = list(&surroundings, &["--config", config.to_str().unwrap()]);
    insta::assert_snapshot!("profile_beside_keys", format!("{by_variable}\n{by_file}"));
}

#[test]
fn the_region_is_the_flags_then_the_environments_then_the_profiles_then_the_files() {
    let sandbox = RunningSandbox::up();
    let region = |surroundings: &Surroundings, arguments: &[&str]| {
        let text = list(surroundings, arguments);
        let (_, rest) = text
            .split_once("region ")
            .unwrap_or_else(|| panic!("{text}"));
        rest.split(',').next().unwrap().to_owned()
    };
    let surroundings = with_profiles(&sandbox, "[default]\nregion = eu-west-2\n");
    let config = surroundings.file(
        "config.toml",
        "[aws]\nregion = 'eu-north-1'\nprofile = 'operator'\n",
    );
    let config = config.to_str().unwrap();
    let profile = ["--profile", "operator", "--config", config];
    assert_eq!(
        region(
            &surroundings,
            &[&profile[..], &["--region", "eu-west-3"]].concat()
        ),
        "eu-west-3"
    );
    assert_eq!(region(&surroundings, &profile), "us-east-1");
    let mut surroundings = without(surroundings, &REGIONS);
    assert_eq!(region(&surroundings, &profile), "eu-central-1");
    // A profile of the file does not beat the region beside it.
    assert_eq!(region(&surroundings, &["--config", config]), "eu-north-1");
    assert_eq!(region(&surroundings, &[]), "eu-west-2");
    let one = surroundings.file("one.toml", "[aws]\nregions = ['ap-south-1']\n[launch]\n");
    surroundings.set("AWS_CONFIG_FILE", "/nonexistent");
    assert_eq!(
        region(&surroundings, &["--config", one.to_str().unwrap()]),
        "ap-south-1"
    );
}

#[test]
fn a_profile_that_does_not_exist_is_named() {
    let sandbox = RunningSandbox::up();
    let mut surroundings = without(with_profiles(&sandbox, ""), &REGIONS);
    let by_flag = list(&surroundings, &["--profile", "nope"]);
    let config = surroundings.file("config.toml", "[aws]\nprofile = 'nope'\n");
    let by_file = list(&surroundings, &["--config", config.to_str().unwrap()]);
    surroundings.set("AWS_PROFILE", "nope");
    let by_variable = list(&surroundings, &[]);
    surroundings.set("AWS_CONFIG_FILE", "/nonexistent");
    let without_any = list(&surroundings, &[]);
    insta::assert_snapshot!(
        "unknown_profile",
        [by_flag, by_file, by_variable, without_any].join("\n")
    );
}

#[test]
fn another_account_or_region_than_expected_ends_the_command_before_anything() {
    let sandbox = RunningSandbox::up();
    let surroundings = Surroundings::of(&sandbox);
    let onboard = |arguments: &[&str]| {
        let mut all = vec!["onboard", "cust_acme", "--yes"];
        all.extend(arguments);
        seen(&surroundings.m8trx(&all), &surroundings)
    };
    let by_flag = onboard(&["--expect-account", "210987654321"]);
    let file = |text: &str| {
        let path = surroundings.file("config.toml", text);
        path.to_str().unwrap().to_owned()
    };
    let by_file = onboard(&["--config", &file("[aws]\naccount = '210987654321'\n")]);
    let region = onboard(&[
        "--config",
        &file("[aws]\nregions = ['eu-west-1', 'eu-west-2']\n"),
    ]);
    let malformed = onboard(&["--expect-account", "12345"]);
    let number = onboard(&["--config", &file("[aws]\naccount = 123456789012\n")]);
    insta::assert_snapshot!(
        "account_and_region_guard",
        [by_flag, by_file, region, malformed, number].join("\n")
    );
    assert_eq!(sandbox.changes(), Vec::<String>::new());
    let right = file("[aws]\naccount = '123456789012'\nregions = ['us-east-1']\n");
    surroundings
        .m8trx(&["params", "list", "--config", &right])
        .assert_code(0);
    // The flag wins over the file.
    surroundings
        .m8trx(&[
            "params",
            "list",
            "--config",
            &right,
            "--expect-account",
            "210987654321",
        ])
        .assert_code(3);
}

#[test]
fn what_only_the_aws_command_can_sign_in_is_told_with_the_command_that_helps() {
    let sandbox = RunningSandbox::up();
    let more = "[profile mfa]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/admin\n\
                source_profile = operator\nmfa_serial = arn:aws:iam::123456789012:mfa/me\n\
                [profile behind]\nrole_arn = arn:aws:iam::123456789012:role/other\nsource_profile = mfa\n\
                [profile login]\nlogin_session = arn:aws:iam::123456789012:user/me\nregion = eu-west-1\n\
                [profile refused]\nregion = eu-west-1\nrole_arn = arn:aws:iam::123456789012:role/admin\n\
                source_profile = operator\n";
    let mut surroundings = without(with_profiles(&sandbox, more), &REGIONS);
    let mut texts: Vec<String> = ["mfa", "behind", "login", "refused"]
        .iter()
        .map(|profile| {
            list(
                &surroundings,
                &["--profile", profile, "--region", "eu-west-1"],
            )
        })
        .collect();
    surroundings.set("AWS_PROFILE", "mfa");
    // Beside keys, which are used, the profile need not sign in.
    texts.push(list(&surroundings, &[]));
    let surroundings = without(surroundings, &KEYS);
    texts.push(list(&surroundings, &[]));
    insta::assert_snapshot!("only_the_aws_command", texts.join("\n"));
}

/// Longer than a call may take: as with a browser, or a key that has to be touched.
#[test]
fn a_credential_process_that_takes_long_is_asked_once() {
    let sandbox = RunningSandbox::up();
    let key = &sandbox.environment["AWS_ACCESS_KEY_ID"];
    let secret = &sandbox.environment["AWS_SECRET_ACCESS_KEY"];
    let surroundings = with_profiles(
        &sandbox,
        "[profile slow]\nregion = us-east-1\ncredential_process = sh credentials.sh\n",
    );
    surroundings.file(
        "credentials.sh",
        &format!(
            "echo asked >> asked\nsleep 16\necho '{{\"Version\":1,\"AccessKeyId\":\"{key}\",\"SecretAccessKey\":\"{secret}\"}}'\n"
        ),
    );
    let surroundings = without(surroundings, &KEYS);
    let listed = list(&surroundings, &["--profile", "slow"]);
    insta::assert_snapshot!("slow_credential_process", listed);
    let asked = std::fs::read_to_string(surroundings.home.path().join("asked")).unwrap();
    assert_eq!(asked, "asked\n");
}
