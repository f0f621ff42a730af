//! The brain: its URL, whether it answers, how its keys are made, its database, and its clock beside this machine's.

use jiff::{SignedDuration, Timestamp};

use super::Check;
use super::local::is_program;
use crate::aws::Aws;
use crate::brain::client::KeyCheck;
use crate::brain::database::Database;
use crate::brain::{Brain, BrainUrl};
use crate::cli::inputs::admin_token;
use crate::config::Settings;
use crate::customer::BRAIN_URL_PARAMETER;
use crate::secret::{BrainKey, ExposeSecret as _};
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::text;

/// AWS refuses requests that are five minutes off; heartbeats are judged by less.
const MOST_SKEW: SignedDuration = SignedDuration::from_secs(60);

pub(super) async fn examine(aws: Option<&Aws>, settings: &Settings, checks: &mut Vec<Check>) {
    let Some(url) = url(aws, settings, checks).await else {
        for name in ["brain", "clock"] {
            checks.push(Check::skipped(name, "the brain's URL is not known"));
        }
        mint(None, settings, checks).await;
        database(settings, checks).await;
        return;
    };
    let brain = Brain::new(url);
    let answers = answers(&brain, settings, checks).await;
    mint(Some(&brain).filter(|_| answers), settings, checks).await;
    database(settings, checks).await;
    checks.push(match brain.clock().await {
        Ok(Some(theirs)) => clock(theirs, Timestamp::now()),
        Ok(None) => Check::skipped("clock", "the brain's answers carry no date"),
        Err(_) => Check::skipped("clock", "the brain does not answer"),
    });
}

fn clock(theirs: Timestamp, ours: Timestamp) -> Check {
    let off = ours.duration_since(theirs).abs();
    if off <= MOST_SKEW {
        return Check::ok("clock", "this machine and the brain agree");
    }
    let ahead = if ours > theirs { "ahead of" } else { "behind" };
    Check::wrong(
        "clock",
        format!("this machine is {} {ahead} the brain", text::age(off)),
        "compare both with a third clock (timedatectl): a wrong clock here makes AWS refuse requests, one at the brain makes heartbeats look old or new",
    )
}

/// The stored URL, or the configured one.
async fn url(aws: Option<&Aws>, settings: &Settings, checks: &mut Vec<Check>) -> Option<BrainUrl> {
    const NAME: &str = "brain-url";
    let stored = match aws {
        Some(aws) => match aws.parameter(BRAIN_URL_PARAMETER).await {
            Ok(stored) => stored,
            Err(error) => {
                checks.push(Check::failed(NAME, error.into()));
                return settings.brain.url.clone();
            }
        },
        None => None,
    };
    if let Some(stored) = stored {
        return match stored.value.expose_secret().parse::<BrainUrl>() {
            Ok(url) => {
                let other = settings.brain.url.as_ref().filter(|other| **other != url);
                checks.push(match other {
                    Some(other) => Check::advice(
                        NAME,
                        format!("{url}, stored in {BRAIN_URL_PARAMETER}; the configured {other} is not used"),
                        format!("take it out of the configuration, or move the fleet: m8trx brain-url set {other}"),
                    ),
                    None => Check::ok(NAME, format!("{url}, stored in {BRAIN_URL_PARAMETER}")),
                });
                Some(url)
            }
            Err(error) => {
                checks.push(Check::wrong(
                    NAME,
                    format!("the parameter {BRAIN_URL_PARAMETER} holds no brain URL: {error}"),
                    "correct it: m8trx brain-url set http://…",
                ));
                None
            }
        };
    }
    let configured = settings.brain.url.clone();
    checks.push(match &configured {
        Some(url) => Check::ok(NAME, format!("{url}, to be stored by the first onboarding")),
        None => Check::wrong(
            NAME,
            "neither stored nor configured",
            "set brain.url in the configuration file (m8trx init), or M8TRX_BRAIN_URL, or pass --brain-url",
        ),
    });
    configured
}

