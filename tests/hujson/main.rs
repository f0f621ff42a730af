//! The reader of policy files against Tailscale's own parser: made-up documents by the tens of thousands, and real files with
//! pieces cut out, swapped and put in. Where one reads what the other refuses, or both read it otherwise, the test fails;
//! what is refused on purpose although Tailscale reads it is counted by its reason.
//!
//! `tests/run hujson` builds the other side (`oracle`, a few lines of Go) and names it in `M8TRX_TEST_HUJSON`.
//! `M8TRX_TEST_SEED` makes other documents.

// The count is the result of the tier.
#![allow(clippy::print_stdout)]

mod documents;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use m8trx::tailnet::policy::hujson::{Document, Node, SyntaxError, Value};

use documents::Maker;

/// How many documents are made.
const DOCUMENTS: usize = 100_000;

/// Why a document is refused that Tailscale reads.
const STRICTER: [&str; 6] = [
    "a carriage return without a newline behind it",
    "half a surrogate pair",
    "a policy file is one object",
    "levels deep",
    "is there a second time",
    "not UTF-8",
];

/// Tailscale's side.
struct Oracle {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
}

impl Oracle {
    fn start() -> Self {
        let program = std::env::var_os("M8TRX_TEST_HUJSON")
            .expect("M8TRX_TEST_HUJSON names the program that tests/run hujson builds");
        let mut child = Command::new(program)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            to: child.stdin.take().unwrap(),
            from: child.stdout.take().unwrap(),
            child,
        }
    }

    /// The value it reads, as [`write`] writes it, or why it reads none.
    fn judge(&mut self, text: &[u8]) -> Result<String, String> {
        let length = u32::try_from(text.len()).unwrap();
        self.to.write_all(&length.to_be_bytes()).unwrap();
        self.to.write_all(text).unwrap();
        let mut length = [0; 4];
        self.from.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.from.read_exact(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        match answer.strip_prefix("value: ") {
            Some(value) => Ok(value.to_owned()),
            None => Err(answer),
        }
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A value in the form in which the other side writes it.
fn write(node: &Node, out: &mut String) {
    match &node.value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|one, other| one.name.as_bytes().cmp(other.name.as_bytes()));
            out.push('{');
            for member in members {
                string(&member.name, out);
                out.push(':');
                write(&member.value, out);
                out.push(',');
            }
            out.push('}');
        }
        Value::Array(elements) => {
            out.push('[');
            for element in elements {
                write(element, out);
                out.push(',');
            }
            out.push(']');
        }
        Value::String(text) => string(text, out),
        Value::Number(number) => out.extend(["#", number]),
        Value::Bool(bool) => out.push_str(if *bool { "true" } else { "false" }),
        Value::Null => out.push_str("<nil>"),
    }
}

fn string(text: &str, out: &mut String) {
    out.push('\'');
    for byte in text.bytes() {
        let _ = std::fmt::Write::write_fmt(out, format_args!("{byte:02x}"));
    }
    out.push('\'');
}

#[derive(Default)]
struct Tally {
    read: usize,
    refused: usize,
    stricter: BTreeMap<&'static str, usize>,
}

impl Tally {
    fn judge(&mut self, oracle: &mut Oracle, text: &[u8]) {
        let ours = Document::parse_bytes(text.to_vec());
        let theirs = oracle.judge(text);
        let shown = || String::from_utf8_lossy(text).escape_debug().to_string();
        match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                let mut value = String::new();
                write(&ours.root, &mut value);
                assert_eq!(value, theirs, "{}", shown());
                self.read += 1;
            }
            (Err(_), Err(_)) => self.refused += 1,
            (Ok(_), Err(theirs)) => panic!("only m8trx reads it ({theirs}): {}", shown()),
            (Err(ours), Ok(_)) => {
                let class = reason(&ours);
                let class = class
                    .unwrap_or_else(|| panic!("only Tailscale reads it ({ours}): {}", shown()));
                *self.stricter.entry(class).or_default() += 1;
            }
        }
    }
}

fn reason(error: &SyntaxError) -> Option<&'static str> {
    let text = error.to_string();
    STRICTER.into_iter().find(|class| text.contains(class))
}

#[test]
fn documents_are_read_as_tailscale_reads_them() {
    let seed = std::env::var("M8TRX_TEST_SEED").map_or(1, |seed| seed.parse().unwrap());
    let mut oracle = Oracle::start();
    let mut tally = Tally::default();
    let mut maker = Maker::new(seed);
    for text in documents::BY_HAND {
        tally.judge(&mut oracle, text);
    }
    for _ in 0..DOCUMENTS {
        tally.judge(&mut oracle, maker.document().as_bytes());
    }
    let Tally {
        read,
        refused,
        stricter,
    } = tally;
    // A tally of documents that only one kind of verdict was ever given to would prove little.
    assert!(
        read > DOCUMENTS / 10 && refused > DOCUMENTS / 10,
        "{read} read, {refused} refused"
    );
    for class in STRICTER {
        assert!(stricter.contains_key(class), "no document shows: {class}");
    }
    println!(
        "seed {seed}: {read} documents read alike, {refused} refused by both, refused here only: {stricter:?}"
    );
}

/// What hides a rule from a reader that ends a `//` comment at a carriage return is refused with its place.
#[test]
fn a_hidden_rule_is_refused_although_tailscale_reads_it() {
    let text =
        "{\"grants\":[// foo \r /*\n{\"src\":[\"*\"],\"dst\":[\"*\"],\"ip\":[\"*\"]}\n// */\n]}";
    let theirs = Oracle::start().judge(text.as_bytes()).unwrap();
    assert!(theirs.contains("{'647374':['2a',]"), "{theirs}");
    assert_eq!(
        Document::parse(text).unwrap_err().to_string(),
        "line 1, column 19: a carriage return without a newline behind it: editors show a new line there, to Tailscale it is none"
    );
}
