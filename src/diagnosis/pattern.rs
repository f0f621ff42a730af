//! A regular expression with a word that stands in each text it matches, so that most lines are passed over at once:
//! consoles are long, and each line is held against the whole table.

use regex_lite::Regex;

/// Shorter words stand in too many lines.
const SHORTEST: usize = 4;

pub(super) struct Pattern {
    regex: Regex,
    word: Option<String>,
}

impl Pattern {
    /// Panics on what is no regular expression: patterns are part of the program.
    pub(super) fn new(text: &str) -> Self {
        Self {
            regex: Regex::new(text).unwrap_or_else(|e| panic!("{text}: {e}")),
            word: word(text),
        }
    }

    /// What its named groups catch, where it matches.
    pub(super) fn captured(&self, line: &str) -> Option<Vec<(String, String)>> {
        if self.word.as_ref().is_some_and(|word| !line.contains(word)) {
            return None;
        }
        let captures = self.regex.captures(line)?;
        let caught = |name: &str| Some((name.to_owned(), captures.name(name)?.as_str().to_owned()));
        Some(self.names().filter_map(caught).collect())
    }

    /// The names of its groups.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.regex.capture_names().flatten()
    }
}

/// The longest word of the pattern that stands outside of all groups and choices.
fn word(pattern: &str) -> Option<String> {
    let (mut words, mut depth, mut in_class) = (vec![String::new()], 0, false);
    let mut characters = pattern.chars().peekable();
    while let Some(c) = characters.next() {
        let literal = match c {
            '\\' => characters.next().filter(|c| !c.is_ascii_alphanumeric()),
            '[' if !in_class => {
                in_class = true;
                None
            }
            ']' if in_class => {
                in_class = false;
                None
            }
            '(' if !in_class => {
                depth += 1;
                None
            }
            ')' if !in_class => {
                depth -= 1;
                None
            }
            '|' if depth == 0 && !in_class => return None,
            '.' | '^' | '$' | '*' | '+' | '?' | '{' | '}' | '|' => None,
            c => Some(c),
        };
        // What may be missing or repeated is no part of a word.
        let is_loose = matches!(characters.peek(), Some('?' | '*' | '+' | '{'));
        match literal.filter(|_| depth == 0 && !in_class && !is_loose) {
            Some(c) => words.last_mut()?.push(c),
            None => words.push(String::new()),
        }
    }
    words
        .into_iter()
        .max_by_key(String::len)
        .filter(|word| word.len() >= SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patterns_word_stands_in_whatever_it_matches() {
        for (pattern, wanted) in [
            (
                r"Kernel panic - not syncing: (?<why>.*)$",
                Some("Kernel panic - not syncing: "),
            ),
            (r"curl: \(22\).* error: (?<status>\d+)", Some("curl: (22)")),
            (r"colou?r of it{2}", Some("r of i")),
            (r"(?:apt|dpkg) failed", Some(" failed")),
            (r"apt failed|dpkg failed", None),
            (r"[a-z]+failed{3}", Some("faile")),
            (r"^\d+ \S+$", None),
        ] {
            assert_eq!(word(pattern).as_deref(), wanted, "{pattern}");
        }
    }
}
