//! Time spans as systemd writes them (`man systemd.time`): `5min`, `1h 30s`, `90`, `infinity`.

use std::time::Duration;

/// The span, `Duration::MAX` for `infinity`; `None` for what systemd refuses.
pub(in crate::host) fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    if text == "infinity" {
        return Some(Duration::MAX);
    }
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let number: f64 = rest[..digits].parse().ok()?;
        rest = rest[digits..].trim_start();
        let letters = rest
            .find(|c: char| !c.is_alphabetic())
            .unwrap_or(rest.len());
        total += number * unit(&rest[..letters])?;
        rest = rest[letters..].trim_start();
    }
    Duration::try_from_secs_f64(total).ok()
}

/// Seconds of a unit.
fn unit(name: &str) -> Option<f64> {
    Some(match name {
        "us" | "usec" | "µs" => 1e-6,
        "ms" | "msec" => 1e-3,
        "" | "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hr" | "hour" | "hours" => 3600.0,
        "d" | "day" | "days" => 86_400.0,
        "w" | "week" | "weeks" => 604_800.0,
        "M" | "month" | "months" => 2_629_800.0,
        "y" | "year" | "years" => 31_557_600.0,
        _ => return None,
    })
}

/// A span as `systemctl` shows it, two units at most: `4min 12s`.
pub(in crate::host) fn show(span: Duration) -> String {
    let seconds = span.as_secs();
    let (days, hours) = (seconds / 86_400, seconds % 86_400 / 3600);
    let (minutes, rest) = (seconds % 3600 / 60, seconds % 60);
    match (days, hours, minutes) {
        (0, 0, 0) if seconds == 0 => format!("{}ms", span.as_millis()),
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}min {rest}s"),
        (0, ..) => format!("{hours}h {minutes}min"),
        (1, ..) => format!("1 day {hours}h"),
        _ => format!("{days} days"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_systemd_reads() {
        for (text, milliseconds) in [
            ("5min", 300_000),
            ("300", 300_000),
            ("1h 30s", 3_630_000),
            ("1h30s", 3_630_000),
            ("50ms", 50),
            ("2.5 s", 2_500),
            ("0", 0),
        ] {
            assert_eq!(
                parse(text),
                Some(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        assert_eq!(parse("infinity"), Some(Duration::MAX));
        for bad in ["", "5 parsecs", "min", "-5s", "5,5s", "1e3"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn shows_two_units() {
        assert_eq!(show(Duration::from_secs(252)), "4min 12s");
        assert_eq!(show(Duration::from_millis(7)), "7ms");
        assert_eq!(show(Duration::from_secs(90_000)), "1 day 1h");
    }
}
