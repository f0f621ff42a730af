//! The events of a customer: sessions, calls of tools, heartbeats. What they say comes from elsewhere and may be anything.

use std::fmt;

use jiff::Timestamp;
use reqwest::{Method, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::Brain;
use super::database::Database;
use super::{BrainError, client};
use crate::customer::CustomerId;
use crate::secret::BrainKey;

/// The start of a session of an agent.
pub const SESSION_START: &str = "session.start";
/// The end of one, with `status`, `exit_code` and `duration_ms`.
pub const SESSION_END: &str = "session.end";
/// A call of a tool, with `tool_name`, `input_bytes` and `output_bytes`.
pub const TOOL_CALL: &str = "tool_call";
/// A sign of life, with `hostname`.
pub const HEARTBEAT: &str = "heartbeat";
/// Every type of event that a host's feeds consist of.
pub const EVENT_TYPES: [&str; 4] = [HEARTBEAT, SESSION_START, SESSION_END, TOOL_CALL];

/// An event as the brain has it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BrainEvent {
    /// When it happened.
    pub ts: When,
    /// `heartbeat`, `tool_call`, …; as it came.
    pub event_type: String,
    /// What else it says; as it came.
    pub payload: Value,
}

/// A time, or what stood where one should.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum When {
    /// A time.
    At(Timestamp),
    /// Something else.
    Odd(Value),
}

impl When {
    /// The time, where there is one.
    pub fn at(&self) -> Option<Timestamp> {
        match self {
            Self::At(at) => Some(*at),
            Self::Odd(_) => None,
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(at) => at.fmt(f),
            Self::Odd(Value::String(text)) => write!(f, "({text})"),
            Self::Odd(odd) => write!(f, "({odd})"),
        }
    }
}

/// The newest events of a customer, newest first.
#[derive(Debug, Clone, PartialEq)]
pub struct Feed {
    /// The events.
    pub events: Vec<BrainEvent>,
    /// As many came as were asked for: there may be more that are older.
    pub cut_off: bool,
    /// The brain's clock.
    pub now: Timestamp,
}

impl Default for Feed {
    fn default() -> Self {
        Self {
            events: Vec::new(),
            cut_off: false,
            now: Timestamp::now(),
        }
    }
}

/// The clock of what answered: its `Date` header, or where it sends none, this machine's.
fn clock(answer: &Response) -> Timestamp {
    let date = answer.headers().get(reqwest::header::DATE);
    let parser = jiff::fmt::rfc2822::DateTimeParser::new();
    date.and_then(|date| parser.parse_timestamp(date.as_bytes()).ok())
        .unwrap_or_else(Timestamp::now)
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// Exit code 0, or a status that says so.
    Ok,
    /// Another exit code, or a status that says so.
    Failed,
    /// Neither can be told.
    Unclear,
}

const GOOD: [&str; 5] = ["ok", "success", "succeeded", "completed", "complete"];
const BAD: [&str; 9] = [
    "error", "errored", "failed", "failure", "fail", "crashed", "killed", "timeout", "aborted",
];

/// How a session ended, by the texts of `status` and `exit_code` in its event. A bad sign outweighs a good one.
pub fn session_end(status: Option<&str>, exit_code: Option<&str>) -> SessionEnd {
    let status = status.map(str::to_ascii_lowercase);
    let says = |words: &[&str]| status.as_deref().is_some_and(|s| words.contains(&s));
    let code = exit_code.and_then(|code| code.parse::<i64>().ok());
    if code.is_some_and(|code| code != 0) || says(&BAD) {
        SessionEnd::Failed
    } else if code == Some(0) || says(&GOOD) {
        SessionEnd::Ok
    } else {
        SessionEnd::Unclear
    }
}

