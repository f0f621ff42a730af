//! What is read, and what is refused with its place.

use super::*;

fn refusal(text: &str) -> String {
    Document::parse(text).unwrap_err().to_string()
}

#[test]
fn comments_and_trailing_commas_are_read_and_nothing_else() {
    let document = Document::parse(
        "// head\n{ /* a */ \"a\": [1, \"zwei\", true, null,], // tail\n \"B\": {},\n}\n// end\n",
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
        (
            "{\"a\" 1}",
            "line 1, column 6: `1` where a colon must follow the key",
        ),
        (
            "{\"a\": 1 \"b\": 2}",
            "line 1, column 9: `\"` where a comma or `}` must follow a value",
        ),
        ("{\"a\": [1,,2]}", "line 1, column 10: "),
        (
            "{\"ä\": \"öü\", x}",
            "line 1, column 13: `x` where a key in double quotes",
        ),
        ("{} {}", "line 1, column 4: "),
        ("{\"a\": \"\\x41\"}", "line 1, column "),
        (
            "{\"a\": [",
            "line 1, column 8: the file ends where a value must stand",
        ),
        (
            "{} // no newline",
            "line 1, column 4: a `//` comment that no newline ends",
        ),
        (
            "{ // x\ry\n}",
            "line 1, column 7: a carriage return without a newline",
        ),
        ("{ /* x\ry */ }", "line 1, column 7: a carriage return"),
        ("{\r\n\r}", "line 2, column 1: a carriage return"),
        (
            "{ // x\u{2028}\n}",
            "line 1, column 7: a line separator (U+2028)",
        ),
        (
            "{\u{a0}}",
            "line 1, column 2: a no-break space (U+00A0) where",
        ),
        ("{\u{b}}", "line 1, column 2: a vertical tab (U+000B) where"),
        ("{\u{c}}", "line 1, column 2: a form feed (U+000C) where"),
        (
            "{\"a\": \"\t\"}",
            "line 1, column 8: a tab (U+0009) in a string",
        ),
        (
            "{\"a\": \"\\ud800\"}",
            "line 1, column 8: half a surrogate pair",
        ),
        ("\u{feff}{}", "line 1, column 1: a byte order mark"),
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