/// Whether what answers is a brain: it refuses a key that is none, on a route that only reads.
async fn answers(brain: &Brain, settings: &Settings, checks: &mut Vec<Check>) -> bool {
    const NAME: &str = "brain";
    let no_key = BrainKey::parse("m8trx-asks-whether-this-is-a-brain")
        .expect("it is well-formed and constant");
    let asked = brain.check_key(&no_key).await;
    let (check, answers) = match asked {
        Ok(KeyCheck::Refused) => (
            Check::ok(NAME, "answers, and refuses a key that is none"),
            true,
        ),
        Ok(KeyCheck::CannotBeAsked) if settings.brain.database_url.is_some() => (
            Check::ok(NAME, "answers; events are read from its database"),
            true,
        ),
        Ok(KeyCheck::CannotBeAsked) => (
            Check::wrong(
                NAME,
                "answers, but not to GET /v1/events: heartbeats cannot be seen",
                "set brain.database_url_file in the configuration file, so that they are read from its PostgreSQL",
            ),
            true,
        ),
        Ok(KeyCheck::Accepted) => (
            Check::wrong(
                NAME,
                "what answers takes every key: it is no brain, or checks none",
                "check the URL (m8trx brain-url get), and what listens there",
            ),
            false,
        ),
        Err(error) => (Check::failed(NAME, error.into()), false),
    };
    checks.push(check);
    answers
}

/// How brain keys are made.
async fn mint(brain: Option<&Brain>, settings: &Settings, checks: &mut Vec<Check>) {
    const NAME: &str = "brain-keys";
    if let Some(words) = &settings.brain.mint_command {
        let program = &words[0];
        checks.push(if is_program(program) {
            Check::ok(
                NAME,
                format!("minted by `{program} …`, which is not run here"),
            )
        } else {
            Check::wrong(
                NAME,
                format!("the mint command's program `{program}` is not found"),
                "correct brain.mint_command, or M8TRX_MINT_COMMAND; it is run without a shell",
            )
        });
        return;
    }
    let token = match admin_token(settings) {
        Ok(Some(token)) => token,
        Ok(None) => {
            checks.push(Check::advice(
                NAME,
                "nothing says how keys are minted: each onboarding asks for one, or takes --brain-key-file",
                "set brain.admin_token_file or brain.mint_command (m8trx init)",
            ));
            return;
        }
        Err(failure) => {
            checks.push(Check::failed(NAME, failure));
            return;
        }
    };
    let Some(brain) = brain else {
        checks.push(Check::skipped(
            NAME,
            "the admin token cannot be tried: the brain does not answer",
        ));
        return;
    };
    checks.push(match brain.check_admin_token(&token).await {
        Ok(KeyCheck::Accepted) => Check::ok(NAME, "minted by the brain; it takes the admin token"),
        Ok(KeyCheck::CannotBeAsked) => Check::ok(
            NAME,
            "minted by the brain; this one cannot be asked about the admin token without minting",
        ),
        Ok(KeyCheck::Refused) => Check::wrong(
            NAME,
            "the brain refuses the admin token",
            "get the present one from whoever runs the brain, and write it into brain.admin_token_file",
        ),
        Err(error) => Check::failed(NAME, error.into()),
    });
}

/// The brain's database, and whether it finds a customer's newest event without reading all.
async fn database(settings: &Settings, checks: &mut Vec<Check>) {
    const NAME: &str = "database";
    let Some(url) = &settings.brain.database_url else {
        checks.push(Check::skipped(
            NAME,
            "not configured: events are read over HTTP",
        ));
        return;
    };
    let indexed = match Database::connect(url).await {
        Ok(database) => database.has_index().await,
        Err(error) => Err(error),
    };
    checks.push(match indexed {
        Ok(true) => Check::ok(NAME, "answers, and `events` has an index by customer"),
        Ok(false) => Check::advice(
            NAME,
            "answers, but `events` has no index by customer: each question reads the whole table",
            "ask whoever runs the brain for: create index on events (customer_id, event_type, ts desc)",
        ),
        Err(error) => Check::failed(NAME, Failure::new(Kind::Precondition, &error)),
    });
}
