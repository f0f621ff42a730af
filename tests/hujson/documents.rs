//! Documents to be read: by hand, made up by the grammar and against it, and real files with pieces cut and swapped.

use m8trx::tailnet::policy::generate;

/// Each shows one thing.
pub const BY_HAND: &[&[u8]] = &[
    b"",
    b" ",
    b"{}",
    b"{} // end\n",
    b"{} // end",
    b"{} /* end */",
    b"{} /* end",
    b"[]",
    b"null",
    b"\xef\xbb\xbf{}",
    b"{\"a\": \"\xff\"}",
    b"{} // \xff\n",
    b"{/**/}",
    b"{/* // */}",
    b"{/* /* */ */}",
    b"{/*/}",
    b"{,}",
    b"{\"a\":[,]}",
    b"{\"a\":[1,,]}",
    b"{\"a\":[1,]}",
    b"{\"a\":1,}",
    b"{\"a\":1,,}",
    b"{\"a\" /* x */ : /* y */ 1 /* z */ , /* w */ }",
    b"{\"a\":1 \"b\":2}",
    b"{\"a\":1, \"a\":2}",
    b"{\"a\":1, \"\\u0061\":2}",
    b"{\"a\":1, \"A\":2}",
    b"{a:1}",
    b"{'a':1}",
    b"{1:1}",
    b"{null:1}",
    b"{\"a\"}",
    b"{\"a\":}",
    b"{\"a\":-}",
    b"{\"a\":-0}",
    b"{\"a\":+1}",
    b"{\"a\":01}",
    b"{\"a\":1.}",
    b"{\"a\":.1}",
    b"{\"a\":1.0e+10}",
    b"{\"a\":1e}",
    b"{\"a\":1E400}",
    b"{\"a\":0x10}",
    b"{\"a\":NaN}",
    b"{\"a\":Infinity}",
    b"{\"a\":nulltrue}",
    b"{\"a\":True}",
    b"{\"a\":1 2}",
    b"{\"a\":\"\\ud83d\\ude00\"}",
    b"{\"a\":\"\\ud83d\"}",
    b"{\"a\":\"\\ude00\\ud83d\"}",
    b"{\"a\":\"\\ud83d\\u0041\"}",
    b"{\"a\":\"\\uD83D\\uDE00\\uFFFF\\u0000\"}",
    b"{\"a\":\"\\u00g0\"}",
    b"{\"a\":\"\\u+123\"}",
    b"{\"a\":\"\\x41\"}",
    b"{\"a\":\"\\'\"}",
    b"{\"a\":\"\\",
    b"{\"a\":\"\\\"",
    b"{\"a\":\"\\/\\b\\f\\n\\r\\t\\\\\\\"\"}",
    b"{\"a\":\"\n\"}",
    b"{\"a\":\"\t\"}",
    b"{\"a\":\"\x7f\"}",
    b"{\"a\":\"\xc2\x85\xe2\x80\xa8\"}",
    b"{\x0b}",
    b"{\x0c}",
    b"{\xc2\xa0}",
    b"{\xc2\x85}",
    b"{\xe2\x80\xa8}",
    b"{ // \x0b \x0c \xc2\x85 \xc2\xa0 \x00 \x1b\n}",
    b"{ // \xe2\x80\xa8\n}",
    b"{ // \xe2\x80\xa9\n}",
    b"{ /* \xe2\x80\xa8 */ }",
    b"{ // \r\n}",
    b"{ // \r }\n}",
    b"{ \r }",
    b"{ /* \r */ }",
    b"{ # x\n}",
    b"{} {}",
    b"{}\x00",
    b"/",
    b"{/}",
    b"{ / / x\n}",
];

/// Pieces that mean something, or look as if they did.
const PIECES: [&str; 56] = [
    "\r",
    "\r\n",
    "\n",
    "\n",
    "\t",
    " ",
    "\u{b}",
    "\u{c}",
    "\u{a0}",
    "\u{85}",
    "\u{2028}",
    "\u{2029}",
    "\u{feff}",
    "\u{200b}",
    "\u{3000}",
    "\0",
    "\u{1b}",
    "\u{7f}",
    "//",
    "//",
    "// x\n",
    "// x\r\n",
    "// x\ry\n",
    "/*",
    "/* x */",
    "*/",
    "/",
    "#",
    "\"",
    "\\",
    "\\\"",
    "\\u0041",
    "\\ud800",
    "\\ud83d\\ude00",
    "\\u00",
    "'",
    "`",
    ",",
    ",",
    ":",
    "{",
    "}",
    "[",
    "]",
    "null",
    "true",
    "fals",
    "0",
    "-0",
    "01",
    "1.5e3",
    "1e",
    "-",
    "\"a\"",
    "\"\u{e9}\u{1f600}\"",
    "\u{e9}",
];

/// A file as people write them, with comments in every place.
const BY_PEOPLE: &str = "// Policy of the tailnet.\r\n{\r\n\t// who\r\n\t\"groups\": { /* people */ \"group:ops\" /* , */ : [\"a@x.com\", /* b */ \"b@x.com\",], },\r\n\t\"hosts\": {\"nas\": \"100.100.1.2\" , \"net\":\"10.0.0.0/8\"}, // two\r\n\t\"acls\": [\r\n\t\t/* all of\r\n\t\t   them */ {\"action\": \"accept\", \"src\": [\"group:ops\"], \"proto\": 6, \"dst\": [\"tag:x:22,80-90\", \"nas:*\"]}, // \u{1f600} \"\r\n\t],\r\n\t\"tests\": [ ], \"randomizeClientPort\": false, \"n\": [1, -2.5e-3, null, true, \"\\u00e9\\n\\\"\"]\r\n}\r\n";

