//! Newline-delimited JSON: Ollama's streams.

/// Splits bytes into lines, however they are cut. What is held is bounded by what is fed.
#[derive(Debug, Default)]
pub(crate) struct LineReader {
    line: Vec<u8>,
}

impl LineReader {
    /// Takes bytes and calls `dispatch` for each line that they complete; blank lines are skipped.
    pub(crate) fn feed<E>(
        &mut self,
        mut bytes: &[u8],
        dispatch: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(at) = memchr::memchr(b'\n', bytes) {
            self.line.extend_from_slice(&bytes[..at]);
            self.finish(dispatch)?;
            bytes = &bytes[at + 1..];
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    /// Dispatches a last line without a line feed.
    pub(crate) fn finish<E>(&mut self, dispatch: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        let line = std::mem::take(&mut self.line);
        if line.iter().all(u8::is_ascii_whitespace) { Ok(()) } else { dispatch(&line) }
    }
}
