//! Asking the brain about a whole fleet: one query where its database is configured, else each customer's own key over HTTP,
//! many at once. A brain that does not answer makes no failure: it is told for each customer.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use jiff::Timestamp;
use tokio::time::Instant;

use super::keys::Keys;
use crate::aws::Aws;
use crate::aws::ssm::ParameterInfo;
use crate::brain::activity::Activity;
use crate::brain::database::Database;
use crate::brain::heartbeat::Host;
use crate::brain::{Brain, BrainError};
use crate::customer::CustomerId;
use crate::secret::{BrainKey, ExposeSecret as _, InvalidSecret, SecretString};

/// Customers the brain is asked about at once.
const QUESTIONS_AT_ONCE: usize = 32;
/// After so many questions that got no answer, the brain is asked no more.
const MISSES_BORNE: usize = 3;
/// How long the brain is asked in all.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the brain is asked.
pub enum Source {
    /// By its PostgreSQL.
    Database(SecretString),
    /// Over HTTP, with each customer's own key.
    Http(Brain),
    /// It cannot be asked, and why.
    None(String),
}

/// A customer that is asked about.
pub struct Question<'a> {
    /// The customer.
    pub customer: &'a CustomerId,
    /// The parameter that holds its brain key.
    pub key: Option<&'a ParameterInfo>,
    /// Its hosts that live.
    pub hosts: Vec<Host<'a>>,
}

/// What came of asking about one customer.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// The brain told.
    Told(Activity),
    /// There is no key to ask with.
    NoKey,
    /// The stored value cannot be a key.
    BadKey(InvalidSecret),
    /// The brain refuses the stored key.
    KeyRefused,
    /// The brain answers one customer's key with another customer's events.
    Leaks(String),
    /// The brain could not be asked, and why.
    Silent(String),
}

/// The answers, and what keeps the brain from being asked at all.
#[derive(Default)]
pub struct Answers {
    /// One for each customer that was asked about.
    pub by_customer: HashMap<CustomerId, Answer>,
    /// Why none could be asked about, where that is so.
    pub problem: Option<String>,
}

impl Answers {
    fn none(customers: &[Question<'_>], why: &str) -> Self {
        let answer =
            |asked: &Question<'_>| (asked.customer.clone(), Answer::Silent(why.to_owned()));
        Self {
            by_customer: customers.iter().map(answer).collect(),
            problem: Some(why.to_owned()),
        }
    }
}

/// Asks about customers.
pub async fn ask(
    source: &Source,
    aws: &Aws,
    keys: &mut Keys,
    customers: &[Question<'_>],
    now: Timestamp,
) -> Answers {
    match source {
        Source::None(why) => Answers::none(customers, why),
        Source::Database(url) => match in_database(url, customers, now).await {
            Ok(answers) => answers,
            Err(error) => Answers::none(customers, &error.to_string()),
        },
        Source::Http(brain) => over_http(brain, aws, keys, customers, now).await,
    }
}

async fn in_database(
    url: &SecretString,
    customers: &[Question<'_>],
    now: Timestamp,
) -> Result<Answers, BrainError> {
    let ids: Vec<&CustomerId> = customers.iter().map(|asked| asked.customer).collect();
    let asked = async {
        let database = Database::connect(url).await?.with_patience(PATIENCE);
        database.activity(&ids, now).await
    };
    let told = tokio::time::timeout(PATIENCE, asked).await;
    let told = told.map_err(|_| {
        BrainError::Database(format!("no answer within {} s", PATIENCE.as_secs()))
    })??;
    Ok(Answers {
        by_customer: told
            .into_iter()
            .map(|(id, activity)| (id, Answer::Told(activity)))
            .collect(),
        problem: None,
    })
}

async fn over_http(
    brain: &Brain,
    aws: &Aws,
    keys: &mut Keys,
    customers: &[Question<'_>],
    now: Timestamp,
) -> Answers {
    if customers.is_empty() {
        return Answers::default();
    }
    // A brain that is away must not be waited for a thousand times, and its keys need not be read.
    if let Err(error) = brain.probe().await {
        return Answers::none(customers, &error.to_string());
    }
    let parameters = customers.iter().filter_map(|asked| asked.key);
    let unread = keys.read(aws, parameters).await;
    let given_up = GivenUp::default();
    let deadline = Instant::now() + PATIENCE;
    let questions = customers.iter().map(|asked| {
        let (keys, unread, given_up) = (&*keys, &unread, &given_up);
        async move {
            let id = asked.customer;
            let Some(parameter) = asked.key else {
                return (id.clone(), Answer::NoKey);
            };
            let answer = match (keys.get(parameter), unread.get(&parameter.name)) {
                (_, Some(why)) => Answer::Silent(why.clone()),
                (None, None) => Answer::NoKey,
                (Some(value), None) => match BrainKey::parse(value.expose_secret()) {
                    Err(error) => Answer::BadKey(error),
                    Ok(key) => question(brain, asked, &key, now, given_up, deadline).await,
                },
            };
            (id.clone(), answer)
        }
    });
    let by_customer = futures::stream::iter(questions)
        .buffer_unordered(QUESTIONS_AT_ONCE)
        .collect()
        .await;
    Answers {
        by_customer,
        problem: given_up.why.get().cloned(),
    }
}

/// Why the brain is asked no more.
#[derive(Default)]
struct GivenUp {
    why: OnceLock<String>,
    misses: AtomicUsize,
}

async fn question(
    brain: &Brain,
    about: &Question<'_>,
    key: &BrainKey,
    now: Timestamp,
    given_up: &GivenUp,
    deadline: Instant,
) -> Answer {
    if let Some(why) = given_up.why.get() {
        return Answer::Silent(why.clone());
    }
    let asked = brain.activity(about.customer, key, &about.hosts, now);
    let Ok(told) = tokio::time::timeout_at(deadline, asked).await else {
        let why = format!(
            "the brain at {} took more than {} s to answer about the fleet",
            brain.url(),
            PATIENCE.as_secs()
        );
        return Answer::Silent(given_up.why.get_or_init(|| why).clone());
    };
    match told {
        Ok(activity) => Answer::Told(activity),
        Err(BrainError::Refused { .. }) => Answer::KeyRefused,
        Err(error @ BrainError::OtherCustomer { .. }) => Answer::Leaks(error.to_string()),
        Err(error) => {
            let misses = given_up.misses.fetch_add(1, Ordering::Relaxed) + 1;
            let for_all = match &error {
                BrainError::NoEventsRoute { .. } => true,
                BrainError::Unreachable { .. } => misses >= MISSES_BORNE,
                _ => false,
            };
            let why = error.to_string();
            if for_all {
                let _ = given_up.why.set(why.clone());
            }
            Answer::Silent(why)
        }
    }
}