/// Makes documents, the same ones from the same seed.
pub struct Maker {
    state: u64,
    files: Vec<String>,
}

impl Maker {
    pub fn new(seed: u64) -> Self {
        let tags = ["a", "b4-smoke", "c"].map(|name| format!("tag:m8trx-cust-{name}"));
        Self {
            state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            files: vec![
                generate::policy(&tags.into(), 8080),
                include_str!("../../src/sandbox/tailnet/first-policy.hujson").to_owned(),
                BY_PEOPLE.to_owned(),
                "{\"grants\":[// foo \r /*\n{\"src\":[\"*\"],\"dst\":[\"*\"],\"ip\":[\"*\"]}\n// */\n]}".to_owned(),
            ],
        }
    }

    /// Xorshift: good enough to choose by.
    fn below(&mut self, limit: usize) -> usize {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        (self.state >> 11) as usize % limit.max(1)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }

    fn piece(&mut self) -> &'static str {
        PIECES[self.below(PIECES.len())]
    }

    /// The next document.
    pub fn document(&mut self) -> String {
        match self.below(4) {
            0 => self.by_the_grammar(),
            1 => {
                let mut text = self.by_the_grammar();
                self.damage(&mut text);
                text
            }
            2 => {
                let count = self.below(14);
                (0..count).map(|_| self.piece()).collect()
            }
            _ => {
                let file = self.below(self.files.len());
                let mut text = self.files[file].clone();
                for _ in 0..=self.below(3) {
                    self.damage(&mut text);
                }
                text
            }
        }
    }

    fn by_the_grammar(&mut self) -> String {
        let mut out = String::new();
        self.space(&mut out);
        self.object(&mut out, 0);
        self.space(&mut out);
        out
    }

    fn space(&mut self, out: &mut String) {
        while self.one_in(3) {
            let piece = match self.below(12) {
                0 => "\t",
                1 => "\r\n",
                2 => "\n",
                3 => "// x \" { \\\n",
                4 => "// \u{e9} */\r\n",
                5 => "/* x\n // */",
                6 => "/**/",
                7 => "/* \" } , */",
                _ => " ",
            };
            out.push_str(piece);
            if self.one_in(60) {
                out.push_str(self.piece());
            }
        }
    }

    fn list(&mut self, out: &mut String, depth: usize, item: fn(&mut Self, &mut String, usize)) {
        let count = self.below(4);
        self.space(out);
        for index in 0..count {
            if index > 0 {
                out.push(',');
                self.space(out);
            }
            item(self, out, depth);
            self.space(out);
        }
        if count > 0 && self.one_in(3) {
            out.push(',');
            self.space(out);
        }
    }

    fn object(&mut self, out: &mut String, depth: usize) {
        out.push('{');
        self.list(out, depth, |maker, out, depth| {
            maker.string(out);
            maker.space(out);
            out.push(':');
            maker.space(out);
            maker.value(out, depth + 1);
        });
        out.push('}');
    }

    fn value(&mut self, out: &mut String, depth: usize) {
        match self.below(if depth > 3 { 4 } else { 7 }) {
            0 => out.push_str(["null", "true", "false"][self.below(3)]),
            1 => out.push_str(
                [
                    "0",
                    "-1",
                    "12.50",
                    "1e9",
                    "-0.0E-2",
                    "123456789012345678901",
                ][self.below(6)],
            ),
            2 | 3 => self.string(out),
            4 => self.object(out, depth),
            _ if self.one_in(400) => {
                let deep = 500 + self.below(30);
                out.push_str(&"[".repeat(deep));
                out.push_str(&"]".repeat(deep));
            }
            _ => {
                out.push('[');
                self.list(out, depth, Self::value);
                out.push(']');
            }
        }
    }

    fn string(&mut self, out: &mut String) {
        out.push('"');
        for _ in 0..self.below(5) {
            let piece = match self.below(60) {
                0 => "\\ud83d\\ude00",
                1 => "\\ud83d",
                2 => "\\u2028",
                3 => "\u{2028}",
                4 => "\\\"",
                5 => "\\\\",
                6 => "\\/\\b\\f\\n\\r\\t",
                7 => "// /*",
                8 => "\u{1f600}",
                9 => "\\u0000",
                _ => ["a", "b", "tag:", "*", "\u{e9}", " "][self.below(6)],
            };
            out.push_str(piece);
        }
        out.push('"');
    }

    /// A place between two characters.
    fn place(&mut self, text: &str) -> usize {
        let mut at = self.below(text.len() + 1);
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    }

    fn damage(&mut self, text: &mut String) {
        let (one, other) = (self.place(text), self.place(text));
        let (from, to) = (one.min(other), one.max(other));
        match self.below(8) {
            0 => text.truncate(one),
            1 => text.replace_range(from..to, ""),
            2 => {
                // The two parts around a piece change places.
                let swapped = format!("{}{}{}", &text[to..], &text[from..to], &text[..from]);
                *text = swapped;
            }
            3 => {
                let again = text[from..to].chars().take(40).collect::<String>();
                text.insert_str(from, &again);
            }
            4 => {
                if let Some(c) = text[one..].chars().next() {
                    text.replace_range(one..one + c.len_utf8(), "");
                }
            }
            5 => {
                let piece = self.piece();
                if let Some(c) = text[one..].chars().next() {
                    text.replace_range(one..one + c.len_utf8(), piece);
                }
            }
            _ => {
                let piece = self.piece();
                text.insert_str(one, piece);
            }
        }
    }
}
