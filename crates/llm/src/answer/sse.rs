//! Server-sent events, by the WHATWG's event-stream rules: CR, LF or CRLF, comments, several data lines, a byte order mark.

/// One dispatched event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    /// The `event` field; empty if there was none.
    pub(crate) name: String,
    /// The data lines, joined by line feeds.
    pub(crate) data: Vec<u8>,
}

/// Splits bytes into events, however they are cut. What is held is bounded by what is fed.
#[derive(Debug, Default)]
pub(crate) struct EventReader {
    line: Vec<u8>,
    after_cr: bool,
    after_first_line: bool,
    name: Vec<u8>,
    data: Option<Vec<u8>>,
}

impl EventReader {
    /// Takes bytes and calls `dispatch` for each event that they complete.
    pub(crate) fn feed<E>(
        &mut self,
        mut bytes: &[u8],
        dispatch: &mut impl FnMut(Event) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.after_cr && bytes.first() == Some(&b'\n') {
            bytes = &bytes[1..];
        }
        self.after_cr = self.after_cr && bytes.is_empty();
        while let Some(at) = memchr::memchr2(b'\n', b'\r', bytes) {
            self.line.extend_from_slice(&bytes[..at]);
            self.end_line(dispatch)?;
            let crlf = bytes[at] == b'\r' && bytes.get(at + 1) == Some(&b'\n');
            self.after_cr = bytes[at] == b'\r' && at + 1 == bytes.len();
            bytes = &bytes[at + 1 + usize::from(crlf)..];
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line<E>(&mut self, dispatch: &mut impl FnMut(Event) -> Result<(), E>) -> Result<(), E> {
        let line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if !std::mem::replace(&mut self.after_first_line, true) {
            text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        }
        if text.is_empty() {
            return self.end_event(dispatch);
        }
        self.field(text);
        self.line = line;
        self.line.clear();
        Ok(())
    }

    fn field(&mut self, line: &[u8]) {
        let colon = memchr::memchr(b':', line).unwrap_or(line.len());
        let value = line.get(colon + 1..).unwrap_or_default();
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match &line[..colon] {
            b"data" => match &mut self.data {
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
                none => *none = Some(value.to_vec()),
            },
            b"event" => self.name = value.to_vec(),
            _ => {}
        }
    }

    fn end_event<E>(&mut self, dispatch: &mut impl FnMut(Event) -> Result<(), E>) -> Result<(), E> {
        let name = std::mem::take(&mut self.name);
        match self.data.take() {
            Some(data) => dispatch(Event { name: String::from_utf8_lossy(&name).into_owned(), data }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut reader = EventReader::default();
        let mut events = Vec::new();
        for piece in pieces {
            let mut dispatch = |event: Event| {
                events.push((event.name, String::from_utf8(event.data).unwrap()));
                Ok::<(), ()>(())
            };
            reader.feed(piece, &mut dispatch).unwrap();
        }
        events
    }

    #[test]
    fn every_line_end_comment_and_split_gives_the_same_events() {
        let expected = vec![(String::new(), "a\nb".to_owned()), ("x".to_owned(), "c".to_owned())];
        for end in ["\n", "\r\n", "\r"] {
            let text =
                "\u{feff}: hi|data: a|data:b|||:x|event: x|id: 1|data: c||data: lost|".replace('|', end);
            assert_eq!(events(&[text.as_bytes()]), expected, "{end:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(events(&bytes), expected, "{end:?} by bytes");
        }
    }

    #[test]
    fn an_event_without_a_blank_line_is_not_dispatched() {
        assert_eq!(events(&[b"data: [DONE]\n"]), vec![]);
        assert_eq!(events(&[b"data\n\n"]), vec![(String::new(), String::new())]);
    }
}
