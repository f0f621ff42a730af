//! Small pieces of text.

use std::borrow::Cow;
use std::time::Duration;

use console::measure_text_width;
use jiff::SignedDuration;

/// How long something is ago or to come, in its largest unit: `12 s`, `5 min`, `3 h`, `12 d`. What is negative is `0 s`.
pub fn age(age: SignedDuration) -> String {
    let seconds = age.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A number of bytes: `120 B`, `4.2 kB`, `1.3 MB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        if value < 999.95 {
            break;
        }
        value /= 1000.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// Text from elsewhere on one line: control characters and what looks like a secret are not shown as they are, and what is
/// too long is cut.
pub fn foreign(text: &str, longest: usize) -> String {
    let masked = crate::secret::mask(text, &[]);
    let mut shown = String::new();
    for (count, character) in masked.chars().enumerate() {
        if count == longest {
            shown.push('…');
            break;
        }
        if character.is_control() || is_invisible(character) {
            shown.extend(character.escape_debug());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Text from elsewhere that is one line of ours, however long: nothing in it begins another line.
pub fn one_line(text: &str) -> String {
    foreign(text, usize::MAX)
}

/// The filter that everything passes on its way to a person: what would move the cursor, change the screen or the order of
/// characters is written out. Lines and tabs stay.
pub fn visible(text: &str) -> Cow<'_, str> {
    let passes = |c: char| matches!(c, '\n' | '\t') || !(c.is_control() || is_invisible(c));
    if text.chars().all(passes) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if passes(character) {
            shown.push(character);
        } else {
            shown.extend(character.escape_debug());
        }
    }
    Cow::Owned(shown)
}

/// A JSON document whose strings hold nothing that a terminal would act on; it means the same.
pub fn visible_json(document: &str) -> String {
    let mut shown = String::with_capacity(document.len());
    for character in document.chars() {
        if character.is_control() || is_invisible(character) {
            shown.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Breaks lines that are longer than `width` between words; what follows is indented a little deeper than its line. A word
/// that is longer than a line stays whole: it may be there to be copied.
pub fn wrap(text: &str, width: usize) -> String {
    let mut lines = Vec::new();
    for line in text.split('\n') {
        let indent = line.len() - line.trim_start_matches(' ').len();
        wrap_line(line, width, indent + 2, &mut lines);
    }
    lines.join("\n")
}

/// [`wrap`] with what follows below column `indent`.
pub fn wrap_below(line: &str, width: usize, indent: usize) -> String {
    let mut lines = Vec::new();
    wrap_line(line, width, indent, &mut lines);
    lines.join("\n")
}

fn wrap_line(line: &str, width: usize, indent: usize, lines: &mut Vec<String>) {
    if measure_text_width(line) <= width || indent + 10 > width {
        lines.push(line.to_owned());
        return;
    }
    let start = line.len() - line.trim_start_matches(' ').len();
    let mut current = line[..start].to_owned();
    let mut has_word = false;
    for word in line[start..].split_inclusive(' ') {
        let fits = measure_text_width(&current) + measure_text_width(word.trim_end()) <= width;
        if has_word && !fits {
            lines.push(current.trim_end().to_owned());
            current = " ".repeat(indent);
        }
        current.push_str(word);
        has_word = true;
    }
    lines.push(current.trim_end().to_owned());
}

/// Characters that move or hide others on the screen: marks of direction, separators of lines, joiners.
fn is_invisible(character: char) -> bool {
    matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

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

/// The first few names, and how many there are besides.
pub fn some_of(names: &[&str]) -> String {
    const SHOWN: usize = 10;
    let shown = names[..names.len().min(SHOWN)].join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_are_short() {
        for (seconds, text) in [
            (-5, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3_599, "59 min"),
            (7_200, "2 h"),
            (172_799, "47 h"),
            (172_800, "2 d"),
        ] {
            assert_eq!(age(SignedDuration::from_secs(seconds)), text);
        }
        for (count, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (999_949, "999.9 kB"),
            (999_951, "1.0 MB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn text_from_elsewhere_stays_on_its_line() {
        assert_eq!(
            foreign("a\u{1b}[2J\nb\u{202e}c", 50),
            "a\\u{1b}[2J\\nb\\u{202e}c"
        );
        assert_eq!(foreign("ééééé", 3), "ééé…");
        assert_eq!(foreign("key tskey-auth-kA-b", 50), "key tskey-****");
    }

    #[test]
    fn nothing_that_moves_the_terminal_passes() {
        for (from, to) in [
            ("plain: ü 漢 ✓\n\tnext", "plain: ü 漢 ✓\n\tnext"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("a\rb\u{8}\u{9b}2Jc\u{7f}", "a\\rb\\u{8}\\u{9b}2Jc\\u{7f}"),
            (
                "\u{202e}evil\u{2066}\u{61c}",
                "\\u{202e}evil\\u{2066}\\u{61c}",
            ),
        ] {
            assert_eq!(visible(from), to);
        }
        let document = serde_json::json!({"hostname": "a\u{9b}2J\u{202e}\u{1b}\n"});
        let shown = visible_json(&document.to_string());
        assert_eq!(shown, r#"{"hostname":"a\u009b2J\u202e\u001b\n"}"#);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            document
        );
    }

    #[test]
    fn lines_break_between_words_only() {
        assert_eq!(
            wrap("hint: run the same command again\n  short", 20),
            "hint: run the same\n  command again\n  short"
        );
        assert_eq!(
            wrap("    because: a-word-that-is-longer-than-a-line follows", 24),
            "    because:\n      a-word-that-is-longer-than-a-line\n      follows"
        );
        assert_eq!(
            wrap_below("✓ name  a detail of words", 18, 8),
            "✓ name  a detail\n        of words"
        );
    }

    proptest::proptest! {
        #[test]
        fn wrapping_loses_no_word(text in "[a-zé ]{0,80}( [a-z]{1,40}){0,9}", width in 1usize..90) {
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            proptest::prop_assert_eq!(words(&wrap(&text, width)), words(&text));
        }
    }

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
