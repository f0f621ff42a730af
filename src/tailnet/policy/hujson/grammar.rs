//! The grammar, as Tailscale's own parser (`github.com/tailscale/hujson`) and the JSON decoder behind it have it.
//!
//! Where the two could see another file than this one, the text is refused: a key that comes twice, a carriage return that
//! stands alone (editors show a new line, a `//` comment goes on behind it), half a surrogate pair. So is what the parser
//! refuses and others take: white space that is not JSON's, control characters in strings, a `//` that nothing ends.

use std::collections::HashMap;

use super::{Member, Node, Value};

/// Deeper nesting is refused: it is read by recursion.
const MAX_DEPTH: usize = 512;

/// Why a text is not read.
pub(super) enum Fault {
    /// Something is wrong at a byte.
    At(usize, String),
    /// A key stands at two places of one object.
    DuplicateKey {
        key: String,
        first: usize,
        second: usize,
    },
}

type Read<T> = Result<T, Fault>;

fn fault<T>(at: usize, reason: impl Into<String>) -> Read<T> {
    Err(Fault::At(at, reason.into()))
}

/// Reads a text that is one value.
pub(super) fn read(text: &str) -> Read<Node> {
    let mut parser = Parser {
        text,
        bytes: text.as_bytes(),
        at: 0,
        depth: 0,
    };
    if text.starts_with('\u{feff}') {
        return fault(
            0,
            "a byte order mark, which Tailscale refuses: save the file as UTF-8 without one",
        );
    }
    parser.space()?;
    if parser.peek().is_none() {
        return fault(parser.at, "the file is empty");
    }
    let node = parser.value()?;
    parser.space()?;
    match parser.peek() {
        None => Ok(node),
        Some(_) => parser.unexpected("after the end of the file's one value"),
    }
}

