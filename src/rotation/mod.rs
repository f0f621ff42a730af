//! Replacing the keys of customers while their hosts go on working. A key that works is stored at any moment, so that a
//! rotation may be interrupted anywhere; running it again finishes it.

pub mod brain_key;
pub mod tailscale_key;

use jiff::Timestamp;

/// How long ago something was, in the largest unit that fits: `61 days ago`.
pub(crate) fn age(at: Timestamp) -> String {
    let seconds = Timestamp::now().duration_since(at).as_secs().max(0);
    match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds} s ago"),
        (0, 0, minutes) => format!("{minutes} min ago"),
        (0, hours, _) => format!("{hours} h ago"),
        (1, _, _) => "1 day ago".to_owned(),
        (days, _, _) => format!("{days} days ago"),
    }
}
