//! From an HTTP request to a service's handler, and back.

use http::{HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;

use super::call::Call;
use super::error::{ApiError, Service};
use super::identity::{self, Caller};
use super::ledger::{self, RecordedCall};
use super::query::Params;
use super::signature::Authorization;
use super::xml::Xml;
use super::{Cloud, DEFAULT_REGION, ec2, iam, ssm, sts};
use crate::fault::Fault;
use crate::http::{Request, Response, header, json, response};
use crate::random;

/// A bootstrap reads three parameters at the same time, and its `aws` tries each three times before it gives up.
const HOST_CALLS_THROTTLED: u64 = 9;

const SSM_TARGET: &str = "AmazonSSM.";

/// What a request asks for, before anything about it is trusted.
struct Asked {
    service: Service,
    region: String,
    action: String,
    params: Params,
    authorization: Option<Authorization>,
}

impl Cloud {
    /// Answers one request.
    pub(super) async fn answer(&self, request: Request) -> Response {
        if request.uri().path() == "/_sandbox/calls" && request.method() == Method::GET {
            let calls = serde_json::json!({ "calls": self.calls() });
            return json(StatusCode::OK, &calls);
        }
        if let Some(latency) = self.0.settings.latency {
            tokio::time::sleep(latency).await;
        }
        let request_id = random::uuid();
        let asked = match Asked::read(&request) {
            Ok(asked) => asked,
            Err((service, error)) => return render(service, "", &request_id, Err(error)),
        };
        let (identity, outcome) = self.handle(&asked, &request);
        let error = outcome.as_ref().err();
        self.0.ledger.record(RecordedCall {
            at: Timestamp::now(),
            service: asked.service.name(),
            action: asked.action.clone(),
            region: asked.region.clone(),
            identity: identity.map(|caller| caller.arn()),
            allowed: !error.is_some_and(ApiError::is_refusal),
            mutating: ledger::is_mutating(&asked.action)
                && !matches!(asked.params.get("DryRun"), Some("true" | "True")),
            error: error.map(|error| error.code),
        });
        render(asked.service, &asked.action, &request_id, outcome)
    }

    fn handle(
        &self,
        asked: &Asked,
        request: &Request,
    ) -> (Option<Caller>, Result<String, ApiError>) {
        let now = Timestamp::now();
        let service = asked.service;
        let mut state = self.state();
        let caller = match &asked.authorization {
            None => return (None, Err(ApiError::unsigned(service))),
            Some(authorization) => {
                match identity::authenticate(&state, service, authorization, request, now) {
                    Ok(caller) => caller,
                    Err(error) => return (None, Err(error)),
                }
            }
        };
        if self.has_fault(Fault::Throttling) {
            let who = if caller.is_host() { "host" } else { "operator" };
            let count = state
                .counts
                .entry((service.name(), format!("{who} {}", asked.action)))
                .or_default();
            *count += 1;
            // Whoever tries again gets through: the operator's SDK at once, a host in its second round.
            let throttled = if caller.is_host() {
                service == Service::Ssm && *count <= HOST_CALLS_THROTTLED
            } else {
                *count % 2 == 1
            };
            if throttled {
                return (Some(caller), Err(ApiError::throttled(service)));
            }
        }
        if let Caller::Host { role, .. } = &caller
            && let Some(role) = state.iam.roles.get_mut(role)
        {
            role.last_used = Some((now, asked.region.clone()));
        }
        let mut call = Call {
            state: &mut state,
            settings: &self.0.settings,
            service,
            region: asked.region.clone(),
            caller: caller.clone(),
            now,
        };
        let outcome = match service {
            Service::Ssm => ssm_body(request)
                .and_then(|body| ssm::handle(&mut call, &asked.action, &body))
                .map(|answer| answer.to_string()),
            Service::Iam => {
                iam::handle(&mut call, &asked.action, &asked.params).map(Xml::into_string)
            }
            Service::Sts => {
                sts::handle(&mut call, &asked.action, &asked.params).map(Xml::into_string)
            }
            Service::Ec2 => {
                ec2::handle(&mut call, &asked.action, &asked.params).map(Xml::into_string)
            }
        };
        (Some(caller), outcome)
    }
}

impl Asked {
    fn read(request: &Request) -> Result<Self, (Service, ApiError)> {
        let target = header(request, "x-amz-target");
        let params = if target.is_none() {
            Params::parse(request.body())
        } else {
            Params::default()
        };
        // Only for the form of an error answer, when the signature names no service.
        let guessed = match (target, params.get("Version")) {
            (Some(_), _) => Service::Ssm,
            (None, Some("2010-05-08")) => Service::Iam,
            (None, Some("2011-06-15")) => Service::Sts,
            (None, _) => Service::Ec2,
        };
        if request.method() != Method::POST {
            let error = ApiError::with_status(
                StatusCode::METHOD_NOT_ALLOWED,
                "UnsupportedOperation",
                "the sandbox takes POST requests only, as the AWS SDKs and the aws CLI send them",
            );
            return Err((guessed, error));
        }
        let authorization = match header(request, "authorization") {
            None => None,
            Some(text) => Some(Authorization::parse(text).ok_or_else(|| {
                let error = ApiError::new(
                    "IncompleteSignature",
                    "the Authorization header is not a complete AWS4-HMAC-SHA256 signature",
                );
                (guessed, error)
            })?),
        };
        let (service, region) = match &authorization {
            None => (guessed, DEFAULT_REGION.to_owned()),
            Some(authorization) => {
                let service = Service::from_name(&authorization.service).ok_or_else(|| {
                    let error = ApiError::new(
                        "UnknownService",
                        format!(
                            "the sandbox has no service `{}`; it has ssm, iam, sts and ec2",
                            authorization.service.escape_debug()
                        ),
                    );
                    (guessed, error)
                })?;
                (service, authorization.region.clone())
            }
        };
        if !ec2::REGIONS.contains(&region.as_str()) {
            let message = format!(
                "Credential should be scoped to a valid region, not '{}'. ",
                region.escape_debug()
            );
            return Err((service, ApiError::signature(service, message)));
        }
        let action = match service {
            Service::Ssm => target.and_then(|target| target.strip_prefix(SSM_TARGET)),
            _ => params.get("Action"),
        };
        Ok(Self {
            service,
            region,
            action: action.unwrap_or_default().to_owned(),
            params,
            authorization,
        })
    }
}

fn ssm_body(request: &Request) -> Result<Value, ApiError> {
    match serde_json::from_slice(request.body()) {
        Ok(value @ Value::Object(_)) => Ok(value),
        _ => Err(ApiError::new(
            "SerializationException",
            "the request's body is not a JSON object",
        )),
    }
}

fn render(
    service: Service,
    action: &str,
    request_id: &str,
    outcome: Result<String, ApiError>,
) -> Response {
    let status = match &outcome {
        Ok(_) => StatusCode::OK,
        Err(error) => error.status,
    };
    let (content_type, body) = match service {
        Service::Ssm => (
            "application/x-amz-json-1.1",
            outcome.unwrap_or_else(|error| {
                serde_json::json!({"__type": error.code, "message": error.message}).to_string()
            }),
        ),
        Service::Iam | Service::Sts => {
            let namespace = match service {
                Service::Iam => "https://iam.amazonaws.com/doc/2010-05-08/",
                _ => "https://sts.amazonaws.com/doc/2011-06-15/",
            };
            (
                "text/xml",
                query_body(namespace, action, request_id, outcome),
            )
        }
        Service::Ec2 => (
            "text/xml;charset=UTF-8",
            ec2_body(action, request_id, outcome),
        ),
    };
    let mut answer = response(status, content_type, body);
    if let Ok(value) = HeaderValue::from_str(request_id) {
        answer.headers_mut().insert("x-amzn-requestid", value);
    }
    answer
}

fn query_body(
    namespace: &str,
    action: &str,
    request_id: &str,
    outcome: Result<String, ApiError>,
) -> String {
    match outcome {
        Ok(result) => format!(
            "<{action}Response xmlns=\"{namespace}\"><{action}Result>{result}</{action}Result>\
             <ResponseMetadata><RequestId>{request_id}</RequestId></ResponseMetadata></{action}Response>"
        ),
        Err(error) => {
            let mut xml = Xml::default();
            xml.element(&format!("ErrorResponse xmlns=\"{namespace}\""), |xml| {
                xml.element("Error", |xml| {
                    xml.text("Type", "Sender")
                        .text("Code", error.code)
                        .text("Message", &error.message);
                })
                .text("RequestId", request_id);
            });
            xml.into_string()
        }
    }
}

fn ec2_body(action: &str, request_id: &str, outcome: Result<String, ApiError>) -> String {
    const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
    match outcome {
        Ok(result) => format!(
            "{DECLARATION}<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
             <requestId>{request_id}</requestId>{result}</{action}Response>"
        ),
        Err(error) => {
            let mut xml = Xml::default();
            xml.element("Response", |xml| {
                xml.element("Errors", |xml| {
                    xml.element("Error", |xml| {
                        xml.text("Code", error.code).text("Message", &error.message);
                    });
                })
                .text("RequestID", request_id);
            });
            DECLARATION.to_owned() + &xml.into_string()
        }
    }
}
