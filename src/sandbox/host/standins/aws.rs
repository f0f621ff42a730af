//! `aws`: `ssm get-parameter` and `sts get-caller-identity`, with the credentials of the instance profile, signed, over TLS.
//! Checks, texts and exit codes are those of AWS CLI 2 (its user guide, "return codes": 252 usage, 253 configuration, 254 refused
//! by the service, 255 anything else).

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde_json::{Value, json};

use super::https::{NoAnswer, post};
use super::{err, out};
use crate::sandbox::host::imds::Imds;

const USAGE: i32 = 252;
const CONFIGURATION: i32 = 253;
const REFUSED: i32 = 254;
const OTHER: i32 = 255;

const SYNOPSIS: &str = "\nusage: aws [options] <command> <subcommand> [<subcommand> ...] [parameters]\nTo see help text, you can run:\n\n  aws help\n  aws <command> help\n  aws <command> <subcommand> help\n";

/// Two retries after the first try, as the CLI's standard mode has it.
const RETRIES: u32 = 2;
/// The CLI's own read timeout.
const LIMIT: Duration = Duration::from_secs(60);

/// A failure with its text and exit code.
#[derive(Debug, PartialEq, Eq)]
struct Failure(i32, String);

fn usage(text: impl AsRef<str>) -> Failure {
    Failure(USAGE, format!("{SYNOPSIS}\n{}", text.as_ref()))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    region: Option<String>,
    query: Option<String>,
    output: Option<String>,
    name: Option<String>,
    with_decryption: bool,
    command: Vec<String>,
}

fn parse(arguments: &[String]) -> Result<Options, Failure> {
    let mut options = Options::default();
    let mut unknown = Vec::new();
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let (name, inline) = argument
            .split_once('=')
            .map_or((argument.as_str(), None), |(name, value)| {
                (name, Some(value.to_owned()))
            });
        let mut value = || {
            let value = inline.clone().or_else(|| arguments.next().cloned());
            value.ok_or_else(|| {
                usage(format!(
                    "aws: error: argument {name}: expected one argument"
                ))
            })
        };
        match name {
            "--region" => options.region = Some(value()?),
            "--query" => options.query = Some(value()?),
            "--output" => options.output = Some(value()?),
            "--name" => options.name = Some(value()?),
            "--cli-connect-timeout" | "--cli-read-timeout" | "--color" | "--ca-bundle" => {
                drop(value()?)
            }
            "--with-decryption" => options.with_decryption = true,
            "--no-with-decryption" => options.with_decryption = false,
            "--no-cli-pager"
            | "--no-paginate"
            | "--no-cli-auto-prompt"
            | "--no-verify-ssl"
            | "--debug" => {}
            "--version" => options.command.insert(0, "--version".to_owned()),
            "--profile" => {
                let profile = value()?;
                return Err(Failure(
                    OTHER,
                    format!("\nThe config profile ({profile}) could not be found"),
                ));
            }
            "--endpoint-url" => {
                return Err(Failure(
                    OTHER,
                    "\nThe sandbox's aws always asks the real names; it has no --endpoint-url"
                        .into(),
                ));
            }
            _ if name.starts_with("--") => unknown.push(argument.clone()),
            _ if options.command.len() < 2 => options.command.push(argument.clone()),
            _ => unknown.push(argument.clone()),
        }
    }
    if !unknown.is_empty() {
        return Err(usage(format!("Unknown options: {}", unknown.join(", "))));
    }
    if let Some(output) = &options.output
        && !["json", "text"].contains(&output.as_str())
    {
        if ["table", "yaml", "yaml-stream"].contains(&output.as_str()) {
            return Err(usage(format!("The sandbox's aws has no --output {output}")));
        }
        return Err(usage(
            "aws: error: argument --output: Invalid choice, valid choices are:\n\njson                                     | text                                    \ntable                                    | yaml                                    \nyaml-stream                              | off",
        ));
    }
    Ok(options)
}

/// Runs `aws`.
pub(super) fn run(arguments: &[String]) -> i32 {
    match parse(arguments).and_then(|options| execute(&options)) {
        Ok(text) => {
            out(text);
            0
        }
        Err(Failure(code, text)) => {
            err(text);
            code
        }
    }
}

