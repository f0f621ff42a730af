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
}
