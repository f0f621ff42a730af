//! Edits of a HuJSON text that leave every other byte as it is: elements and members put in and taken out.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::hujson::{Document, Node, Value};

/// Replacements of pieces of one text, made all at once.
#[derive(Debug, Default)]
pub struct Edits {
    edits: Vec<(Range<usize>, String)>,
}

impl Edits {
    /// Puts a text in the place of a range.
    pub fn replace(&mut self, range: Range<usize>, text: impl Into<String>) {
        self.edits.push((range, text.into()));
    }

    /// The text with all edits made. Ranges that overlap are taken out together.
    pub fn apply(mut self, text: &str) -> String {
        self.edits
            .sort_by_key(|(range, _)| (range.start, range.end));
        let mut out = String::with_capacity(text.len() + 256);
        let mut at = 0;
        for (range, new) in self.edits {
            if range.start > at {
                out.push_str(&text[at..range.start]);
            }
            out.push_str(&new);
            at = at.max(range.end);
        }
        out.push_str(&text[at..]);
        out
    }
}

/// The items of an array or an object: where each stands.
fn items(container: &Node) -> Vec<Range<usize>> {
    match &container.value {
        Value::Array(elements) => elements.iter().map(|e| e.span.clone()).collect(),
        Value::Object(members) => members.iter().map(|m| m.span.clone()).collect(),
        _ => Vec::new(),
    }
}

/// White space at the beginning of the line on which a byte stands.
pub fn indent_of(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = &text[start..];
    let length = line.len() - line.trim_start_matches([' ', '\t']).len();
    &line[..length]
}

fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// The comma that follows an item, behind comments and white space too.
fn comma_after(text: &str, mut at: usize) -> Option<usize> {
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start();
        at += rest.len() - trimmed.len();
        if trimmed.starts_with(',') {
            return Some(at);
        }
        at += comment_length(trimmed)?;
    }
}

/// The length of the comment that a text begins with.
fn comment_length(text: &str) -> Option<usize> {
    if text.starts_with("//") {
        Some(text.find('\n').unwrap_or(text.len()))
    } else if text.starts_with("/*") {
        text.find("*/").map(|end| end + 2)
    } else {
        None
    }
}

/// The end of what follows on the same line, when that is only white space and comments.
fn end_of_line(text: &str, mut at: usize) -> Option<usize> {
    loop {
        let rest = &text[at..];
        let trimmed = rest.trim_start_matches([' ', '\t', '\r']);
        let skipped = rest.len() - trimmed.len();
        if trimmed.is_empty() || trimmed.starts_with('\n') {
            // A carriage return belongs to the newline.
            let end = at + skipped;
            return Some(at + text[at..end].trim_end_matches('\r').len());
        }
        let length = comment_length(trimmed)?;
        if trimmed.starts_with("/*") && trimmed[..length].contains('\n') {
            return None;
        }
        at += skipped + length;
        if trimmed.starts_with("//") {
            return Some(at - usize::from(text[..at].ends_with('\r')));
        }
    }
}

/// Puts items into an array or an object: at each index, what comes before the item that has that index now.
pub fn insert(
    document: &Document,
    container: &Node,
    inserts: &BTreeMap<usize, Vec<String>>,
    edits: &mut Edits,
) {
    let text = &document.text;
    let items = items(container);
    let newline = newline(text);
    // Items are made with plain newlines; the file may have others.
    let inserts: BTreeMap<usize, Vec<String>> = inserts
        .iter()
        .map(|(index, new)| {
            (
                *index,
                new.iter().map(|item| item.replace('\n', newline)).collect(),
            )
        })
        .collect();
    let Some(first) = items.first() else {
        let all: Vec<&String> = inserts.values().flatten().collect();
        if !all.is_empty() {
            fill(text, container, &all, edits);
        }
        return;
    };
    let own_lines = text[container.span.start..first.start].contains('\n');
    let indent = indent_of(text, first.start).to_owned();
    for (index, new) in &inserts {
        if new.is_empty() {
            continue;
        }
        if *index == 0 {
            let between = if own_lines {
                format!(",{newline}{indent}")
            } else {
                ", ".to_owned()
            };
            let before: String = new.iter().map(|item| format!("{item}{between}")).collect();
            edits.replace(first.start..first.start, before);
            continue;
        }
        let previous = items[index - 1].end;
        let comma = comma_after(text, previous);
        let last = *index == items.len();
        let lead = if own_lines {
            format!("{newline}{indent}")
        } else {
            " ".to_owned()
        };
        let after_comma = comma.map_or(previous, |comma| comma + 1);
        let place = if own_lines {
            end_of_line(text, after_comma).unwrap_or(after_comma)
        } else {
            after_comma
        };
        let mut added = new.join(&format!(",{lead}"));
        added.insert_str(0, &lead);
        if comma.is_some() || !last {
            added.push(',');
        }
        if comma.is_none() {
            edits.replace(previous..previous, ",");
        }
        edits.replace(place..place, added);
    }
}

