//! Where a string's plain text ends: the one loop that sees every byte of a long text.

/// Bytes that vector code looks at together.
const CHUNK: usize = 32;
/// Words that are looked at before vector code: names and most values are too short for it to pay.
const NEAR_WORDS: usize = 4;

/// How many bytes at the start stand for themselves in a JSON string: all before the first quote, backslash or control
/// character.
#[inline]
pub(super) fn plain_run(bytes: &[u8]) -> usize {
    // Most names end within the first word.
    match bytes.first_chunk().map(|word| special_bytes(*word)) {
        Some(special) if special != 0 => first(special),
        _ => near_run(bytes),
    }
}

#[inline(never)]
fn near_run(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let near = &words[..words.len().min(NEAR_WORDS)];
    match run_of_words(near) {
        Ok(run) => run,
        Err(near) => near + far_run(&bytes[near..]),
    }
}

#[inline(never)]
fn far_run(bytes: &[u8]) -> usize {
    let (chunks, _) = bytes.as_chunks::<CHUNK>();
    // No early exit within a chunk: the compiler turns this into vector code.
    let is_plain = |chunk: &&[u8; CHUNK]| !chunk.iter().fold(false, |found, byte| found | is_special(*byte));
    let plain = CHUNK * chunks.iter().take_while(is_plain).count();
    plain + last_run(&bytes[plain..])
}

/// Where one is near, or the end is.
fn last_run(bytes: &[u8]) -> usize {
    let (words, tail) = bytes.as_chunks::<8>();
    match run_of_words(words) {
        Ok(run) => run,
        Err(plain) => plain + tail.iter().take_while(|byte| !is_special(**byte)).count(),
    }
}

/// How many bytes are plain; as an error if all are.
fn run_of_words(words: &[[u8; 8]]) -> Result<usize, usize> {
    for (at, word) in words.iter().enumerate() {
        let special = special_bytes(*word);
        if special != 0 {
            return Ok(8 * at + first(special));
        }
    }
    Err(8 * words.len())
}

/// Whether a byte can't stand for itself. One comparison for two: with this bit turned, the quote follows the control
/// characters.
pub(super) fn is_special(byte: u8) -> bool {
    byte ^ 0x02 < 0x21 || byte == b'\\'
}

/// The top bits of special bytes. Those above the first one may be wrong: a borrow goes upwards.
fn special_bytes(word: [u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 255;
    let word = u64::from_le_bytes(word);
    let quote_or_control = (word ^ (ONES * 0x02)).wrapping_sub(ONES * 0x21);
    let backslash = (word ^ (ONES * 0x5C)).wrapping_sub(ONES);
    (quote_or_control | backslash) & !word & (ONES * 0x80)
}

fn first(special: u64) -> usize {
    special.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn by_byte(bytes: &[u8]) -> usize {
        let is_special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
        bytes.iter().position(is_special).unwrap_or(bytes.len())
    }

    #[test]
    fn a_byte_is_special_exactly_if_json_escapes_it() {
        for byte in 0..=u8::MAX {
            assert_eq!(is_special(byte), by_byte(&[byte]) == 0, "{byte}");
        }
    }

    /// Every byte at every place of a word and of a chunk, after plain bytes of every kind.
    #[test]
    fn the_run_ends_at_the_first_special_byte_wherever_it_stands() {
        for plain in [b' ', b'!', b'#', b'[', b']', 0x7F, 0x80, 0xA2, 0xDC, 0xFF] {
            for length in 0..=2 * (CHUNK + 8 * NEAR_WORDS) {
                let mut bytes = vec![plain; length];
                assert_eq!(plain_run(&bytes), length);
                for byte in 0..=u8::MAX {
                    for after in [0, 1, 7, 8, 40] {
                        bytes.truncate(length);
                        bytes.push(byte);
                        bytes.resize(length + 1 + after, plain);
                        assert_eq!(plain_run(&bytes), by_byte(&bytes), "{byte} after {length} of {plain}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_run_is_that_of_a_reader_byte_by_byte(
            bytes in prop::collection::vec(prop_oneof![20 => 0x20..=u8::MAX, 1 => any::<u8>()], 0..300),
        ) {
            for start in 0..=bytes.len() {
                prop_assert_eq!(plain_run(&bytes[start..]), by_byte(&bytes[start..]));
            }
        }
    }
}
