//! Bytes as lower-case hexadecimal digits.

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: [u8; 16] = *b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// What [`hex`] wrote, in either case; none if it isn't `N` bytes of digits.
pub fn unhex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |pair: &[u8; 2]| u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok();
    pairs.iter().map(byte).collect::<Option<Vec<u8>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_their_digits() {
        let bytes: [u8; 256] = std::array::from_fn(|i| i as u8);
        let digits = hex(&bytes);
        assert!(digits.starts_with("000102") && digits.ends_with("fdfeff"));
        assert_eq!(unhex(digits.as_bytes()), Some(bytes));
        assert_eq!(unhex(b"FF"), Some([255]));
        for odd in [&b"f"[..], b"fg", b"f f", b"", b"ffff"] {
            assert_eq!(unhex::<1>(odd), None);
        }
    }
}
