//! Random identifiers and secrets.

/// Fills a buffer from the operating system's generator.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut buffer = [0; N];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut buffer)
        .expect("the operating system's random generator answers");
    buffer
}

/// `length` characters drawn evenly from `alphabet` (at most 64 characters, so that rejection stays cheap).
pub(crate) fn text(alphabet: &[u8], length: usize) -> String {
    let mut text = String::with_capacity(length);
    // A plain remainder would favour the first characters of the alphabet.
    let limit = 256 - 256 % alphabet.len();
    while text.len() < length {
        for byte in bytes::<64>() {
            if usize::from(byte) < limit && text.len() < length {
                text.push(char::from(alphabet[usize::from(byte) % alphabet.len()]));
            }
        }
    }
    text
}

const HEX: &[u8] = b"0123456789abcdef";
const UPPER: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const MIXED: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Lower-case hexadecimal digits.
pub(crate) fn hex(length: usize) -> String {
    text(HEX, length)
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Upper-case letters and digits, as in AWS key and role ids.
pub(crate) fn upper(length: usize) -> String {
    text(UPPER, length)
}

/// Letters and digits.
pub(crate) fn mixed(length: usize) -> String {
    text(MIXED, length)
}

/// A request id in the form of a UUID.
pub(crate) fn uuid() -> String {
    let digits = hex(32);
    format!(
        "{}-{}-4{}-a{}-{}",
        &digits[..8],
        &digits[8..12],
        &digits[13..16],
        &digits[17..20],
        &digits[20..]
    )
}
