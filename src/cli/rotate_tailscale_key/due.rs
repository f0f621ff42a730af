//! What is left of customers' auth keys: which are due, and the question which to replace.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::customer::CustomerId;
use crate::rotation::tailscale_key::Before;
use crate::status::expiry::expiry;
use crate::tailnet::Tailnet;
use crate::tailnet::keys::AuthKey;
use crate::terminal::failure::{Failure, Kind};
use crate::terminal::{Terminal, text};

/// A key is due this long before its end unless it is said otherwise.
pub(super) const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The keys that Tailscale knows to be good, by their ids; `None` where it cannot be asked.
pub(super) type Good = Option<HashMap<String, AuthKey>>;

/// Asks Tailscale, where an OAuth client is configured. Without an answer the time of storing decides, and that is said.
pub(super) async fn good_keys(tailnet: Option<&Tailnet>, terminal: &Terminal) -> Good {
    match tailnet?.auth_keys().await {
        Ok(keys) => Some(keys.into_iter().map(|key| (key.id.clone(), key)).collect()),
        Err(error) => {
            terminal.warn(format!(
                "Tailscale does not say when the keys end, so it is counted from the day they were stored: {}",
                Failure::from(error).in_a_line()
            ));
            None
        }
    }
}

/// What is left of a stored key. The order is that of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Left {
    /// The parameter holds no auth key, or one that Tailscale does not take any more.
    Useless,
    /// It ends then; `true` where Tailscale says so, and not only the day it was stored.
    Until(Timestamp, bool),
    /// Nothing says when it was stored.
    Unknown,
}

impl Left {
    pub(super) fn of(before: Option<&Before>, good: &Good) -> Self {
        let Some(before) = before else {
            return Self::Unknown;
        };
        let Some(id) = &before.id else {
            return Self::Useless;
        };
        let known = match good {
            None => None,
            Some(good) => match good.get(id) {
                None => return Self::Useless,
                Some(key) => key.expires,
            },
        };
        match expiry(before.stored, known) {
            Some(end) => Self::Until(end.at, known.is_some()),
            None => Self::Unknown,
        }
    }

    /// When it ends, where that is known.
    pub(super) fn ends(self) -> Option<Timestamp> {
        match self {
            Self::Until(at, _) => Some(at),
            Self::Useless | Self::Unknown => None,
        }
    }

    /// Whether it ends within a time. A key of which nothing is known may end any day.
    pub(super) fn is_due(self, within: Duration, now: Timestamp) -> bool {
        let within = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
        self.ends()
            .is_none_or(|at| at.duration_since(now) <= within)
    }

    pub(super) fn words(self, now: Timestamp) -> String {
        match self {
            Self::Useless => "no good any more".to_owned(),
            Self::Unknown => "nothing says when it ends".to_owned(),
            Self::Until(at, _) if at <= now => {
                format!("ended {}", text::ago(at, now))
            }
            Self::Until(at, by_tailscale) => {
                let left = text::age(at.duration_since(now));
                let most = if by_tailscale { "" } else { " at the latest" };
                format!("{left} left{most}")
            }
        }
    }
}

/// A row of the question: whose key, which, and what is left of it.
pub(super) struct Row {
    pub(super) customer: CustomerId,
    pub(super) key: String,
    pub(super) left: Left,
}

