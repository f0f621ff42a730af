//! `m8trx init`: asks, tries each answer, writes the configuration file.

use std::os::unix::fs::PermissionsExt as _;

use crate::common::{RunningSandbox, Surroundings};
use crate::terminal::Session;

fn answer(session: &mut Session, question: &str, text: &str) {
    session.expect(question);
    session.type_in(&format!("{text}\r"));
}

#[test]
fn each_answer_is_tried_and_the_file_is_what_commands_read() {
    let sandbox = RunningSandbox::up();
    let mut surroundings = Surroundings::of(&sandbox);
    let token = sandbox.environment["M8TRX_BRAIN_ADMIN_TOKEN_FILE"].clone();
    let secret = sandbox.environment["M8TRX_TAILSCALE_CLIENT_SECRET_FILE"].clone();
    let open = surroundings
        .file_with_mode("open", "s3cr3t", 0o644)
        .display()
        .to_string();
    let wrong = surroundings
        .file("wrong", "not-the-token")
        .display()
        .to_string();
    let config = surroundings.home.path().join("conf/m8trx.toml");
    surroundings.set("M8TRX_CONFIG", config.to_str().unwrap());
    let url = sandbox.environment["M8TRX_BRAIN_URL"].clone();
    let mut session = Session::start(surroundings, &["init"]);
    answer(&mut session, "AWS profile", "-");
    answer(&mut session, "AWS region", "");
    session.expect("account 123456789012");
    answer(&mut session, "The one account", "");
    answer(&mut session, "The brain's URL", "http://127.0.0.1:1");
    session.expect_after(
        "give it once more to write it all the same",
        "The brain's URL",
    );
    session.type_in(&format!("{url}\r"));
    session.expect("it answers");
    answer(&mut session, "admin token", &open);
    session.expect("can be read by others");
    session.expect_after("chmod 600", "admin token");
    session.type_in(&format!("{wrong}\r"));
    session.expect("the brain refuses this token");
    session.expect_after("refuses this token", "admin token");
    session.type_in(&format!("{token}\r"));
    answer(&mut session, "PostgreSQL", "-");
    answer(&mut session, "Id of the OAuth client", "");
    answer(&mut session, "File with its secret", &secret);
    session.expect("policy_file: it reads them");
    answer(&mut session, "Subnet of new hosts", "1");
    let ((), code, seen) = session.end_in_home(|home| {
        let text = std::fs::read_to_string(home.join("conf/m8trx.toml")).unwrap();
        let mode = std::fs::metadata(home.join("conf/m8trx.toml"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(!text.contains("s3cr3t"));
        let mut settings = insta::Settings::clone_current();
        for (found, shown) in [
            (r"127\.0\.0\.1:\d+", "127.0.0.1:<port>"),
            (r#""/[^"]*/([a-z-]+)""#, r#""<folder>/$1""#),
            (r"subnet-[0-9a-f]+", "<subnet>"),
            (r#"client_id = "\w+""#, r#"client_id = "<id>""#),
        ] {
            settings.add_filter(found, shown);
        }
        settings.bind(|| insta::assert_snapshot!("written", text));
    });
    assert_eq!(code, 0, "{seen}");
    assert!(seen.contains("Next: m8trx doctor"), "{seen}");
}

#[test]
fn it_needs_a_terminal_and_leaves_a_file_alone() {
    let surroundings = Surroundings::new();
    let refused = surroundings.m8trx(&["init"]);
    assert!(
        refused.assert_code(2).stderr.contains("m8trx help config"),
        "{refused:?}"
    );
    let mut surroundings = Surroundings::new();
    let config = surroundings.file("config.toml", "[aws]\nregion = 'eu-central-1'\n");
    surroundings.set("M8TRX_CONFIG", config.to_str().unwrap());
    let session = Session::start(surroundings, &["init"]);
    let (code, seen) = session.end();
    assert_eq!(code, 3, "{seen}");
    assert!(seen.contains("--force"), "{seen}");
}