fn execute(options: &Options) -> Result<String, Failure> {
    let command: Vec<_> = options.command.iter().map(String::as_str).collect();
    let answer = match command.as_slice() {
        ["--version", ..] => {
            return Ok(format!(
                "aws-cli/2.9.19 Python/3.11.2 Linux/6.8.0-1029-aws source/{}.ubuntu.22 prompt/off",
                std::env::consts::ARCH
            ));
        }
        ["ssm", "get-parameter"] => {
            let Some(name) = &options.name else {
                return Err(usage(
                    "aws: error: the following arguments are required: --name",
                ));
            };
            let body = json!({"Name": name, "WithDecryption": options.with_decryption}).to_string();
            let headers = vec![
                (
                    "content-type".to_owned(),
                    "application/x-amz-json-1.1".to_owned(),
                ),
                (
                    "x-amz-target".to_owned(),
                    "AmazonSSM.GetParameter".to_owned(),
                ),
            ];
            let text = call(options, "ssm", "GetParameter", headers, body)?;
            serde_json::from_str(&text)
                .map_err(|error| Failure(OTHER, format!("\nUnable to parse response: {error}")))?
        }
        ["sts", "get-caller-identity"] => {
            let body = "Action=GetCallerIdentity&Version=2011-06-15".to_owned();
            let headers = vec![(
                "content-type".to_owned(),
                "application/x-www-form-urlencoded; charset=utf-8".to_owned(),
            )];
            let text = call(options, "sts", "GetCallerIdentity", headers, body)?;
            let field = |name| between(&text, name).map(Value::from).unwrap_or_default();
            json!({"UserId": field("UserId"), "Account": field("Account"), "Arn": field("Arn")})
        }
        [] | ["ssm" | "sts"] => {
            return Err(usage(
                "aws: error: the following arguments are required: command",
            ));
        }
        ["ssm" | "sts", other] => {
            return Err(usage(format!(
                "aws: error: argument operation: Invalid choice: '{other}' (the sandbox's aws knows ssm get-parameter and sts get-caller-identity)"
            )));
        }
        [other, ..] => {
            return Err(usage(format!(
                "aws: error: argument command: Invalid choice: '{other}' (the sandbox's aws knows ssm get-parameter and sts get-caller-identity)"
            )));
        }
    };
    let answer = match &options.query {
        Some(query) => select(answer, query)?,
        None => answer,
    };
    render(&answer, options.output.as_deref() == Some("text"))
}

/// A path of names, the part of JMESPath that scripts use.
fn select(mut value: Value, query: &str) -> Result<Value, Failure> {
    for name in query.split('.') {
        let name = name.trim_matches('"');
        if name.is_empty()
            || !name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        {
            return Err(Failure(
                USAGE,
                format!(
                    "\nBad value for --query {query}: the sandbox's aws knows only names joined by dots"
                ),
            ));
        }
        value = value.get_mut(name).map(Value::take).unwrap_or_default();
    }
    Ok(value)
}

fn render(value: &Value, text: bool) -> Result<String, Failure> {
    if !text {
        let mut rendered = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut rendered, formatter);
        serde::Serialize::serialize(value, &mut serializer)
            .map_err(|error| Failure(OTHER, error.to_string()))?;
        return Ok(String::from_utf8_lossy(&rendered).into_owned());
    }
    Ok(match value {
        Value::Null => "None".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Object(fields) => {
            let values = fields
                .values()
                .map(|value| render(value, true))
                .collect::<Result<Vec<_>, _>>()?;
            values.join("\t")
        }
        Value::Array(items) => {
            let values = items
                .iter()
                .map(|value| render(value, true))
                .collect::<Result<Vec<_>, _>>()?;
            values.join("\t")
        }
    })
}