/// Shows the keys, the most urgent first, and asks which to replace.
pub(super) async fn ask_which(
    mut rows: Vec<Row>,
    now: Timestamp,
    terminal: &Terminal,
) -> Result<HashSet<CustomerId>, Failure> {
    rows.sort_by(|a, b| (a.left, &a.customer).cmp(&(b.left, &b.customer)));
    let customer_width = rows.iter().map(|row| row.customer.as_str().len()).max();
    let customer_width = customer_width.unwrap_or_default();
    let key_width = rows
        .iter()
        .map(|row| row.key.len())
        .max()
        .unwrap_or_default();
    terminal.say("Tailscale auth keys, the one that ends first at the top:");
    for (number, row) in rows.iter().enumerate() {
        terminal.say(format!(
            "  {:>3}  {:customer_width$}  {:key_width$}  {}",
            number + 1,
            row.customer.as_str(),
            row.key,
            row.left.words(now)
        ));
    }
    let known = rows
        .iter()
        .map(|row| (row.customer.clone(), row.left))
        .collect::<Vec<_>>();
    let check = {
        let known = known.clone();
        move |answer: &str| chosen(answer, &known, now).map(drop)
    };
    let answer = terminal
        .input(
            "Which keys? Numbers or customer ids, `due` (ends within 14 days), `all`",
            Some("none".to_owned()),
            check,
        )
        .await?;
    let chosen =
        chosen(&answer, &known, now).map_err(|why| Failure::words(Kind::Precondition, why))?;
    if chosen.is_empty() {
        return Err(Failure::words(
            Kind::Interrupted,
            "cancelled: no key was chosen; nothing was changed",
        ));
    }
    Ok(chosen)
}

/// The customers that an answer names.
fn chosen(
    answer: &str,
    rows: &[(CustomerId, Left)],
    now: Timestamp,
) -> Result<HashSet<CustomerId>, String> {
    let mut chosen = HashSet::new();
    for word in answer
        .split([' ', ',', '\t'])
        .filter(|word| !word.is_empty())
    {
        match word {
            "none" => {}
            "all" => chosen.extend(rows.iter().map(|(customer, _)| customer.clone())),
            "due" => {
                let due = rows.iter().filter(|(_, left)| left.is_due(SOON, now));
                chosen.extend(due.map(|(customer, _)| customer.clone()));
            }
            _ => {
                let by_number = word
                    .parse::<usize>()
                    .ok()
                    .and_then(|number| rows.get(number.checked_sub(1)?));
                let row = by_number
                    .or_else(|| rows.iter().find(|(customer, _)| customer.as_str() == word));
                let Some((customer, _)) = row else {
                    return Err(format!(
                        "`{}` is no number and no customer of the list",
                        word.escape_debug()
                    ));
                };
                chosen.insert(customer.clone());
            }
        }
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * day)
    }

    #[test]
    fn an_answer_names_keys_by_number_by_customer_or_by_what_is_left() {
        let rows: Vec<(CustomerId, Left)> = [
            ("cust_dead", Left::Useless),
            ("cust_soon", Left::Until(day(110), true)),
            ("cust_later", Left::Until(day(150), false)),
        ]
        .map(|(id, left)| (id.parse().unwrap(), left))
        .to_vec();
        let names = |answer: &str| {
            chosen(answer, &rows, day(100)).map(|chosen| {
                let mut names: Vec<String> = chosen.iter().map(ToString::to_string).collect();
                names.sort();
                names.join(" ")
            })
        };
        assert_eq!(names("none"), Ok(String::new()));
        assert_eq!(names("1, 3"), Ok("cust_dead cust_later".to_owned()));
        assert_eq!(names("cust_soon 2"), Ok("cust_soon".to_owned()));
        assert_eq!(names("due"), Ok("cust_dead cust_soon".to_owned()));
        assert_eq!(
            names("all"),
            Ok("cust_dead cust_later cust_soon".to_owned())
        );
        for wrong in ["0", "4", "yes", "cust_other", "1 x"] {
            names(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_key_is_due_by_its_end_and_when_nothing_is_known_of_it() {
        let now = day(100);
        for (left, due, words) in [
            (Left::Useless, true, "no good any more"),
            (Left::Unknown, true, "nothing says when it ends"),
            (Left::Until(day(99), true), true, "ended 24 h ago"),
            (Left::Until(day(114), true), true, "14 d left"),
            (
                Left::Until(day(115), false),
                false,
                "15 d left at the latest",
            ),
        ] {
            assert_eq!(
                (left.is_due(SOON, now), left.words(now).as_str()),
                (due, words)
            );
        }
    }
}
