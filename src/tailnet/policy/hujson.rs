//! The policy file as text: HuJSON, which is JSON with comments and trailing commas, with the place of every value.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use jsonc_parser::ast;
use jsonc_parser::common::Ranged as _;
use jsonc_parser::errors::ParseErrorKind;
use jsonc_parser::{CollectOptions, ParseOptions, parse_to_ast};

/// The largest file that is read. Tailscale documents no limit; a policy for 1,000 customers has about 0.4 MB.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// A place in a file, counted from 1; the column in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// A text is not HuJSON, or not an object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Something is wrong at a place.
    #[error("{at}: {reason}")]
    At {
        /// Where.
        at: Position,
        /// What.
        reason: String,
    },
    /// One key twice in one object: readers disagree on which of the two counts.
    #[error("{second}: {} is there a second time; the first is at {first}", .key.escape_debug())]
    DuplicateKey {
        /// The key.
        key: String,
        /// Where it stands first.
        first: Position,
        /// Where it stands again.
        second: Position,
    },
    /// Not a policy file at all.
    #[error("the file has {0} bytes; at most {MAX_BYTES} are read")]
    TooLarge(usize),
    /// Not text.
    #[error("the file is not UTF-8: the byte at offset {0} cannot be read")]
    NotUtf8(usize),
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its bytes in the text.
    pub span: Range<usize>,
    /// What it is.
    pub value: Value,
}

/// A JSON value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `{…}`, in the order of the text.
    Object(Vec<Member>),
    /// `[…]`
    Array(Vec<Node>),
    /// A string, unescaped.
    String(String),
    /// A number as written.
    Number(String),
    /// `true` or `false`
    Bool(bool),
    /// `null`
    Null,
}

/// A key and its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The key, unescaped.
    pub name: String,
    /// The bytes of key and value together.
    pub span: Range<usize>,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The string it is.
    pub fn as_str(&self) -> Option<&str> {
        match &self.value {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    /// The elements of the array it is.
    pub fn as_array(&self) -> Option<&[Node]> {
        match &self.value {
            Value::Array(elements) => Some(elements),
            _ => None,
        }
    }

    /// The members of the object it is.
    pub fn as_object(&self) -> Option<&[Member]> {
        match &self.value {
            Value::Object(members) => Some(members),
            _ => None,
        }
    }

    /// The member of this name. Upper and lower case are alike, as they are to Tailscale: its files have `acls` as well as
    /// `ACLs`.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.as_object()?
            .iter()
            .find(|member| member.name.eq_ignore_ascii_case(name))
            .map(|member| &member.value)
    }

    /// The strings of an array, with the elements that are none left out.
    pub fn strings(&self) -> impl Iterator<Item = &str> {
        self.as_array()
            .unwrap_or_default()
            .iter()
            .filter_map(Node::as_str)
    }
}

/// A parsed file: its text, and the object it is.
#[derive(Debug, Clone)]
pub struct Document {
    /// The text.
    pub text: String,
    /// The object.
    pub root: Node,
    line_starts: Vec<usize>,
}

impl Document {
    /// Parses a text. Never recurses deeper than 512 levels: what is nested deeper is refused.
    pub fn parse(text: impl Into<String>) -> Result<Self, SyntaxError> {
        let text = text.into();
        if text.len() > MAX_BYTES {
            return Err(SyntaxError::TooLarge(text.len()));
        }
        let line_starts = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        let mut document = Self {
            text,
            root: Node {
                span: 0..0,
                value: Value::Null,
            },
            line_starts,
        };
        document.root = document.read()?;
        Ok(document)
    }

    /// As [`Document::parse`], of bytes that may not be text.
    pub fn parse_bytes(bytes: Vec<u8>) -> Result<Self, SyntaxError> {
        let text = String::from_utf8(bytes)
            .map_err(|e| SyntaxError::NotUtf8(e.utf8_error().valid_up_to()))?;
        Self::parse(text)
    }

    fn read(&self) -> Result<Node, SyntaxError> {
        // What HuJSON allows beyond JSON is comments and trailing commas, nothing else.
        let options = ParseOptions {
            allow_comments: true,
            allow_trailing_commas: true,
            allow_loose_object_property_names: false,
            allow_missing_commas: false,
            allow_single_quoted_strings: false,
            allow_hexadecimal_numbers: false,
            allow_unary_plus_numbers: false,
            allow_bare_decimal_point_numbers: false,
            allow_non_finite_numbers: false,
            allow_extended_string_escapes: false,
        };
        let parsed =
            parse_to_ast(&self.text, &CollectOptions::default(), &options).map_err(|e| {
                let reason = match e.kind() {
                    ParseErrorKind::NestingDepthExceeded => {
                        "it is nested more than 512 levels deep".to_owned()
                    }
                    kind => kind.to_string().to_lowercase(),
                };
                self.error(e.range().start, reason)
            })?;
        let value = parsed
            .value
            .ok_or_else(|| self.error(self.text.len(), "the file is empty"))?;
        let ast::Value::Object(_) = &value else {
            return Err(self.error(value.start(), "a policy file is one object, `{…}`"));
        };
        self.node(&value)
    }

