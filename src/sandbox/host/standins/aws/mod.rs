//! `aws`: `ssm get-parameter` and `sts get-caller-identity`, with the credentials of the instance profile, signed, over TLS.
//! Checks, texts and exit codes are those of AWS CLI 2 (its user guide, "return codes": 252 usage, 253 configuration, 254 refused
//! by the service, 255 anything else).

mod call;

use serde_json::{Value, json};

use super::{err, out};
use call::{between, call};

const USAGE: i32 = 252;
const CONFIGURATION: i32 = 253;
const REFUSED: i32 = 254;
const OTHER: i32 = 255;

const SYNOPSIS: &str = "\nusage: aws [options] <command> <subcommand> [<subcommand> ...] [parameters]\nTo see help text, you can run:\n\n  aws help\n  aws <command> help\n  aws <command> <subcommand> help\n";

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
}