/// Credentials of the instance profile; the second is the region the instance is in.
fn instance_credentials() -> Option<Credentials> {
    let imds = Imds::connect().ok()?;
    let folder = "/latest/meta-data/iam/security-credentials/";
    let role = imds.get(folder).ok()?.text()?;
    let text = imds.get(&format!("{folder}{}", role.trim())).ok()?.text()?;
    let answer: Value = serde_json::from_str(&text).ok()?;
    let field = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
    Some(Credentials::new(
        field("AccessKeyId")?,
        field("SecretAccessKey")?,
        Some(field("Token")?),
        None,
        "instance profile",
    ))
}

fn call(
    options: &Options,
    service: &str,
    operation: &str,
    headers: Vec<(String, String)>,
    body: String,
) -> Result<String, Failure> {
    let region = options.region.clone();
    let region = region
        .or_else(|| std::env::var("AWS_REGION").ok())
        .or_else(|| std::env::var("AWS_DEFAULT_REGION").ok());
    let region = region.filter(|region| !region.is_empty()).ok_or_else(|| {
        Failure(CONFIGURATION, "\nYou must specify a region. You can also configure your region by running \"aws configure\".".into())
    })?;
    if !region
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    {
        return Err(Failure(
            OTHER,
            format!("\nProvided region_name '{region}' doesn't match a supported format."),
        ));
    }
    let credentials = instance_credentials().ok_or_else(|| {
        Failure(CONFIGURATION, "\nUnable to locate credentials. You can configure credentials by running \"aws configure\".".into())
    })?;
    let url = format!("https://{service}.{region}.amazonaws.com/");
    let mut tries = 0;
    loop {
        let signed = signed(&url, service, &region, &credentials, &headers, &body)
            .map_err(|error| Failure(OTHER, format!("\n{error}")))?;
        let (status, text) = match post(&url, signed, body.clone(), LIMIT) {
            Ok(answer) => answer,
            Err(_) if tries < RETRIES => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(300));
                continue;
            }
            Err(NoAnswer::Certificate) => {
                return Err(Failure(
                    OTHER,
                    format!(
                        "\nSSL validation failed for {url} [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local issuer certificate (_ssl.c:992)"
                    ),
                ));
            }
            Err(NoAnswer::TimedOut) => {
                return Err(Failure(
                    OTHER,
                    format!("\nRead timeout on endpoint URL: \"{url}\""),
                ));
            }
            Err(NoAnswer::Name | NoAnswer::Connect) => {
                return Err(Failure(
                    OTHER,
                    format!("\nCould not connect to the endpoint URL: \"{url}\""),
                ));
            }
        };
        if status == 200 {
            return Ok(text);
        }
        let (code, message) = error_of(&text, status);
        let again = matches!(
            code.as_str(),
            "ThrottlingException" | "Throttling" | "RequestLimitExceeded"
        ) || status >= 500;
        if again && tries < RETRIES {
            tries += 1;
            std::thread::sleep(Duration::from_millis(500) * tries);
            continue;
        }
        let retried = if again {
            format!(" (reached max retries: {RETRIES})")
        } else {
            String::new()
        };
        return Err(Failure(
            REFUSED,
            format!(
                "\nAn error occurred ({code}) when calling the {operation} operation{retried}: {message}"
            ),
        ));
    }
}

/// All headers of a request, with its signature.
fn signed(
    url: &str,
    service: &str,
    region: &str,
    credentials: &Credentials,
    headers: &[(String, String)],
    body: &str,
) -> Result<Vec<(String, String)>, String> {
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(SystemTime::now())
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| error.to_string())?
        .into();
    let pairs = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let request = SignableRequest::new("POST", url, pairs, SignableBody::Bytes(body.as_bytes()))
        .map_err(|error| error.to_string())?;
    let (instructions, _) = sign(request, &parameters)
        .map_err(|error| error.to_string())?
        .into_parts();
    let added = instructions
        .headers()
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(headers.iter().cloned().chain(added).collect())
}

/// Code and message of a service's error, in JSON or XML.
fn error_of(text: &str, status: u16) -> (String, String) {
    if let Ok(answer) = serde_json::from_str::<Value>(text) {
        let field = |name: &str| answer.get(name).and_then(Value::as_str);
        let code = field("__type").unwrap_or("UnknownError");
        // The type may carry a namespace: `com.amazonaws.ssm#ParameterNotFound`.
        let code = code.rsplit('#').next().unwrap_or(code);
        let message = field("message").or(field("Message")).unwrap_or_default();
        return (code.to_owned(), message.to_owned());
    }
    match between(text, "Code") {
        Some(code) => (code, between(text, "Message").unwrap_or_default()),
        None => (status.to_string(), "Unknown".to_owned()),
    }
}

