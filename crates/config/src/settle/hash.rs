//! Hashes: the form in which API keys stand in config, and pins of files.

use refrain_core::settings::KeyHash;

/// Reads `blake3:<salt, 32 hex digits>:<digest, 64 hex digits>`.
///
/// # Errors
/// What is wrong, without the text itself.
pub fn parse_key_hash(text: &str) -> Result<KeyHash, String> {
    let mut parts = text.split(':');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("blake3"), Some(salt), Some(digest), None) => {
            Ok(KeyHash { salt: hex("salt", salt)?, digest: hex("digest", digest)? })
        }
        _ => Err("expected \"blake3:SALT:DIGEST\"; make one with `refrain key new`".to_owned()),
    }
}

/// Reads a SHA-256 digest: 64 hex digits.
pub(crate) fn parse_sha256(text: &str) -> Result<[u8; 32], String> {
    hex("SHA-256", text)
}

fn hex<const N: usize>(what: &str, text: &str) -> Result<[u8; N], String> {
    let wrong = || format!("the {what} must be {} hex digits", N * 2);
    if text.len() != N * 2 {
        return Err(wrong());
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digit = |ascii: u8| char::from(ascii).to_digit(16);
        match (digit(pair[0]), digit(pair[1])) {
            (Some(high), Some(low)) => *byte = (high * 16 + low) as u8,
            _ => return Err(wrong()),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_into_its_bytes() {
        let text = format!("blake3:{}:{}", "0F".repeat(16), "a1".repeat(32));
        let hash = parse_key_hash(&text).unwrap();
        assert_eq!((hash.salt, hash.digest), ([0x0f; 16], [0xa1; 32]));
    }

    #[test]
    fn a_broken_hash_says_what_is_missing_and_never_itself() {
        for (text, expected) in [
            ("secret", "expected \"blake3:SALT:DIGEST\""),
            ("sha256:00:00", "expected \"blake3:SALT:DIGEST\""),
            ("blake3:secret:00", "the salt must be 32 hex digits"),
            (&format!("blake3:{}:secret", "00".repeat(16)), "the digest must be 64 hex digits"),
            (&format!("blake3:{}:{}é", "00".repeat(16), "0".repeat(62)), "the digest must be 64 hex digits"),
        ] {
            let error = parse_key_hash(text).unwrap_err();
            assert!(error.starts_with(expected) && !error.contains("secret"), "{error}");
        }
    }
}
