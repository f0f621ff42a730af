//! What hosts did lately: the last heartbeat, and the sessions and calls of tools of the last hour.

use std::collections::HashMap;
use std::time::SystemTime;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::BrainError;
use super::client::Brain;
use super::database::{Database, column, system_time};
use super::events::{SESSION_END, SESSION_START, SessionEnd, TOOL_CALL, session_end};
use super::heartbeat::{Bootstrap, Heartbeat, Heartbeats, Host, SKEW};
use crate::customer::CustomerId;
use crate::secret::BrainKey;

/// The most events of one type that are counted over HTTP.
const MOST_COUNTED: usize = 1000;
const HOUR: SignedDuration = SignedDuration::from_hours(1);

/// What a customer's hosts did lately.
#[derive(Debug, Clone, PartialEq)]
pub struct Activity {
    /// The last heartbeat of each of its hosts, however old, and what may be taken for one.
    pub heartbeats: Heartbeats,
    /// The last hour, or why it is not known.
    pub hour: Result<Hour, String>,
}

/// The sessions and calls of tools of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Hour {
    /// Sessions that began.
    pub sessions_started: u64,
    /// Sessions that ended.
    pub sessions_ended: u64,
    /// Those of them that failed.
    pub sessions_failed: u64,
    /// Calls of tools.
    pub tool_calls: u64,
    /// Whether there may have been more, because the brain gives no more events at once.
    pub at_least: bool,
}

impl Hour {
    fn ended(&mut self, how: SessionEnd, count: u64) {
        self.sessions_ended += count;
        if how == SessionEnd::Failed {
            self.sessions_failed += count;
        }
    }
}