fn between(text: &str, tag: &str) -> Option<String> {
    let start = text.split_once(&format!("<{tag}>"))?.1;
    let inner = start.split_once(&format!("</{tag}>"))?.0;
    Some(
        inner
            .replace("&lt;", "<")
            .replace("&gt;", ">")
            .replace("&quot;", "\"")
            .replace("&apos;", "'")
            .replace("&amp;", "&"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_bootstraps_own_call_is_understood() {
        let line = "ssm get-parameter --region eu-central-1 --name /m8trx/brain-url --with-decryption --query Parameter.Value --output text";
        let options = parse(&words(line)).unwrap();
        assert_eq!(options.command, ["ssm", "get-parameter"]);
        assert_eq!(options.name.as_deref(), Some("/m8trx/brain-url"));
        assert!(options.with_decryption);
        let answer = json!({"Parameter": {"Value": "http://x", "Version": 1}});
        let value = select(answer, options.query.as_deref().unwrap()).unwrap();
        assert_eq!(render(&value, true).unwrap(), "http://x");
    }

    #[test]
    fn mistakes_are_usage_errors() {
        let code = |line: &str| {
            parse(&words(line))
                .and_then(|options| execute(&options))
                .unwrap_err()
        };
        let unknown = code("ssm get-parameter --name x --decrypt");
        assert_eq!(unknown.0, USAGE);
        assert!(
            unknown.1.ends_with("\nUnknown options: --decrypt"),
            "{}",
            unknown.1
        );
        assert!(
            code("ssm get-parameter")
                .1
                .ends_with("the following arguments are required: --name")
        );
        assert!(
            code("ssm get-parameter --name")
                .1
                .contains("argument --name: expected one argument")
        );
        assert_eq!(code("s3 ls").0, USAGE);
        assert_eq!(code("ssm get-parameter --name x --output xml").0, USAGE);
    }

    #[test]
    fn errors_of_both_kinds_of_service_are_read() {
        let json = error_of(
            r#"{"__type":"com.amazonaws.ssm#ParameterNotFound","message":""}"#,
            400,
        );
        assert_eq!(json, ("ParameterNotFound".to_owned(), String::new()));
        let denied = error_of(
            r#"{"__type":"AccessDeniedException","Message":"User: x is not authorized"}"#,
            400,
        );
        assert_eq!(denied.1, "User: x is not authorized");
        let xml = error_of(
            "<ErrorResponse><Error><Code>AccessDenied</Code><Message>a &amp; b</Message></Error></ErrorResponse>",
            403,
        );
        assert_eq!(xml, ("AccessDenied".to_owned(), "a & b".to_owned()));
    }

    #[test]
    fn a_missing_value_is_none() {
        assert_eq!(
            render(&select(json!({}), "Parameter.Value").unwrap(), true).unwrap(),
            "None"
        );
        assert_eq!(
            render(&json!({"a": 1}), false).unwrap(),
            "{\n    \"a\": 1\n}"
        );
        assert!(select(json!({}), "Parameters[0]").is_err());
    }

    #[test]
    fn requests_carry_signature_and_session_token() {
        let credentials = Credentials::new("AKID", "secret", Some("session".into()), None, "test");
        let headers = [(
            "content-type".to_owned(),
            "application/x-amz-json-1.1".to_owned(),
        )];
        let signed = signed(
            "https://ssm.eu-central-1.amazonaws.com/",
            "ssm",
            "eu-central-1",
            &credentials,
            &headers,
            "{}",
        )
        .unwrap();
        let header = |name: &str| {
            signed
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        assert!(
            header("authorization")
                .unwrap()
                .contains("/eu-central-1/ssm/aws4_request")
        );
        assert_eq!(header("x-amz-security-token"), Some("session"));
        assert!(signed.iter().all(|(_, value)| !value.contains("secret")));
    }
}
