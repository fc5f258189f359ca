//! The chunked transfer coding (RFC 9112, section 7.1), as strictly as two readers need to be to agree where a body ends: lines
//! end in CRLF, sizes are bare hexadecimal digits, nothing stands between a chunk's data and its CRLF. Extensions and
//! trailers are passed over.

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, HeaderValue};

use crate::connect::HEAD_BYTES_MAX;
use crate::connection::WireFault;

/// Longest line of a chunk's size and its extensions, in bytes.
const SIZE_LINE_BYTES_MAX: usize = 4 * 1024;

/// Most hexadecimal digits of a size.
const SIZE_DIGITS_MAX: usize = 16;

const WRONG: WireFault = WireFault::Malformed("the framing of the body is wrong");

/// Where in the coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chunked {
    /// In the line that says a chunk's size.
    Size,
    /// In a chunk of which so many bytes are to come.
    Data(u64),
    /// In the CRLF after them.
    DataEnd,
    /// In a trailer, or in the empty line that ends them; so many bytes of trailers came before.
    Trailers(usize),
    /// Behind the last byte.
    End,
}

impl Chunked {
    /// Takes as much off the inbox as can be made sense of. What there is of the data, if any, comes as one piece: chunks
    /// that came together are moved together.
    pub(super) fn decode(&mut self, inbox: &mut BytesMut) -> Result<Option<Bytes>, WireFault> {
        let (mut start, mut end, mut at) = (0, 0, 0);
        loop {
            let passed = match self {
                Self::Data(left) => {
                    let bytes = clamp(*left, inbox.len() - at);
                    if start == end {
                        (start, end) = (at, at);
                    } else {
                        inbox.copy_within(at..at + bytes, end);
                    }
                    end += bytes;
                    *left -= bytes as u64;
                    if *left == 0 {
                        *self = Self::DataEnd;
                    }
                    bytes
                }
                _ => match self.pass_over(&inbox[at..]) {
                    Ok(passed) => passed,
                    Err(fault) if start == end => return Err(fault),
                    // What came before it is good; it is found again.
                    Err(_) => break,
                },
            };
            at += passed;
            if passed == 0 {
                break;
            }
        }
        inbox.advance(start);
        let data = inbox.split_to(end - start).freeze();
        inbox.advance(at - end);
        Ok(Some(data).filter(|data| !data.is_empty()))
    }

    /// What stands between data: how many bytes of `rest`, 0 if there are too few to tell.
    fn pass_over(&mut self, rest: &[u8]) -> Result<usize, WireFault> {
        let (next, passed) = match *self {
            Self::Size => {
                let Some(line) = line(rest, SIZE_LINE_BYTES_MAX)? else { return Ok(0) };
                let next = match size(line)? {
                    0 => Self::Trailers(0),
                    size => Self::Data(size),
                };
                (next, line.len() + 2)
            }
            Self::DataEnd => match rest {
                [b'\r', b'\n', ..] => (Self::Size, 2),
                [] | [b'\r'] => return Ok(0),
                _ => return Err(WRONG),
            },
            Self::Trailers(before) => match line(rest, HEAD_BYTES_MAX - before)? {
                None => return Ok(0),
                Some([]) => (Self::End, 2),
                Some(trailer) if !is_field(trailer) => return Err(WRONG),
                Some(trailer) => (Self::Trailers(before + trailer.len() + 2), trailer.len() + 2),
            },
            Self::Data(_) | Self::End => return Ok(0),
        };
        *self = next;
        Ok(passed)
    }
}

fn clamp(left: u64, there: usize) -> usize {
    usize::try_from(left).map_or(there, |left| left.min(there))
}

/// The first line without its CRLF, if that is there. With its CRLF it has at most `bytes_max` bytes.
fn line(rest: &[u8], bytes_max: usize) -> Result<Option<&[u8]>, WireFault> {
    let within = &rest[..rest.len().min(bytes_max)];
    let Some(end) = within.iter().position(|&byte| byte == b'\n') else {
        return if rest.len() >= bytes_max { Err(WRONG) } else { Ok(None) };
    };
    match &within[..end] {
        [line @ .., b'\r'] if !line.contains(&b'\r') => Ok(Some(line)),
        _ => Err(WRONG),
    }
}

/// The size that a line says.
fn size(line: &[u8]) -> Result<u64, WireFault> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let behind = line[digits..].trim_ascii_start();
    if !(1..=SIZE_DIGITS_MAX).contains(&digits) || !(behind.is_empty() || behind[0] == b';') {
        return Err(WRONG);
    }
    let nibble = |digit: &u8| u64::from((*digit as char).to_digit(16).unwrap_or_default());
    Ok(line[..digits].iter().fold(0, |size, digit| size << 4 | nibble(digit)))
}

