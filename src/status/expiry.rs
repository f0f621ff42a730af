//! When a stored Tailscale auth key ends, by what is known of it.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use crate::steps::tailscale_auth_key::MAX_KEY_AGE_DAYS;

/// A person is warned this long before a key ends.
const WARNED_BEFORE: SignedDuration = SignedDuration::from_hours(14 * 24);

/// When a key ends, and how that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Expiry {
    /// When it ends; with [`Basis::Written`], at the latest.
    pub at: Timestamp,
    /// How that is known.
    pub basis: Basis,
}

/// How the end of a key is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// It was written then, and a key lives 90 days at most.
    Written,
    /// Tailscale says so.
    Tailscale,
}

/// How near the end is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Far enough.
    Good,
    /// A person should make a new key.
    Soon,
    /// It has come.
    Ended,
}

/// When a stored key ends: as Tailscale says, where that is known, else 90 days after it was written at the latest.
pub fn expiry(written: Option<Timestamp>, by_tailscale: Option<Timestamp>) -> Option<Expiry> {
    if let Some(at) = by_tailscale {
        return Some(Expiry {
            at,
            basis: Basis::Tailscale,
        });
    }
    let lifetime = SignedDuration::from_hours(MAX_KEY_AGE_DAYS * 24);
    Some(Expiry {
        at: written?.checked_add(lifetime).ok()?,
        basis: Basis::Written,
    })
}

impl Expiry {
    /// How long it is until then; negative afterwards.
    pub fn left(&self, now: Timestamp) -> SignedDuration {
        self.at.duration_since(now)
    }

    /// Words for an end that is not exactly known.
    pub(super) fn at_the_latest(self) -> &'static str {
        match self.basis {
            Basis::Written => " at the latest, 90 days after it was stored",
            Basis::Tailscale => "",
        }
    }

    /// How near the end is.
    pub fn stage(&self, now: Timestamp) -> Stage {
        let left = self.left(now);
        if left <= SignedDuration::ZERO {
            Stage::Ended
        } else if left <= WARNED_BEFORE {
            Stage::Soon
        } else {
            Stage::Good
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * day)
    }

    #[test]
    fn a_key_ends_90_days_after_it_was_written_unless_tailscale_knows_better() {
        assert_eq!(expiry(None, None), None);
        let guessed = expiry(Some(day(0)), None).unwrap();
        assert_eq!((guessed.at, guessed.basis), (day(90), Basis::Written));
        let known = expiry(Some(day(0)), Some(day(7))).unwrap();
        assert_eq!((known.at, known.basis), (day(7), Basis::Tailscale));
        assert_eq!(expiry(Some(Timestamp::MAX), None), None);
    }

    #[test]
    fn a_person_is_warned_from_14_days_before() {
        let expiry = expiry(Some(day(0)), None).unwrap();
        let second = SignedDuration::from_secs(1);
        for (now, stage) in [
            (day(76) - second, Stage::Good),
            (day(76), Stage::Soon),
            (day(90) - second, Stage::Soon),
            (day(90), Stage::Ended),
            (day(300), Stage::Ended),
        ] {
            assert_eq!(expiry.stage(now), stage, "{now}");
        }
    }
}
