//! HuJSON, the form of policy files: JSON with comments and trailing commas.

/// The same document as JSON, every byte in its place: comments and trailing commas become white space.
///
/// A text that Tailscale's own parser refuses for its comments or commas stays one that is no JSON.
pub(super) fn standardize(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    // The comma that nothing but white space follows so far, where a value stands before it.
    let mut last_comma = None;
    let mut behind_value = false;
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'"', _) => {
                (last_comma, behind_value) = (None, true);
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            (b'/', Some(b'/')) => {
                // Only a newline ends it: neither a carriage return nor the end of the file does.
                let Some(length) = text[at..].find('\n') else {
                    break;
                };
                if text[at..at + length].contains(['\u{2028}', '\u{2029}']) {
                    break;
                }
                out[at..at + length].fill(b' ');
                at += length;
                continue;
            }
            (b'/', Some(b'*')) => {
                let Some(length) = text[at + 2..].find("*/") else {
                    break;
                };
                let end = at + 2 + length + 2;
                for byte in &mut out[at..end] {
                    if *byte != b'\n' {
                        *byte = b' ';
                    }
                }
                at = end;
                continue;
            }
            (b',', _) => {
                last_comma = behind_value.then_some(at);
                behind_value = false;
            }
            (b'}' | b']', _) => {
                if let Some(comma) = last_comma.take() {
                    out[comma] = b' ';
                }
                behind_value = true;
            }
            (b' ' | b'\t' | b'\n' | b'\r', _) => {}
            (b'{' | b'[' | b':', _) => (last_comma, behind_value) = (None, false),
            _ => (last_comma, behind_value) = (None, true),
        }
        at += 1;
    }
    // Only whole comments were overwritten, so no character was cut.
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_trailing_commas_go_and_nothing_else() {
        let text =
            "// é, }\n{\"a//\": [1, /* , ] */ 2,], \"b\\\"/*\": {\"c\": 3 , /* x\n */ }, // z\n}";
        let json = standardize(text);
        assert_eq!(json.len(), text.len());
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&json).unwrap(),
            serde_json::json!({"a//": [1, 2], "b\"/*": {"c": 3}})
        );
        for broken in [
            "[1 2]",
            "[,]",
            "[1,,]",
            "{,}",
            "[1 /* open ]",
            "{\"a\": \"open",
            "[] // no newline",
            "[] // \u{2028}\n",
            "[] // \r x\ny",
        ] {
            assert!(serde_json::from_str::<serde_json::Value>(&standardize(broken)).is_err());
        }
    }
}