fn is_field(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else { return false };
    HeaderName::from_bytes(&line[..colon]).is_ok() && HeaderValue::from_bytes(&line[colon + 1..]).is_ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Everything that comes of these pieces, and where the decoder stands then.
    fn decoded(pieces: &[&[u8]]) -> Result<(Vec<u8>, Chunked, Vec<u8>), WireFault> {
        let (mut decoder, mut inbox, mut data) = (Chunked::Size, BytesMut::new(), Vec::new());
        for piece in pieces {
            inbox.extend_from_slice(piece);
            while let Some(piece) = decoder.decode(&mut inbox)? {
                data.extend_from_slice(&piece);
            }
        }
        Ok((data, decoder, inbox.to_vec()))
    }

    fn whole(text: &str) -> Option<String> {
        match decoded(&[text.as_bytes()]) {
            Ok((data, Chunked::End, rest)) if rest.is_empty() => String::from_utf8(data).ok(),
            _ => None,
        }
    }

    #[test]
    fn chunks_that_came_together_are_one_piece() {
        let mut inbox = BytesMut::from("3\r\nabc\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n");
        let mut decoder = Chunked::Size;
        assert_eq!(decoder.decode(&mut inbox).unwrap().unwrap(), "abcdef");
        assert_eq!((decoder, inbox.len()), (Chunked::End, 0));
    }

    #[test]
    fn extensions_trailers_and_upper_case_are_passed_over() {
        assert_eq!(
            whole("A;x=\"y\"\r\n0123456789\r\n0\r\nx: y\r\nz:\r\n\r\n").as_deref(),
            Some("0123456789")
        );
        assert_eq!(whole("01 \r\na\r\n000\r\n\r\n").as_deref(), Some("a"));
    }

    #[test]
    fn what_another_reader_could_read_differently_is_wrong() {
        for text in [
            "\r\n",
            "+1\r\na\r\n0\r\n\r\n",
            "0x1\r\na\r\n0\r\n\r\n",
            " 1\r\na\r\n0\r\n\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1;a\rb\r\na\r\n0\r\n\r\n",
            "1 2\r\na\r\n0\r\n\r\n",
            "10000000000000000\r\na\r\n0\r\n\r\n",
            "1\r\na\r\n0\r\nx: y\n\r\n",
        ] {
            assert!(decoded(&[text.as_bytes()]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn good_data_before_a_wrong_chunk_is_handed_out_first() {
        let mut inbox = BytesMut::from("1\r\na\r\nZ\r\n");
        let mut decoder = Chunked::Size;
        assert_eq!(decoder.decode(&mut inbox).unwrap().unwrap(), "a");
        assert!(decoder.decode(&mut inbox).is_err());
    }

    #[test]
    fn lines_and_trailers_have_a_bound() {
        let endless = "1;".to_owned() + &"x".repeat(SIZE_LINE_BYTES_MAX);
        assert!(decoded(&[endless.as_bytes()]).is_err());
        let trailer = format!("x: {}\r\n", "y".repeat(1000));
        let trailers = "0\r\n".to_owned() + &trailer.repeat(HEAD_BYTES_MAX / 1000 + 1);
        assert!(decoded(&[trailers.as_bytes()]).is_err());
    }

    proptest! {
        #[test]
        fn any_chunks_split_anywhere_give_what_went_in(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
            after in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let mut wire = Vec::new();
            for chunk in &chunks {
                wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                wire.extend_from_slice(chunk);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            wire.extend_from_slice(&after);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len())).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
            let (data, decoder, rest) = decoded(&pieces).unwrap();
            prop_assert_eq!(data, chunks.concat());
            prop_assert_eq!(decoder, Chunked::End);
            prop_assert_eq!(rest, after);
        }

        #[test]
        fn any_bytes_split_anywhere_come_to_the_same(
            wire in "([0-9a-f;\r\n]|\r\n){0,40}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let wire = wire.as_bytes();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(wire.len() + 1)).collect();
            cuts.extend([0, wire.len()]);
            cuts.sort_unstable();
            let pieces: Vec<_> = cuts.windows(2).map(|cut| &wire[cut[0]..cut[1]]).collect();
            prop_assert_eq!(decoded(&pieces), decoded(&[wire]));
        }
    }
}
