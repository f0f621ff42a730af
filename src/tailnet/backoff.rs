//! Pauses between tries: twice as long each time, and never the same for two that collided.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// The first pause, at most.
const FIRST: Duration = Duration::from_millis(250);
/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(4);

/// How long to pause after so many tries.
pub(crate) fn pause(tries: u32) -> Duration {
    let most = FIRST
        .saturating_mul(1 << tries.saturating_sub(1).min(8))
        .min(LONGEST);
    // The standard library seeds every such state from the system's randomness.
    let random = RandomState::new().hash_one(tries) as f64 / u64::MAX as f64;
    most.mul_f64(0.25 + 0.75 * random)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_differ() {
        assert!(pause(1) <= FIRST && pause(1) >= FIRST / 4);
        assert!(pause(30) <= LONGEST && pause(30) >= LONGEST / 4);
        let pauses: std::collections::HashSet<Duration> = (0..50).map(|_| pause(5)).collect();
        assert!(pauses.len() > 40, "{pauses:?}");
    }
}