fn before(now: Timestamp, ago: SignedDuration) -> Timestamp {
    now.checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Brain {
    /// What a customer's hosts did lately, asked with its own key: four requests.
    pub async fn activity(
        &self,
        customer: &CustomerId,
        key: &BrainKey,
        hosts: &[Host<'_>],
        now: Timestamp,
    ) -> Result<Activity, BrainError> {
        let heartbeats = self
            .heartbeats(customer, key, hosts, Timestamp::UNIX_EPOCH)
            .await?;
        let since = before(now, HOUR);
        let feed = |event_type| self.events(customer, key, event_type, since, MOST_COUNTED);
        let hour = futures::try_join!(feed(SESSION_START), feed(SESSION_END), feed(TOOL_CALL));
        let hour = match hour {
            Ok((starts, ends, calls)) => {
                let mut hour = Hour {
                    sessions_started: starts.events.len() as u64,
                    tool_calls: calls.events.len() as u64,
                    at_least: starts.cut_off || ends.cut_off || calls.cut_off,
                    ..Hour::default()
                };
                for end in &ends.events {
                    hour.ended(end.session_end(), 1);
                }
                Ok(hour)
            }
            Err(error @ BrainError::OtherCustomer { .. }) => return Err(error),
            // The heartbeat is the news; a brain that cannot count the rest does not make the host silent.
            Err(error) => Err(error.to_string()),
        };
        Ok(Activity { heartbeats, hour })
    }
}

/// The last hour of all customers in one pass, with the newest heartbeat of each sender; then the last older heartbeat of those that
/// had none in it, which are few: by the index that the lookup of a single customer needs as well. What is ahead of the
/// database's clock counts for nothing, and the newest of it is in the answer to be named.
const QUERY: &str = "\
with recent as (
  select customer_id, event_type,
         case when event_type = 'session.end' then left(payload->>'status', 64) end as status,
         case when event_type = 'session.end' then left(payload->>'exit_code', 32) end as exit_code,
         case when event_type = 'heartbeat' then left(payload->>'instance_id', 64) end as instance_id,
         case when event_type = 'heartbeat' then left(payload->>'hostname', 256) end as hostname,
         count(*) as events, max(ts) as last,
         case when event_type = 'heartbeat'
              then (array_agg(left(payload->>'bootstrap', 128) order by ts desc))[1] end as bootstrap,
         case when event_type = 'heartbeat'
              then (array_agg(left(payload->>'scripts', 64) order by ts desc))[1] end as scripts
  from events
  where customer_id = any($1) and event_type in ('heartbeat', 'session.start', 'session.end', 'tool_call')
    and ts >= $2 and ts <= now() + make_interval(secs => $3)
  group by 1, 2, 3, 4, 5, 6
), other as (
  select wanted.id, one.* from (select unnest($1::text[]) as id) wanted
  cross join lateral (
    (select ts, payload from events
     where customer_id = wanted.id and event_type = 'heartbeat' and ts < $2
       and not exists (select from recent where recent.customer_id = wanted.id and recent.event_type = 'heartbeat')
     order by ts desc limit 1)
    union all
    (select ts, payload from events
     where customer_id = wanted.id and event_type = 'heartbeat' and ts > now() + make_interval(secs => $3) and ts < 'infinity'
     order by ts desc limit 1)
  ) one
)
select customer_id, event_type, status, exit_code, events, last, instance_id, hostname, bootstrap, scripts, now() from recent
union all
select id, 'heartbeat', null, null, 1, ts, left(payload->>'instance_id', 64), left(payload->>'hostname', 256),
       left(payload->>'bootstrap', 128), left(payload->>'scripts', 64), now()
from other";

impl Database {
    /// What these customers' hosts did lately, in one query. A customer without any event is there too.
    pub async fn activity(
        &self,
        customers: &[&CustomerId],
        now: Timestamp,
    ) -> Result<HashMap<CustomerId, Activity>, BrainError> {
        let ids: Vec<&str> = customers.iter().map(|id| id.as_str()).collect();
        let hour = system_time(before(now, HOUR))?;
        let ahead = SKEW.as_secs() as f64;
        let mut found: HashMap<&str, (CustomerId, Vec<Heartbeat>, Hour)> = customers
            .iter()
            .map(|id| (id.as_str(), ((*id).clone(), Vec::new(), Hour::default())))
            .collect();
        let mut clock = now;
        for row in self.query(QUERY, &[&ids, &hour, &ahead]).await? {
            let id: &str = column(&row, 0)?;
            let Some((_, heartbeats, hour)) = found.get_mut(id) else {
                continue;
            };
            let event_type: &str = column(&row, 1)?;
            let count: i64 = column(&row, 4)?;
            let count = u64::try_from(count).unwrap_or_default();
            match event_type {
                SESSION_START => hour.sessions_started += count,
                SESSION_END => {
                    hour.ended(session_end(column(&row, 2)?, column(&row, 3)?), count);
                }
                TOOL_CALL => hour.tool_calls += count,
                _ => {
                    let last: SystemTime = column(&row, 5)?;
                    let at: SystemTime = column(&row, 10)?;
                    clock = Timestamp::try_from(at).unwrap_or(clock);
                    let text = |index| -> Result<Option<String>, BrainError> {
                        let text: Option<String> = column(&row, index)?;
                        Ok(text.filter(|text| !text.is_empty()))
                    };
                    heartbeats.push(Heartbeat {
                        instance_id: text(6)?,
                        hostname: text(7)?.unwrap_or_default(),
                        // A time before year -9999 is none that a host could have had.
                        ts: Timestamp::try_from(last).unwrap_or(Timestamp::UNIX_EPOCH),
                        bootstrap: text(8)?.and_then(|text| Bootstrap::parse(&text)),
                        scripts: text(9)?,
                        key: None,
                    });
                }
            }
        }
        Ok(found
            .into_values()
            .map(|(id, heartbeats, hour)| {
                let (heartbeats, hour) = (Heartbeats::new(heartbeats, clock), Ok(hour));
                (id, Activity { heartbeats, hour })
            })
            .collect())
    }
}