    fn node(&self, value: &ast::Value<'_>) -> Result<Node, SyntaxError> {
        let span = value.start()..value.end();
        let value = match value {
            ast::Value::StringLit(text) => Value::String(text.value.clone().into_owned()),
            ast::Value::NumberLit(number) => Value::Number(number.value.to_owned()),
            ast::Value::BooleanLit(literal) => Value::Bool(literal.value),
            ast::Value::NullKeyword(_) => Value::Null,
            ast::Value::Array(array) => Value::Array(
                array
                    .elements
                    .iter()
                    .map(|element| self.node(element))
                    .collect::<Result<_, _>>()?,
            ),
            ast::Value::Object(object) => {
                let mut seen = HashMap::with_capacity(object.properties.len());
                let mut members = Vec::with_capacity(object.properties.len());
                for property in &object.properties {
                    let name = property.name.as_str().to_owned();
                    let start = property.start();
                    if let Some(first) = seen.insert(name.clone(), start) {
                        return Err(SyntaxError::DuplicateKey {
                            key: name,
                            first: self.position(first),
                            second: self.position(start),
                        });
                    }
                    members.push(Member {
                        name,
                        span: start..property.end(),
                        value: self.node(&property.value)?,
                    });
                }
                Value::Object(members)
            }
        };
        Ok(Node { span, value })
    }

    /// The place of a byte of the text.
    pub fn position(&self, offset: usize) -> Position {
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self.line_starts[line - 1];
        Position {
            line,
            column: self.text[start..offset.min(self.text.len())]
                .chars()
                .count()
                + 1,
        }
    }

    /// An error at a byte of the text.
    pub fn error(&self, offset: usize, reason: impl Into<String>) -> SyntaxError {
        SyntaxError::At {
            at: self.position(offset),
            reason: reason.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        Document::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn comments_and_trailing_commas_are_read_and_nothing_else() {
        let document = Document::parse(
            "// head\n{ /* a */ \"a\": [1, \"zwei\", true, null,], // tail\n \"B\": {},\n}\n// end",
        )
        .unwrap();
        assert_eq!(document.root.get("a").unwrap().as_array().unwrap().len(), 4);
        assert!(document.root.get("b").unwrap().as_object().is_some());
        for (text, words) in [
            ("", "line 1, column 1: the file is empty"),
            ("// only\n", "line 2, column 1: the file is empty"),
            ("[]", "line 1, column 1: a policy file is one object"),
            ("{'a': 1}", "line 1, column 2: "),
            ("{\n  a: 1}", "line 2, column 3: "),
            ("{\"a\": 0x1}", "line 1, column 7: "),
            ("{\"a\" 1}", "line 1, column 6: expected colon"),
            ("{\"a\": 1 \"b\": 2}", "line 1, column 8: expected comma"),
            ("{\"a\": [1,,2]}", "line 1, column 10: "),
            ("{\"ä\": \"öü\", x}", "line 1, column 13: "),
            ("{} {}", "line 1, column 4: "),
            ("{\"a\": \"\\x41\"}", "line 1, column "),
            ("{\"a\": [", "unterminated"),
            ("<!DOCTYPE html>", "line 1, column 1: "),
        ] {
            let error = refusal(text);
            assert!(error.contains(words), "{text:?}: {error}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_refused_with_both_places() {
        assert_eq!(
            refusal("{\n  \"acls\": [],\n  \"acls\": []\n}"),
            "line 3, column 3: acls is there a second time; the first is at line 2, column 3"
        );
        assert!(refusal("{\"a\": {\"b\": 1, \"\\u0062\": 2}}").contains("second time"));
    }

    #[test]
    fn large_and_deep_files_are_no_danger() {
        for text in [
            format!("{{\"a\": {}", "[".repeat(1_000_000)),
            format!("{{\"a\": {}", "{\"a\":".repeat(1_000_000)),
            format!("{{\"a\": {}{}}}", "[".repeat(600), "]".repeat(600)),
        ] {
            assert!(refusal(&text).contains("512 levels"), "{}", refusal(&text));
        }
        let line = "  // 0123456789 0123456789 0123456789 0123456789\n  \"x\",\n";
        let five_megabytes = format!("{{\"a\": [\n{}]}}", line.repeat(90_000));
        assert!(five_megabytes.len() > 5_000_000);
        let document = Document::parse(five_megabytes).unwrap();
        assert_eq!(document.root.get("a").unwrap().strings().count(), 90_000);
        assert_eq!(
            Document::parse(" ".repeat(MAX_BYTES + 1)).unwrap_err(),
            SyntaxError::TooLarge(MAX_BYTES + 1)
        );
    }

    #[test]
    fn bytes_that_are_no_text() {
        assert_eq!(
            Document::parse_bytes(b"{\"a\xff\": 1}".to_vec()).unwrap_err(),
            SyntaxError::NotUtf8(3)
        );
    }
}
