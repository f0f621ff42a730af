//! What a customer's events come to.

use std::collections::BTreeMap;

use serde::Serialize;

use super::events::{
    BrainEvent, HEARTBEAT, SESSION_END, SESSION_START, SessionEnd, TOOL_CALL, When,
};

/// Events added up.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    heartbeats: u64,
    last_heartbeat: Option<BrainEvent>,
    sessions: Sessions,
    durations_ms: Vec<u64>,
    tools: BTreeMap<Option<String>, ToolUse>,
    others: u64,
}

/// What events come to.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Signs of life.
    pub heartbeats: u64,
    /// The last of them.
    pub last_heartbeat: Option<LastHeartbeat>,
    /// Sessions.
    pub sessions: Sessions,
    /// The tools, those with the most calls first.
    pub tools: Vec<ToolUse>,
    /// Events of other types.
    pub others: u64,
}

/// A heartbeat.
#[derive(Debug, Clone, Serialize)]
pub struct LastHeartbeat {
    /// When.
    pub ts: When,
    /// What the host calls itself, where it says.
    pub hostname: Option<String>,
}

/// Sessions added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Sessions {
    /// Those that began.
    pub started: u64,
    /// Those that ended.
    pub ended: u64,
    /// Those that ended well.
    pub ok: u64,
    /// Those that failed.
    pub failed: u64,
    /// Those whose end does not say which.
    pub unclear: u64,
    /// Of those that say how long they took.
    pub median_duration_ms: Option<u64>,
}

/// The calls of one tool added up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ToolUse {
    /// Its name; none where events do not say.
    pub tool_name: Option<String>,
    /// How often it was called.
    pub calls: u64,
    /// What it was given.
    pub input_bytes: u64,
    /// What it gave.
    pub output_bytes: u64,
    /// Calls that do not say both sizes.
    pub calls_without_size: u64,
}

impl Tally {
    /// Adds an event.
    pub fn add(&mut self, event: &BrainEvent) {
        match event.event_type.as_str() {
            HEARTBEAT => {
                self.heartbeats += 1;
                let newer = |last: &BrainEvent| last.ts.at() <= event.ts.at();
                if self.last_heartbeat.as_ref().is_none_or(newer) {
                    self.last_heartbeat = Some(event.clone());
                }
            }
            SESSION_START => self.sessions.started += 1,
            SESSION_END => {
                self.sessions.ended += 1;
                match event.session_end() {
                    SessionEnd::Ok => self.sessions.ok += 1,
                    SessionEnd::Failed => self.sessions.failed += 1,
                    SessionEnd::Unclear => self.sessions.unclear += 1,
                }
                self.durations_ms.extend(event.number("duration_ms"));
            }
            TOOL_CALL => {
                let name = event.text("tool_name");
                let tool = self.tools.entry(name.clone()).or_insert_with(|| ToolUse {
                    tool_name: name,
                    ..ToolUse::default()
                });
                tool.calls += 1;
                let (input, output) = (event.number("input_bytes"), event.number("output_bytes"));
                if input.is_none() || output.is_none() {
                    tool.calls_without_size += 1;
                }
                tool.input_bytes = tool.input_bytes.saturating_add(input.unwrap_or(0));
                tool.output_bytes = tool.output_bytes.saturating_add(output.unwrap_or(0));
            }
            _ => self.others += 1,
        }
    }

    /// What they come to.
    pub fn summary(&self) -> Summary {
        let mut durations = self.durations_ms.clone();
        durations.sort_unstable();
        let middle = durations.len() / 2;
        let median = match durations.len() {
            0 => None,
            count if count % 2 == 1 => Some(durations[middle]),
            _ => Some(durations[middle - 1].midpoint(durations[middle])),
        };
        let mut tools: Vec<ToolUse> = self.tools.values().cloned().collect();
        // Stable: tools that were called equally often stay in the order of their names.
        tools.sort_by_key(|tool| std::cmp::Reverse((tool.calls, tool.output_bytes)));
        Summary {
            heartbeats: self.heartbeats,
            last_heartbeat: self.last_heartbeat.as_ref().map(|event| LastHeartbeat {
                ts: event.ts.clone(),
                hostname: event.text("hostname"),
            }),
            sessions: Sessions {
                median_duration_ms: median,
                ..self.sessions
            },
            tools,
            others: self.others,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn tally(events: &[(&str, Value)]) -> Summary {
        let mut tally = Tally::default();
        for (second, (event_type, payload)) in events.iter().enumerate() {
            tally.add(&BrainEvent {
                ts: When::At(Timestamp::from_second(second as i64).unwrap()),
                event_type: (*event_type).to_owned(),
                payload: payload.clone(),
            });
        }
        tally.summary()
    }

    #[test]
    fn sessions_and_tools_are_added_up() {
        let end =
            |code: i64, ms: Value| (SESSION_END, json!({"exit_code": code, "duration_ms": ms}));
        let call = |name: &str, input: Value, output: Value| {
            (
                TOOL_CALL,
                json!({"tool_name": name, "input_bytes": input, "output_bytes": output}),
            )
        };
        let summary = tally(&[
            (SESSION_START, json!({})),
            end(0, json!(10)),
            end(1, json!(40)),
            end(0, json!(20)),
            end(0, json!("long")),
            end(0, json!(1000)),
            (SESSION_END, json!("what?")),
            call("bash", json!(1), json!(2)),
            call("bash", json!(3), json!(-4)),
            call("edit", json!(u64::MAX), json!(5)),
            call("edit", json!(u64::MAX), json!(5)),
            call("edit", json!(1), json!(5)),
            (TOOL_CALL, json!([])),
            (HEARTBEAT, json!({"hostname": "first"})),
            (HEARTBEAT, json!({"hostname": "last"})),
            ("disk_full", json!({})),
        ]);
        let expected = Sessions {
            started: 1,
            ended: 6,
            ok: 4,
            failed: 1,
            unclear: 1,
            median_duration_ms: Some(30),
        };
        assert_eq!(summary.sessions, expected);
        let tools: Vec<_> = summary
            .tools
            .iter()
            .map(|t| {
                (
                    t.tool_name.as_deref(),
                    t.calls,
                    t.input_bytes,
                    t.output_bytes,
                    t.calls_without_size,
                )
            })
            .collect();
        assert_eq!(
            tools,
            [
                (Some("edit"), 3, u64::MAX, 15, 0),
                (Some("bash"), 2, 4, 2, 1),
                (None, 1, 0, 0, 1)
            ]
        );
        assert_eq!((summary.heartbeats, summary.others), (2, 1));
        let last = summary.last_heartbeat.unwrap();
        assert_eq!(last.hostname.as_deref(), Some("last"));
    }

    #[test]
    fn nothing_comes_to_nothing() {
        let summary = tally(&[]);
        assert_eq!(summary.sessions, Sessions::default());
        assert!(summary.tools.is_empty() && summary.last_heartbeat.is_none());
    }
}