impl BrainEvent {
    /// A member of the payload as text: a string as it is, anything else as JSON. What PostgreSQL's `->>` gives.
    pub fn text(&self, member: &str) -> Option<String> {
        match self.payload.get(member)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    /// A member of the payload that is a whole number of at least zero.
    pub fn number(&self, member: &str) -> Option<u64> {
        let value = self.payload.get(member)?;
        // Some senders write numbers as `12.0`.
        let whole = |float: f64| {
            (float >= 0.0 && float.fract() == 0.0 && float < 9.0e15).then_some(float as u64)
        };
        value.as_u64().or_else(|| whole(value.as_f64()?))
    }

    /// How the session ended whose end this event is.
    pub fn session_end(&self) -> SessionEnd {
        session_end(
            self.text("status").as_deref(),
            self.text("exit_code").as_deref(),
        )
    }
}

#[derive(Deserialize)]
struct Answer {
    events: Vec<Value>,
}

impl Brain {
    /// The newest events of one type at or after `since`, at most `limit`, asked with the customer's own key.
    ///
    /// A brain that ignores `event_type` or `since` is corrected; one that answers with another customer's event is an error.
    pub async fn events(
        &self,
        customer: &CustomerId,
        key: &BrainKey,
        event_type: &str,
        since: Timestamp,
        limit: usize,
    ) -> Result<Feed, BrainError> {
        const REQUEST: &str = "GET /v1/events";
        let query = [
            ("event_type", event_type.to_owned()),
            ("since", since.to_string()),
            ("limit", limit.to_string()),
        ];
        let answer = self
            .send(Method::GET, "/v1/events", Some(key.expose()), &query, None)
            .await?;
        let now = clock(&answer);
        let body = self.events_body(customer, answer).await?;
        let unexpected = |reason: String| BrainError::Unexpected {
            url: self.url().to_string(),
            request: REQUEST,
            reason,
        };
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|e| unexpected(format!("{} at line {}", client::category(&e), e.line())))?;
        let cut_off = answer.events.len() >= limit;
        let mut events = Vec::new();
        for record in answer.events {
            let Value::Object(mut record) = record else {
                return Err(unexpected("an event is not an object".to_owned()));
            };
            let of = record.get("customer_id").and_then(Value::as_str);
            if of != Some(customer.as_str()) {
                return Err(BrainError::OtherCustomer {
                    asked: customer.clone(),
                    answered: of.unwrap_or("nobody").escape_debug().to_string(),
                });
            }
            let kind = match record.remove("event_type") {
                Some(Value::String(kind)) => kind,
                other => other.unwrap_or(Value::Null).to_string(),
            };
            let ts = record.remove("ts").unwrap_or(Value::Null);
            let event = BrainEvent {
                ts: match ts.as_str().and_then(|text| text.parse().ok()) {
                    Some(at) => When::At(at),
                    None => When::Odd(ts),
                },
                event_type: kind,
                payload: record.remove("payload").unwrap_or(Value::Null),
            };
            let early = event.ts.at().is_some_and(|at| at < since);
            if event.event_type == event_type && !early {
                events.push(event);
            }
        }
        Ok(Feed {
            events,
            cut_off,
            now,
        })
    }
}

impl Database {
    /// The newest events at or after `since` of these types, or of every type; at most `limit` of each.
    pub async fn events(
        &self,
        customer: &CustomerId,
        types: Option<&[&str]>,
        since: Timestamp,
        limit: usize,
    ) -> Result<Feed, BrainError> {
        let query = "select event_type, case when ts < 'infinity' then ts end, payload::text from ( \
                       select *, row_number() over (partition by event_type order by ts desc) as place from events \
                       where customer_id = $1 and ts >= $2 and ($3::text[] is null or event_type = any($3)) \
                     ) newest where place <= $4 order by ts desc";
        let limit_as_number = i64::try_from(limit).unwrap_or(i64::MAX);
        let types: Option<Vec<&str>> = types.map(<[&str]>::to_vec);
        let since = super::database::system_time(since)?;
        let rows = self
            .query(
                query,
                &[&customer.as_str(), &since, &types, &limit_as_number],
            )
            .await?;
        let mut counts = std::collections::HashMap::<String, usize>::new();
        let mut events = Vec::new();
        for row in rows {
            let event_type: Option<String> = super::database::column(&row, 0)?;
            let event_type = event_type.unwrap_or_default();
            let ts: Option<std::time::SystemTime> = super::database::column(&row, 1)?;
            let payload: Option<String> = super::database::column(&row, 2)?;
            *counts.entry(event_type.clone()).or_default() += 1;
            events.push(BrainEvent {
                ts: match ts.and_then(|ts| Timestamp::try_from(ts).ok()) {
                    Some(at) => When::At(at),
                    None => When::Odd(Value::from("a time that cannot be represented")),
                },
                event_type,
                // Numbers that JSON allows and serde does not are shown as PostgreSQL writes them.
                payload: payload.map_or(Value::Null, |text| {
                    serde_json::from_str(&text).unwrap_or(Value::String(text))
                }),
            });
        }
        Ok(Feed {
            events,
            cut_off: counts.values().any(|count| *count >= limit),
            now: Timestamp::now(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_end_of_a_session_is_judged_by_what_it_says() {
        for (payload, end) in [
            (json!({"status": "ok", "exit_code": 0}), SessionEnd::Ok),
            (json!({"exit_code": "0"}), SessionEnd::Ok),
            (json!({"status": "Completed"}), SessionEnd::Ok),
            (
                json!({"status": "ok", "exit_code": 137}),
                SessionEnd::Failed,
            ),
            (
                json!({"status": "error", "exit_code": 0}),
                SessionEnd::Failed,
            ),
            (json!({"exit_code": -1}), SessionEnd::Failed),
            (json!({"status": "on fire"}), SessionEnd::Unclear),
            (
                json!({"status": null, "exit_code": [0]}),
                SessionEnd::Unclear,
            ),
            (json!("text"), SessionEnd::Unclear),
        ] {
            let event = BrainEvent {
                ts: When::At(Timestamp::UNIX_EPOCH),
                event_type: SESSION_END.to_owned(),
                payload: payload.clone(),
            };
            assert_eq!(event.session_end(), end, "{payload}");
        }
    }

    #[test]
    fn numbers_are_whole_and_not_negative() {
        let number = |value: Value| {
            BrainEvent {
                ts: When::Odd(Value::Null),
                event_type: String::new(),
                payload: json!({ "n": value }),
            }
            .number("n")
        };
        assert_eq!(number(json!(12)), Some(12));
        assert_eq!(number(json!(12.0)), Some(12));
        for odd in [
            json!(-1),
            json!(1.5),
            json!("12"),
            json!(1e300),
            json!(null),
        ] {
            assert_eq!(number(odd), None);
        }
    }
}
