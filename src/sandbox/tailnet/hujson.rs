//! HuJSON, the form of policy files: JSON with comments and trailing commas.

/// The same document as JSON, every byte in its place: comments and trailing commas become white space.
pub(super) fn standardize(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut last_comma = None;
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'"', _) => {
                last_comma = None;
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
            }
            (b'/', Some(b'/')) => {
                while at < bytes.len() && bytes[at] != b'\n' {
                    out[at] = b' ';
                    at += 1;
                }
                continue;
            }
            (b'/', Some(b'*')) => {
                let end = text[at + 2..]
                    .find("*/")
                    .map_or(bytes.len(), |n| at + n + 4);
                for byte in &mut out[at..end] {
                    if *byte != b'\n' {
                        *byte = b' ';
                    }
                }
                at = end;
                continue;
            }
            (b',', _) => last_comma = Some(at),
            (b'}' | b']', _) => {
                if let Some(comma) = last_comma.take() {
                    out[comma] = b' ';
                }
            }
            (byte, _) if byte.is_ascii_whitespace() => {}
            _ => last_comma = None,
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
        for broken in ["[1 2]", "[,]x", "/* open", "{\"a\": \"open"] {
            assert!(serde_json::from_str::<serde_json::Value>(&standardize(broken)).is_err());
        }
    }
}
