//! `m8trx events`

use std::collections::HashMap;
use std::time::Duration;

use clap::{Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};

use super::Global;
use super::inputs::brain_url;
use super::onboarding::stdout_failed;
use super::target::Target;
use crate::brain::database::Database;
use crate::brain::events::{
    BrainEvent, EVENT_TYPES, Feed, HEARTBEAT, SESSION_END, SESSION_START, TOOL_CALL,
};
use crate::brain::summary::Tally;
use crate::brain::{Brain, BrainError};
use crate::config::parse_ago;
use crate::customer::CustomerId;
use crate::secret::{BrainKey, ExposeSecret as _, SecretString};
use crate::terminal::events_text::{EventLine, EventsDocument, masked, summary_text};
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{OutputFormat, Terminal};

/// How often --follow asks.
const PACE: Duration = Duration::from_secs(2);
/// How late an event may arrive at the brain and still be shown by --follow.
const LATE: SignedDuration = SignedDuration::from_secs(60);

/// Show a customer's events, a line each: sessions, calls of tools, heartbeats; and what they come to.
///
/// They are read from the brain's database where `brain.database_url` is configured, else over HTTP with the customer's own
/// key. What an event says is shown as it came, control characters escaped and what looks like a secret masked.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// The customer id.
    customer: CustomerId,
    /// Only this feed.
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    feed: Option<FeedType>,
    /// How far back, like `90s`, `1h` or `7d`.
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_ago)]
    since: Duration,
    /// The most events of each type, the newest.
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    limit: u32,
    /// Go on with new events until Ctrl-C; with --output json, one JSON document a line.
    #[arg(long, short)]
    follow: bool,
}

/// The feeds of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FeedType {
    /// Signs of life.
    Heartbeat,
    /// Starts and ends of sessions.
    Session,
    /// Calls of tools.
    #[value(name = "tool_call", alias = "tool-call")]
    ToolCall,
}

impl FeedType {
    fn event_types(self) -> &'static [&'static str] {
        match self {
            Self::Heartbeat => &[HEARTBEAT],
            Self::Session => &[SESSION_START, SESSION_END],
            Self::ToolCall => &[TOOL_CALL],
        }
    }
}

/// Where events are read.
enum Source {
    Database {
        url: SecretString,
        connection: Option<Database>,
    },
    Http {
        brain: Brain,
        key: BrainKey,
    },
}

impl Source {
    async fn open(
        customer: &CustomerId,
        target: &Target,
        terminal: &Terminal,
    ) -> Result<Self, Failure> {
        if let Some(url) = &target.settings.brain.database_url {
            return Ok(Self::Database {
                url: url.clone(),
                connection: None,
            });
        }
        let aws = target.aws(terminal).await?;
        // Nothing here is worth a question.
        let mut quiet = terminal.clone();
        quiet.interactive = false;
        let url = brain_url(&aws, &target.settings, &quiet).await?;
        let name = customer.brain_key_parameter();
        let Some(stored) = aws.parameter(&name).await? else {
            return Err(Failure::words(
                Kind::Precondition,
                format!("{customer} has no brain key to ask the brain with: {name} does not exist"),
            )
            .hint(format!(
                "`m8trx status {customer}` shows what there is; or set `brain.database_url` in the configuration file, and no key is needed"
            )));
        };
        let key = BrainKey::parse(stored.value.expose_secret()).map_err(|e| {
            Failure::new(Kind::Precondition, &e).within(format!("{name} cannot be used"))
        })?;
        Ok(Self::Http {
            brain: Brain::new(url),
            key,
        })
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Database { .. } => "database",
            Self::Http { .. } => "http",
        }
    }

    /// The newest events since a time, oldest first.
    async fn read(&mut self, args: &EventsArgs, since: Timestamp) -> Result<Feed, BrainError> {
        let types = args.feed.map(FeedType::event_types);
        let limit = args.limit as usize;
        let mut feed = match self {
            Self::Database { url, connection } => {
                let open = match connection.take() {
                    Some(open) => open,
                    None => Database::connect(url).await?,
                };
                let feed = open.events(&args.customer, types, since, limit).await?;
                // Kept only when it worked: the next question makes a new one otherwise.
                *connection = Some(open);
                feed
            }
            Self::Http { brain, key } => {
                let types = types.unwrap_or(&EVENT_TYPES);
                let asked = types
                    .iter()
                    .map(|kind| brain.events(&args.customer, key, kind, since, limit));
                let feeds = futures::future::try_join_all(asked).await?;
                Feed {
                    cut_off: feeds.iter().any(|feed| feed.cut_off),
                    events: feeds.into_iter().flat_map(|feed| feed.events).collect(),
                    ..Feed::default()
                }
            }
        };
        feed.events = feed.events.into_iter().map(masked).collect();
        // Stable, and newest first until now: what happened at once stays in the order the brain has it.
        feed.events.reverse();
        feed.events.sort_by_key(|event| event.ts.at());
        Ok(feed)
    }
}

/// Runs the command.
pub async fn run(args: &EventsArgs, global: &Global, terminal: &Terminal) -> Result<(), Failure> {
    let target = Target::open(global, &global.flags(), terminal).await?;
    let result = show(args, &target, terminal).await;
    target.close().await;
    result
}

