//! Small pieces of text.

use std::time::Duration;

/// A duration for people: `850 ms`, `12 s`, `1 min 5 s`, `15 min`.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if duration < Duration::from_secs(1) {
        return format!("{} ms", duration.as_millis());
    }
    if seconds < 10 && duration.subsec_millis() >= 50 {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    match (seconds / 3600, seconds % 3600 / 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, 0) => format!("{m} min"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, 0, 0) => format!("{h} h"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

/// `1 host`, `2 hosts`.
pub fn counted(count: usize, thing: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {thing}{plural}")
}

/// How long ago something happened, for people: `just now`, `12 min ago`, `3 days ago`.
pub fn ago(at: jiff::Timestamp, now: jiff::Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    match seconds {
        ..5 => "just now".to_owned(),
        5..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_naturally() {
        for (millis, text) in [
            (0, "0 ms"),
            (850, "850 ms"),
            (1200, "1.2 s"),
            (2000, "2 s"),
            (12_345, "12 s"),
            (60_000, "1 min"),
            (65_000, "1 min 5 s"),
            (900_000, "15 min"),
            (5_400_000, "1 h 30 min"),
        ] {
            assert_eq!(duration(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn ages_read_naturally() {
        let now = jiff::Timestamp::from_second(1_000_000).unwrap();
        for (seconds, text) in [
            (-5, "just now"),
            (4, "just now"),
            (59, "59 s ago"),
            (3599, "59 min ago"),
            (7300, "2 h ago"),
            (172_800, "2 days ago"),
        ] {
            let at = jiff::Timestamp::from_second(1_000_000 - seconds).unwrap();
            assert_eq!(ago(at, now), text);
        }
    }
}
