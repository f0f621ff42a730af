//! The one place that asks the brain what its hosts report: by its PostgreSQL where that is configured, else over HTTP with the
//! customer's own key.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Mutex;

use super::database::Database;
use super::events::{Feed, HEARTBEAT, TOOL_CALL};
use super::heartbeat::{Heartbeat, Heartbeats, Host};
use super::{Brain, BrainError};
use crate::customer::CustomerId;
use crate::secret::{BrainKey, SecretString};

/// How many heartbeats are asked for: first the newest, and where none of them is of the host, as many as a brain gives. A
/// heartbeat from the future, or of another host, must not hide the right one.
const PAGES: [usize; 2] = [20, 1000];

/// A call of a tool as the brain recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Which tool; empty where the event does not say.
    pub tool_name: String,
    /// When the brain says it happened.
    pub ts: Timestamp,
}

/// What hosts report to one brain.
pub struct Feeds {
    brain: Brain,
    database_url: Option<SecretString>,
    connection: Mutex<Option<Arc<Database>>>,
}

impl Feeds {
    /// The feeds of a brain. Nothing is asked yet.
    pub fn new(brain: Brain, database_url: Option<SecretString>) -> Self {
        Self {
            brain,
            database_url,
            connection: Mutex::default(),
        }
    }

    /// What is asked, in words.
    pub fn source(&self) -> &'static str {
        match self.database_url {
            Some(_) => "the brain's database",
            None => "the brain",
        }
    }

    /// Whether a customer's key is needed to ask.
    pub fn needs_key(&self) -> bool {
        self.database_url.is_none()
    }

    /// The database, connected: anew, where the connection was lost.
    async fn database(&self) -> Result<Option<Arc<Database>>, BrainError> {
        let Some(url) = &self.database_url else {
            return Ok(None);
        };
        let mut held = self.connection.lock().await;
        if let Some(database) = held.as_ref().filter(|database| database.is_usable()) {
            return Ok(Some(Arc::clone(database)));
        }
        let database = Arc::new(Database::connect(url).await?);
        *held = Some(Arc::clone(&database));
        Ok(Some(database))
    }

    /// Whether the database can be asked; well before anything depends on it.
    pub async fn check(&self) -> Result<(), BrainError> {
        match self.database().await? {
            Some(database) => database.check().await,
            None => Ok(()),
        }
    }

    /// Heartbeats of a customer at or after `since`: the newest of each of these hosts, and what may be taken for one.
    /// Without a database and a key there are none.
    pub async fn heartbeats(
        &self,
        customer: &CustomerId,
        key: Option<&BrainKey>,
        hosts: &[Host<'_>],
        since: Timestamp,
    ) -> Result<Heartbeats, BrainError> {
        if let Some(database) = self.database().await? {
            return database.heartbeats(customer, hosts, since).await;
        }
        match key {
            Some(key) => self.brain.heartbeats(customer, key, hosts, since).await,
            None => Ok(Heartbeats::new(Vec::new(), Timestamp::now())),
        }
    }

    /// The newest events of one type at or after `since`, at most `limit`.
    pub async fn events(
        &self,
        customer: &CustomerId,
        key: Option<&BrainKey>,
        event_type: &str,
        since: Timestamp,
        limit: usize,
    ) -> Result<Feed, BrainError> {
        if let Some(database) = self.database().await? {
            let types = [event_type];
            return database.events(customer, Some(&types), since, limit).await;
        }
        match key {
            Some(key) => {
                let brain = &self.brain;
                brain.events(customer, key, event_type, since, limit).await
            }
            None => Ok(Feed::default()),
        }
    }

    /// The customer's newest call of a tool at or after `since`.
    pub async fn latest_tool_call(
        &self,
        customer: &CustomerId,
        key: Option<&BrainKey>,
        since: Timestamp,
    ) -> Result<Option<ToolCall>, BrainError> {
        let feed = self.events(customer, key, TOOL_CALL, since, 1).await?;
        Ok(feed.events.iter().find_map(|call| {
            Some(ToolCall {
                tool_name: call.text("tool_name").unwrap_or_default(),
                ts: call.ts.at()?,
            })
        }))
    }
}

impl Brain {
    /// [`Feeds::heartbeats`] over HTTP.
    pub(super) async fn heartbeats(
        &self,
        customer: &CustomerId,
        key: &BrainKey,
        hosts: &[Host<'_>],
        since: Timestamp,
    ) -> Result<Heartbeats, BrainError> {
        let mut pages = PAGES.into_iter();
        loop {
            let limit = pages.next().expect("it returns at the last page");
            let feed = self.events(customer, key, HEARTBEAT, since, limit).await?;
            let heartbeats = feed.events.iter().filter_map(Heartbeat::of).collect();
            let heartbeats = Heartbeats::new(heartbeats, feed.now);
            let all = hosts.iter().all(|host| heartbeats.of(*host).is_some());
            if all || !feed.cut_off || pages.len() == 0 {
                return Ok(heartbeats);
            }
        }
    }
}
