//! Escapes within strings: checked once by the reader, decoded when somebody asks.

/// The code unit of a `\uXXXX` that starts at `at`.
pub(super) fn unit(bytes: &[u8], at: usize) -> Option<u32> {
    let [b'\\', b'u', a, b, c, d] = *bytes.get(at..)?.first_chunk::<6>()? else { return None };
    let digit = |byte: u8| u32::from(HEX_DIGITS[usize::from(byte)]);
    let [a, b, c, d] = [digit(a), digit(b), digit(c), digit(d)];
    // What is no digit is more than any unit.
    (a | b | c | d < 16).then_some(a << 12 | b << 8 | c << 4 | d)
}

const NO_DIGIT: u8 = 0xFF;

/// By byte.
const HEX_DIGITS: [u8; 256] = {
    let mut digits = [NO_DIGIT; 256];
    let mut digit = 0;
    while digit < 16 {
        digits[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digits[b"0123456789ABCDEF"[digit] as usize] = digit as u8;
        digit += 1;
    }
    digits
};

/// Decodes the inside of a string whose escapes were checked by the reader, up to a character boundary at most
/// `bytes_max` in.
pub(super) fn decode_string(inside: &str, bytes_max: usize) -> String {
    let mut decoded = String::with_capacity(inside.len().min(bytes_max));
    let mut pieces = pieces(inside);
    while decoded.len() < bytes_max
        && let Some((plain, character)) = pieces.next()
    {
        decoded.push_str(plain);
        if let Some(character) = character {
            decoded.push(character);
        }
    }
    decoded.truncate(decoded.floor_char_boundary(bytes_max));
    decoded
}

/// The inside of a string whose escapes were checked: text that stands for itself, and the character of the escape that
/// follows it.
pub(super) fn pieces(inside: &str) -> impl Iterator<Item = (&str, Option<char>)> {
    let mut rest = inside;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        // Escapes often follow each other: texts in other scripts are written so.
        let plain = if rest.starts_with('\\') { Some(0) } else { memchr::memchr(b'\\', rest.as_bytes()) };
        let Some(at) = plain else { return Some((std::mem::take(&mut rest), None)) };
        let (plain, escape) = rest.split_at(at);
        let (character, length) = decode_escape(escape.as_bytes());
        rest = &escape[length..];
        Some((plain, Some(character)))
    })
}

/// The character of the escape at the start, and the escape's length.
fn decode_escape(escape: &[u8]) -> (char, usize) {
    let simple = match escape.get(1) {
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return decode_unicode(escape),
        Some(other) => *other as char,
        None => char::REPLACEMENT_CHARACTER,
    };
    (simple, 2)
}

fn decode_unicode(escape: &[u8]) -> (char, usize) {
    let first = unit(escape, 0).unwrap_or(0xFFFD);
    match char::from_u32(first) {
        Some(character) => (character, 6),
        None => {
            let low = unit(escape, 6).unwrap_or(0xDC00);
            let scalar = 0x10000 + ((first & 0x3FF) << 10) + (low & 0x3FF);
            (char::from_u32(scalar).unwrap_or(char::REPLACEMENT_CHARACTER), 12)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_has_four_hexadecimal_digits_and_nothing_else() {
        for byte in 0..=u8::MAX {
            let expected = (byte as char).to_digit(16);
            for at in 0..4 {
                let mut escape = *b"\\u0000";
                escape[2 + at] = byte;
                assert_eq!(unit(&escape, 0), expected.map(|digit| digit << (12 - 4 * at)), "{byte} at {at}");
            }
        }
        assert_eq!((unit(b"\\u00e", 0), unit(b"\\U00e9", 0), unit(b"u00e9", 0)), (None, None, None));
        assert_eq!((unit(b"\\\\u00e9", 1), unit(b"\\u00e9", 9)), (Some(0xE9), None));
    }
}