struct Parser<'t> {
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn unexpected<T>(&self, place: &str) -> Read<T> {
        match self.text[self.at..].chars().next() {
            None => fault(self.at, format!("the file ends {place}")),
            Some(c) => fault(self.at, format!("{} {place}", named(c))),
        }
    }

    /// White space and comments.
    fn space(&mut self) -> Read<()> {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n') => self.at += 1,
                Some(b'\r') => self.carriage_return()?,
                Some(b'/') => match self.bytes.get(self.at + 1) {
                    Some(b'/') => self.line_comment()?,
                    Some(b'*') => self.block_comment()?,
                    _ => return Ok(()),
                },
                _ => return Ok(()),
            }
        }
    }

    fn carriage_return(&mut self) -> Read<()> {
        if self.bytes.get(self.at + 1) != Some(&b'\n') {
            return fault(
                self.at,
                "a carriage return without a newline behind it: editors show a new line there, to Tailscale it is none",
            );
        }
        self.at += 2;
        Ok(())
    }

    fn line_comment(&mut self) -> Read<()> {
        let start = self.at;
        let Some(length) = self.text[start..].find('\n') else {
            return fault(
                start,
                "a `//` comment that no newline ends, which Tailscale refuses: end the file with a newline",
            );
        };
        let comment = &self.text[start..start + length];
        if let Some(at) = comment.find(['\u{2028}', '\u{2029}']) {
            let c = comment[at..].chars().next().unwrap_or_default();
            return fault(
                start + at,
                format!(
                    "{} in a `//` comment: editors show a new line there, to Tailscale it is none",
                    named(c)
                ),
            );
        }
        self.carriage_returns(start, start + length + 1)?;
        self.at = start + length + 1;
        Ok(())
    }

    fn block_comment(&mut self) -> Read<()> {
        let start = self.at;
        let Some(length) = self.text[start + 2..].find("*/") else {
            return fault(start, "a comment that no `*/` ends");
        };
        let end = start + 2 + length + 2;
        self.carriage_returns(start, end)?;
        self.at = end;
        Ok(())
    }

    /// Refuses a carriage return that stands alone between two places.
    fn carriage_returns(&mut self, start: usize, end: usize) -> Read<()> {
        let mut at = start;
        while let Some(found) = self.text[at..end].find('\r') {
            self.at = at + found;
            self.carriage_return()?;
            at = self.at;
        }
        Ok(())
    }

    fn value(&mut self) -> Read<Node> {
        let start = self.at;
        let value = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Value::String(self.string()?),
            _ => self.literal()?,
        };
        Ok(Node {
            span: start..self.at,
            value,
        })
    }

    fn nested(&mut self, read: fn(&mut Self) -> Read<Value>) -> Read<Value> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return fault(
                self.at,
                format!("it is nested more than {MAX_DEPTH} levels deep"),
            );
        }
        self.at += 1;
        let value = read(self);
        self.depth -= 1;
        value
    }

    /// What follows an item: `true` where the list goes on, `false` behind its closing bracket. A comma may come before that.
    fn goes_on(&mut self, close: u8, what: &str) -> Read<bool> {
        self.space()?;
        if self.peek() == Some(b',') {
            self.at += 1;
            self.space()?;
            if self.peek() != Some(close) {
                return Ok(true);
            }
        }
        if self.peek() == Some(close) {
            self.at += 1;
            return Ok(false);
        }
        self.unexpected(&format!(
            "where a comma or `{}` must follow {what}",
            close as char
        ))
    }

    fn array(&mut self) -> Read<Value> {
        let mut elements = Vec::new();
        self.space()?;
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(elements));
        }
        loop {
            elements.push(self.value()?);
            if !self.goes_on(b']', "an element")? {
                return Ok(Value::Array(elements));
            }
        }
    }

    fn object(&mut self) -> Read<Value> {
        let mut members: Vec<Member> = Vec::new();
        let mut seen: HashMap<String, usize> = HashMap::new();
        self.space()?;
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(members));
        }
        loop {
            let start = self.at;
            if self.peek() != Some(b'"') {
                return self.unexpected("where a key in double quotes must stand");
            }
            let name = self.string()?;
            if let Some(first) = seen.insert(name.clone(), start) {
                return Err(Fault::DuplicateKey {
                    key: name,
                    first,
                    second: start,
                });
            }
            self.space()?;
            if self.peek() != Some(b':') {
                return self.unexpected("where a colon must follow the key");
            }
            self.at += 1;
            self.space()?;
            let value = self.value()?;
            members.push(Member {
                name,
                span: start..self.at,
                value,
            });
            if !self.goes_on(b'}', "a value")? {
                return Ok(Value::Object(members));
            }
        }
    }

    /// `null`, `true`, `false` or a number: as much as such words and numbers are made of, then judged as a whole.
    fn literal(&mut self) -> Read<Value> {
        let start = self.at;
        let part = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
        let length = self.bytes[start..].iter().take_while(|b| part(b)).count();
        let text = &self.text[start..start + length];
        let value = match text {
            "" => return self.unexpected("where a value must stand"),
            "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number if is_number(number.as_bytes()) => Value::Number(number.to_owned()),
            other => {
                return fault(
                    start,
                    format!("`{other}` is no value: strings stand in double quotes"),
                );
            }
        };
        self.at += length;
        Ok(value)
    }

    fn string(&mut self) -> Read<String> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text[self.at..];
            // Up to the next character that means something: all of them are ASCII, so nothing is cut.
            let plain = rest
                .bytes()
                .take_while(|b| *b != b'"' && *b != b'\\' && *b >= 0x20);
            let plain = plain.count();
            out.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                None => return fault(start, "a string that no double quote ends"),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => {
                    return self.unexpected("in a string, where it must be written as an escape");
                }
            }
        }
    }

    fn escape(&mut self) -> Read<char> {
        let start = self.at;
        let c = match self.bytes.get(start + 1) {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start),
            _ => return fault(start, "a backslash that begins no escape of JSON"),
        };
        self.at = start + 2;
        Ok(c)
    }

    fn unicode_escape(&mut self, start: usize) -> Read<char> {
        let unit = |at: usize| {
            let digits = self.text.get(at + 2..at + 6)?;
            let all = digits.bytes().all(|b| b.is_ascii_hexdigit());
            let begins = self.bytes.get(at..at + 2) == Some(br"\u");
            (begins && all).then(|| u32::from_str_radix(digits, 16).ok())?
        };
        let Some(first) = unit(start) else {
            return fault(start, r"a `\u` without four hexadecimal digits behind it");
        };
        if let Some(c) = char::from_u32(first) {
            self.at = start + 6;
            return Ok(c);
        }
        let pair =
            unit(start + 6).filter(|second| first < 0xdc00 && (0xdc00..0xe000).contains(second));
        let Some(second) = pair else {
            return fault(
                start,
                "half a surrogate pair, which stands for no character",
            );
        };
        self.at = start + 12;
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        Ok(char::from_u32(code).unwrap_or_default())
    }
}

/// JSON's numbers.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let mut rest = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(rest);
    if whole == 0 || (whole > 1 && rest[0] == b'0') {
        return false;
    }
    rest = &rest[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent = exponent
            .strip_prefix(b"+")
            .or_else(|| exponent.strip_prefix(b"-"))
            .unwrap_or(exponent);
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

/// A character as it can be read in a message, whether it shows or not.
fn named(c: char) -> String {
    let known = match c {
        '\t' => "a tab",
        '\n' => "a newline",
        '\r' => "a carriage return",
        '\u{b}' => "a vertical tab",
        '\u{c}' => "a form feed",
        '\u{a0}' => "a no-break space",
        '\u{2028}' => "a line separator",
        '\u{2029}' => "a paragraph separator",
        '\u{feff}' => "a byte order mark",
        c if c.is_control() => "a control character",
        c if c.is_whitespace() => "white space that JSON does not know",
        c if c.is_ascii_graphic() => return format!("`{c}`"),
        c if c.is_alphanumeric() => return format!("`{c}` (U+{:04X})", c as u32),
        _ => return format!("the character U+{:04X}", c as u32),
    };
    format!("{known} (U+{:04X})", c as u32)
}
