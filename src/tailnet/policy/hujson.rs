//! The policy file as text: HuJSON, which is JSON with comments and trailing commas, with the place of every value.

mod grammar;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use grammar::Fault;

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
        let root = grammar::read(&self.text).map_err(|fault| match fault {
            Fault::At(at, reason) => self.error(at, reason),
            Fault::DuplicateKey { key, first, second } => SyntaxError::DuplicateKey {
                key,
                first: self.position(first),
                second: self.position(second),
            },
        })?;
        match root.value {
            Value::Object(_) => Ok(root),
            _ => Err(self.error(root.span.start, "a policy file is one object, `{…}`")),
        }
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
