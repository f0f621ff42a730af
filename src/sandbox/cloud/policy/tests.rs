use super::*;

const ARN: &str = "arn:aws:ssm:us-east-1:123456789012:parameter/m8trx";

fn document(statements: &str) -> Document {
    let text = format!(r#"{{"Version":"2012-10-17","Statement":{statements}}}"#);
    Document::parse(&text, Kind::Identity).unwrap()
}

fn verdict(statements: &str, action: &str, resource: &str, tags: &[(&str, &str)]) -> Verdict {
    let mut context = Context::default();
    for (key, value) in tags {
        context.set(key, *value);
    }
    evaluate([&document(statements)], action, resource, &context)
}

#[test]
fn wildcards() {
    for (pattern, text, matches) in [
        ("*", "", true),
        ("a*c", "abbbc", true),
        ("a*c", "abbb", false),
        ("a?c", "abc", true),
        ("a?c", "ac", false),
        ("*ab*ab", "abxabab", true),
        ("a*", "a/b/c", true),
        ("", "a", false),
    ] {
        assert_eq!(
            Pattern::plain(pattern).matches(text),
            matches,
            "{pattern} {text}"
        );
    }
}

#[test]
fn default_is_silence_and_deny_wins() {
    let allow = r#"[{"Effect":"Allow","Action":"ssm:Get*","Resource":"*"}]"#;
    assert_eq!(
        verdict(allow, "ssm:GetParameter", ARN, &[]),
        Verdict::Allowed
    );
    assert_eq!(
        verdict(allow, "SSM:getparameter", ARN, &[]),
        Verdict::Allowed
    );
    assert_eq!(
        verdict(allow, "ssm:PutParameter", ARN, &[]),
        Verdict::Silent
    );
    let both = r#"[{"Effect":"Allow","Action":"*","Resource":"*"},
        {"Effect":"Deny","NotAction":"ssm:GetParameter","Resource":"*"}]"#;
    assert_eq!(
        verdict(both, "ssm:GetParameter", ARN, &[]),
        Verdict::Allowed
    );
    assert_eq!(verdict(both, "ssm:PutParameter", ARN, &[]), Verdict::Denied);
    let not = format!(
        r#"{{"Effect":"Allow","Action":["ssm:GetParameter"],"NotResource":"{ARN}/secret/*"}}"#
    );
    assert_eq!(
        verdict(&not, "ssm:GetParameter", &format!("{ARN}/open"), &[]),
        Verdict::Allowed
    );
    assert_eq!(
        verdict(&not, "ssm:GetParameter", &format!("{ARN}/secret/x"), &[]),
        Verdict::Silent
    );
}

#[test]
fn a_variable_is_one_value_and_unset_matches_nothing() {
    let statement = format!(
        r#"{{"Effect":"Allow","Action":"ssm:GetParameter","Resource":"{ARN}/${{aws:PrincipalTag/Customer}}/*"}}"#
    );
    let key = format!("{ARN}/cust_acme/brain-key");
    let ask = |tags: &[(&str, &str)]| verdict(&statement, "ssm:GetParameter", &key, tags);
    assert_eq!(
        ask(&[("aws:PrincipalTag/Customer", "cust_acme")]),
        Verdict::Allowed
    );
    assert_eq!(
        ask(&[("aws:PrincipalTag/Customer", "cust_bigco")]),
        Verdict::Silent
    );
    // A wildcard in a tag's value is a plain character.
    assert_eq!(ask(&[("aws:PrincipalTag/Customer", "*")]), Verdict::Silent);
    assert_eq!(ask(&[]), Verdict::Silent);
    let default = statement.replace("Customer}", "Customer, 'cust_acme'}");
    assert_eq!(
        verdict(&default, "ssm:GetParameter", &key, &[]),
        Verdict::Allowed
    );
}