/// Puts the first items into an array or an object.
fn fill(text: &str, container: &Node, new: &[&String], edits: &mut Edits) {
    let newline = newline(text);
    let outer = indent_of(text, container.span.start);
    // Nothing is in it to say by what it indents; a tab outside is a tab inside.
    let step = if outer.contains('\t') { "\t" } else { "  " };
    let (open, close) = (container.span.start + 1, container.span.end - 1);
    let inner = &text[open..close];
    let lines: String = new
        .iter()
        .map(|item| format!("{outer}{step}{item},{newline}"))
        .collect();
    match inner.rfind('\n') {
        // Comments in it stay before the items.
        Some(last_line) if !inner.trim().is_empty() => {
            let place = open + last_line + 1;
            edits.replace(place..place, lines);
        }
        _ if inner.trim().is_empty() => {
            edits.replace(open..close, format!("{newline}{lines}{outer}"));
        }
        _ => edits.replace(close..close, format!("{newline}{lines}{outer}")),
    }
}

/// Takes items out of an array or an object, with their commas and the comments behind them on the same line.
pub fn remove(document: &Document, container: &Node, indexes: &BTreeSet<usize>, edits: &mut Edits) {
    let text = &document.text;
    let items = items(container);
    let last = items.len() - 1;
    let survivor = (0..items.len())
        .rev()
        .find(|index| !indexes.contains(index));
    for index in indexes {
        let item = &items[*index];
        let comma = comma_after(text, item.end);
        let after = comma.map_or(item.end, |comma| comma + 1);
        let line = text[..item.start]
            .rfind('\n')
            .map_or(0, |newline| newline + 1);
        let begins_line = text[line..item.start].trim().is_empty();
        match end_of_line(text, after) {
            Some(end) if begins_line => {
                let newline = text[end..].find('\n').map_or(0, |at| at + 1);
                edits.replace(line..end + newline, "");
            }
            _ => {
                let spaces =
                    text[after..].len() - text[after..].trim_start_matches([' ', '\t']).len();
                let spaces = if *index == last { 0 } else { spaces };
                edits.replace(item.start..after + spaces, "");
            }
        }
    }
    // Where the last item had no comma behind it, the one that is last now shall have none.
    if let Some(survivor) = survivor
        && indexes.contains(&last)
        && comma_after(text, items[last].end).is_none()
        && let Some(comma) = comma_after(text, items[survivor].end)
    {
        let next = items[survivor + 1].start;
        let gap = text[comma + 1..next].trim().is_empty() && !text[comma..next].contains('\n');
        edits.replace(comma..if gap { next } else { comma + 1 }, "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inserted(text: &str, inserts: &[(usize, &str)]) -> String {
        let document = Document::parse(text).unwrap();
        let mut by_index: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (index, item) in inserts {
            by_index.entry(*index).or_default().push((*item).to_owned());
        }
        let mut edits = Edits::default();
        insert(
            &document,
            document.root.get("a").unwrap(),
            &by_index,
            &mut edits,
        );
        let edited = edits.apply(text);
        Document::parse(edited.clone()).unwrap_or_else(|e| panic!("{e}: {edited}"));
        edited
    }

    fn removed(text: &str, indexes: &[usize]) -> String {
        let document = Document::parse(text).unwrap();
        let mut edits = Edits::default();
        let indexes = indexes.iter().copied().collect();
        remove(
            &document,
            document.root.get("a").unwrap(),
            &indexes,
            &mut edits,
        );
        let edited = edits.apply(text);
        Document::parse(edited.clone()).unwrap_or_else(|e| panic!("{e}: {edited}"));
        edited
    }

    #[test]
    fn items_are_put_where_they_belong_and_comments_stay_with_theirs() {
        for (text, inserts, expected) in [
            ("{\"a\": []}", &[(0, "1")][..], "{\"a\": [\n  1,\n]}"),
            ("{\"a\": [1]}", &[(0, "0"), (1, "2")], "{\"a\": [0, 1, 2]}"),
            ("{\"a\": [1,]}", &[(1, "2")], "{\"a\": [1, 2,]}"),
            ("{\"a\": [1, 3]}", &[(1, "2")], "{\"a\": [1, 2, 3]}"),
            (
                "{\"a\": [\n  // one\n  1, // uno\n  // three\n  3 // tre\n]}",
                &[(0, "0"), (1, "2"), (2, "4"), (2, "5")],
                "{\"a\": [\n  // one\n  0,\n  1, // uno\n  2,\n  // three\n  3, // tre\n  4,\n  5\n]}",
            ),
            (
                "{\"a\": [\n\t1,\n\t]}",
                &[(1, "2")],
                "{\"a\": [\n\t1,\n\t2,\n\t]}",
            ),
            (
                "{\"a\": [\r\n  1 // x\r\n]}\r\n",
                &[(1, "2")],
                "{\"a\": [\r\n  1, // x\r\n  2\r\n]}\r\n",
            ),
            (
                "{\n  \"a\": [\n    // none yet\n  ]}",
                &[(0, "1")],
                "{\n  \"a\": [\n    // none yet\n    1,\n  ]}",
            ),
            (
                "{\"a\": [\n  1 /* , */ , /* b */ 3\n]}",
                &[(1, "2")],
                "{\"a\": [\n  1 /* , */ ,\n  2, /* b */ 3\n]}",
            ),
            (
                "{\"a\": [ /* x */ ]}",
                &[(0, "1")],
                "{\"a\": [ /* x */ \n  1,\n]}",
            ),
        ] {
            assert_eq!(inserted(text, inserts), expected);
        }
    }

    #[test]
    fn items_are_taken_out_with_what_is_theirs() {
        for (text, indexes, expected) in [
            ("{\"a\": [1, 2, 3]}", &[1][..], "{\"a\": [1, 3]}"),
            ("{\"a\": [1, 2, 3]}", &[2], "{\"a\": [1, 2]}"),
            ("{\"a\": [1, 2, 3]}", &[1, 2], "{\"a\": [1]}"),
            ("{\"a\": [1, 2, 3]}", &[0, 1, 2], "{\"a\": []}"),
            ("{\"a\": [1, 2, 3,]}", &[0, 2], "{\"a\": [2, ]}"),
            (
                "{\"a\": [\n  1, // uno\n  // two\n  2, // due\n  3\n]}",
                &[0],
                "{\"a\": [\n  // two\n  2, // due\n  3\n]}",
            ),
            (
                "{\"a\": [\n  1, // uno\n  2, // due\n  3\n]}",
                &[1, 2],
                "{\"a\": [\n  1 // uno\n]}",
            ),
            (
                "{\"a\": [\r\n  1,\r\n  2,\r\n]}",
                &[1],
                "{\"a\": [\r\n  1,\r\n]}",
            ),
            (
                "{\"a\": {\n  \"x\": 1,\n  \"y\": 2,\n}}",
                &[0],
                "{\"a\": {\n  \"y\": 2,\n}}",
            ),
        ] {
            assert_eq!(removed(text, indexes), expected);
        }
    }
}
