//! The id of a stored response, found while it passes: a later request that refers to it must reach the same server.

use memchr::memmem;

/// Bytes in which the id has to come: it is the first field of a response, and in the first event of a stream.
const LOOKED_AT_MAX: usize = 4096;
/// Longest id.
const ID_BYTES_MAX: usize = 256;

/// Looks for the id in the bytes of a `/v1/responses` answer, whole or streamed.
#[derive(Debug, Default)]
pub struct ResponseIdFinder {
    seen: Vec<u8>,
}

/// What is known of the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResponseId {
    /// It may still come.
    Awaited,
    /// This is it.
    Found(String),
    /// There is none where it should be.
    Absent,
}

impl ResponseIdFinder {
    /// Looks at more of the answer. After `Found` or `Absent` there is nothing more to look at.
    pub fn feed(&mut self, chunk: &[u8]) -> ResponseId {
        let room = LOOKED_AT_MAX - self.seen.len();
        self.seen.extend_from_slice(&chunk[..chunk.len().min(room)]);
        match find(&self.seen) {
            Some(id) => ResponseId::Found(id),
            None if self.seen.len() < LOOKED_AT_MAX => ResponseId::Awaited,
            None => ResponseId::Absent,
        }
    }
}

/// The first `"id": "resp..."`.
fn find(text: &[u8]) -> Option<String> {
    memmem::find_iter(text, b"\"id\"").find_map(|at| {
        let rest =
            text[at + 4..].trim_ascii_start().strip_prefix(b":")?.trim_ascii_start().strip_prefix(b"\"")?;
        let end = memchr::memchr(b'"', &rest[..rest.len().min(ID_BYTES_MAX)])?;
        let id = std::str::from_utf8(&rest[..end]).ok()?;
        (id.starts_with("resp") && !id.contains('\\')).then(|| id.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_found_however_it_is_cut() {
        let whole = br#"{"id": "resp_abc", "object":"response","previous_response_id":"resp_old"}"#;
        let stream = b"event: response.created\ndata: {\"type\":\"response.created\",\"response\":{\"id\":\"resp_abc\"}}\n\n";
        for text in [&whole[..], &stream[..]] {
            for cut in 0..text.len() {
                let mut finder = ResponseIdFinder::default();
                let first = finder.feed(&text[..cut]);
                let found = if first == ResponseId::Awaited { finder.feed(&text[cut..]) } else { first };
                assert_eq!(found, ResponseId::Found("resp_abc".to_owned()), "cut at {cut}");
            }
        }
    }

    #[test]
    fn other_ids_are_none_and_the_search_ends() {
        let mut finder = ResponseIdFinder::default();
        assert_eq!(finder.feed(br#"{"id":"msg_1","previous_response_id":"resp_old"}"#), ResponseId::Awaited);
        assert_eq!(finder.feed(&[b' '; LOOKED_AT_MAX]), ResponseId::Absent);
    }
}