#[test]
fn conditions() {
    for (operator, wanted, present, holds) in [
        ("StringEquals", r#""a""#, Some("a"), true),
        ("StringEquals", r#"["b","a"]"#, Some("a"), true),
        ("StringEquals", r#""*""#, Some("a"), false),
        ("StringEquals", r#""a""#, None, false),
        ("StringEqualsIfExists", r#""a""#, None, true),
        ("StringEqualsIfExists", r#""a""#, Some("b"), false),
        ("StringNotEquals", r#""a""#, Some("a"), false),
        ("StringNotEquals", r#"["a","b"]"#, Some("b"), false),
        ("StringNotEquals", r#""a""#, None, true),
        ("StringLike", r#""cust_*""#, Some("cust_acme"), true),
        ("StringNotLike", r#""cust_*""#, Some("cust_acme"), false),
        ("StringEqualsIgnoreCase", r#""A""#, Some("a"), true),
        ("ArnLike", r#""arn:*:x""#, Some("arn:aws:x"), true),
        ("Bool", "true", Some("true"), true),
        ("Null", "true", None, true),
        ("Null", "true", Some("a"), false),
        ("Null", "false", Some("a"), true),
        ("ForAllValues:StringEquals", r#"["a","b"]"#, Some("a"), true),
        ("ForAnyValue:StringEquals", r#""a""#, None, false),
        // Not evaluated by the sandbox: fails closed.
        ("DateLessThan", r#""2030-01-01""#, Some("2020-01-01"), false),
    ] {
        let statement = format!(
            r#"{{"Effect":"Allow","Action":"*","Resource":"*","Condition":{{"{operator}":{{"aws:ResourceTag/Customer":{wanted}}}}}}}"#
        );
        let tags: Vec<(&str, &str)> = present
            .map(|value| ("aws:resourcetag/Customer", value))
            .into_iter()
            .collect();
        let expected = if holds {
            Verdict::Allowed
        } else {
            Verdict::Silent
        };
        assert_eq!(
            verdict(&statement, "ec2:TerminateInstances", "*", &tags),
            expected,
            "{operator} {wanted} {present:?}"
        );
    }
}

#[test]
fn malformed_documents_are_refused() {
    for (text, reason) in [
        ("", "invalid Json"),
        ("{}", "Syntax errors"),
        (r#"{"Version":"2020-01-01","Statement":[]}"#, "version"),
        (r#"{"Statement":[]}"#, "Syntax errors"),
        (
            r#"{"Statement":{"Effect":"allow","Action":"*","Resource":"*"}}"#,
            "Syntax errors",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"*"}}"#,
            "must contain resources",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Resource":"*"}}"#,
            "must contain actions",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"GetParameter","Resource":"*"}}"#,
            "prefaced by a vendor",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"/m8trx/x"}}"#,
            "ARN format",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}}"#,
            "should not specify a principal",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Sid":"a b"}}"#,
            "alpha-numeric",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"StringEqual":{"aws:x":"y"}}}}"#,
            "Invalid Condition type",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Actions":"*","Resource":"*"}}"#,
            "Syntax errors",
        ),
    ] {
        let error = Document::parse(text, Kind::Identity).unwrap_err();
        assert!(error.to_string().contains(reason), "{text}: {error}");
    }
    for (text, reason) in [
        (
            r#"{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}"#,
            "Principal",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Service":"ec2"}}}"#,
            "Invalid principal",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"s3:Get","Principal":{"Service":"ec2.amazonaws.com"}}}"#,
            "AssumeRole",
        ),
        (
            r#"{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*","Resource":"*"}}"#,
            "prohibited field",
        ),
    ] {
        let error = Document::parse(text, Kind::Trust).unwrap_err();
        assert!(error.to_string().contains(reason), "{text}: {error}");
    }
}

#[test]
fn trust() {
    let parse = |text: &str| Document::parse(text, Kind::Trust).unwrap();
    let ec2 = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}"#;
    assert!(trusts_service(&parse(ec2), "ec2.amazonaws.com"));
    assert!(!trusts_service(&parse(ec2), "lambda.amazonaws.com"));
    let account = ec2.replace(
        r#""Service":"ec2.amazonaws.com""#,
        r#""AWS":"arn:aws:iam::123456789012:root""#,
    );
    assert!(!trusts_service(&parse(&account), "ec2.amazonaws.com"));
}

#[test]
fn a_policy_of_parameter_paths_reads_these_and_nothing_else() {
    let document = Document::parse(
        r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ssm:GetParameter","Resource":[
        "arn:aws:ssm:*:*:parameter/m8trx/brain-url","arn:aws:ssm:*:*:parameter/m8trx/*/brain-key"]}]}"#,
        Kind::Identity,
    )
    .unwrap();
    let ask = |action: &str, name: &str| {
        evaluate(
            [&document],
            action,
            &format!("{ARN}/{name}"),
            &Context::default(),
        )
    };
    assert_eq!(ask("ssm:GetParameter", "brain-url"), Verdict::Allowed);
    assert_eq!(
        ask("ssm:GetParameter", "cust_acme/brain-key"),
        Verdict::Allowed
    );
    assert_eq!(ask("ssm:GetParameter", "cust_acme/other"), Verdict::Silent);
    assert_eq!(ask("ssm:GetParameters", "brain-url"), Verdict::Silent);
}