async fn show(args: &EventsArgs, target: &Target, terminal: &Terminal) -> Result<(), Failure> {
    let mut source = Source::open(&args.customer, target, terminal).await?;
    let ago = SignedDuration::try_from(args.since).unwrap_or(SignedDuration::MAX);
    let since = Timestamp::now()
        .checked_sub(ago)
        .unwrap_or(Timestamp::UNIX_EPOCH);
    let feed = source.read(args, since).await?;
    if args.follow {
        return follow(args, source, feed, since, terminal).await;
    }
    let mut tally = Tally::default();
    feed.events.iter().for_each(|event| tally.add(event));
    let document = EventsDocument::new(
        args.customer.clone(),
        since,
        source.name(),
        feed.events,
        feed.cut_off,
        tally.summary(),
    );
    terminal.result(&document).map_err(stdout_failed)
}

/// Events that were shown, so that asking about an overlapping time shows none twice. Equal events count.
#[derive(Default)]
struct Shown(HashMap<String, (Option<Timestamp>, usize)>);

impl Shown {
    /// The events of a feed that were not shown yet.
    fn fresh(&mut self, feed: Feed) -> Vec<BrainEvent> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut fresh = Vec::new();
        for event in feed.events {
            let key = format!("{} {} {}", event.ts, event.event_type, event.payload);
            let seen = seen.entry(key.clone()).or_default();
            *seen += 1;
            let (_, shown) = self.0.entry(key).or_insert((event.ts.at(), 0));
            if *seen > *shown {
                *shown += 1;
                fresh.push(event);
            }
        }
        fresh
    }

    /// Forgets what cannot come again.
    fn forget_before(&mut self, since: Timestamp) {
        self.0.retain(|_, (at, _)| at.is_none_or(|at| at >= since));
    }
}

/// Goes on until Ctrl-C, which is how it ends and no failure, or until nobody reads any more.
async fn follow(
    args: &EventsArgs,
    mut source: Source,
    first: Feed,
    mut since: Timestamp,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let end = terminal.interrupt.watch();
    terminal.say(format!("Following {}; Ctrl-C ends.", args.customer));
    let mut shown = Shown::default();
    let mut tally = Tally::default();
    let mut newest = since;
    let mut answer: Result<Feed, BrainError> = Ok(first);
    let mut away = false;
    loop {
        match answer {
            Ok(feed) => {
                if away {
                    terminal.say("The brain answers again.");
                    away = false;
                }
                if feed.cut_off {
                    terminal.warn(format!(
                        "only the newest {} events of a type are shown",
                        args.limit
                    ));
                }
                for event in shown.fresh(feed) {
                    tally.add(&event);
                    newest = newest.max(event.ts.at().unwrap_or(newest));
                    if !write_line(&EventLine::new(&args.customer, &event), terminal)? {
                        return Ok(());
                    }
                }
            }
            // It may come back; what it missed meanwhile is asked for then.
            Err(error) if error.is_passing() || matches!(error, BrainError::Database(_)) => {
                if !away {
                    terminal.warn(error.to_string());
                    away = true;
                }
            }
            Err(error) => return Err(error.into()),
        }
        // A host whose clock is ahead must not hide what comes after.
        let known = newest.min(Timestamp::now());
        since = since.max(known.checked_sub(LATE).unwrap_or(since));
        shown.forget_before(since);
        tokio::select! {
            () = end.requested() => break,
            () = tokio::time::sleep(PACE) => {}
        }
        if terminal.reader_has_gone() {
            return Ok(());
        }
        answer = tokio::select! {
            () = end.requested() => break,
            answer = source.read(args, since) => answer,
        };
    }
    if terminal.output == OutputFormat::Human {
        let text = summary_text(&tally.summary(), Timestamp::now());
        terminal
            .write(&format!("\n{}:\n{text}\n", args.customer))
            .map_err(stdout_failed)?;
    }
    Ok(())
}

/// Writes one event; says whether somebody still reads.
fn write_line(line: &EventLine<'_>, terminal: &Terminal) -> Result<bool, Failure> {
    let text = match terminal.output {
        OutputFormat::Human => format!("{line}\n"),
        OutputFormat::Json => {
            let json = serde_json::to_string(line)
                .map_err(|e| Failure::words(Kind::Other, format!("an event is no JSON: {e}")))?;
            format!("{json}\n")
        }
    };
    terminal.write_on(&text).map_err(stdout_failed)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::brain::events::When;

    fn feed(seconds: &[i64]) -> Feed {
        let events = seconds.iter().map(|second| BrainEvent {
            ts: When::At(Timestamp::from_second(*second).unwrap()),
            event_type: HEARTBEAT.to_owned(),
            payload: json!({}),
        });
        Feed {
            events: events.collect(),
            ..Feed::default()
        }
    }

    #[test]
    fn an_event_is_shown_once_and_equal_events_each() {
        let mut shown = Shown::default();
        assert_eq!(shown.fresh(feed(&[1, 2, 2])).len(), 3);
        assert_eq!(shown.fresh(feed(&[1, 2, 2])).len(), 0);
        assert_eq!(shown.fresh(feed(&[2, 2, 2, 3])).len(), 2);
        shown.forget_before(Timestamp::from_second(3).unwrap());
        assert_eq!(shown.0.len(), 1);
        assert_eq!(shown.fresh(feed(&[3, 4])).len(), 1);
    }
}
