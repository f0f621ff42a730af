//! The reference of the commands that do one step each.

use crate::common::Surroundings;

#[test]
fn the_reference_of_single_steps() {
    let surroundings = Surroundings::new();
    for (name, arguments) in [
        ("params_put", vec!["params", "put", "--help"]),
        ("mint_key", vec!["mint-key", "--help"]),
        (
            "iam_operator_policy",
            vec!["iam", "operator-policy", "--help"],
        ),
        ("launch", vec!["launch", "--help"]),
        ("wait", vec!["wait", "--help"]),
        ("brain_url_set", vec!["brain-url", "set", "--help"]),
    ] {
        let ended = surroundings.m8trx(&arguments);
        let help = ended.assert_code(0).stdout.clone();
        // What every command takes is in the reference of the whole.
        let (own, _) = help.split_once("Global options:").unwrap();
        insta::assert_snapshot!(name, own.trim_end());
    }
}
