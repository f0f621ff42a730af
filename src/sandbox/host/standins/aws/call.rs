//! Calls of AWS services: the instance profile's credentials, the signature, retries, and what errors say.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde_json::Value;

use super::super::https::{NoAnswer, post};
use super::{CONFIGURATION, Failure, OTHER, Options, REFUSED};
use crate::host::imds::Imds;

/// Two retries after the first try, as the CLI's standard mode has it.
const RETRIES: u32 = 2;

/// The CLI's own read timeout.
const LIMIT: Duration = Duration::from_secs(60);

/// Credentials of the instance profile.
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

pub(super) fn call(
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

pub(super) fn between(text: &str, tag: &str) -> Option<String> {
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
