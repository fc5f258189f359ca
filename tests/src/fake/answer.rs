//! Scripts of answers: what is sent, where it waits, where it breaks.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::watch;

/// Holds an answer back until a test opens it.
#[derive(Clone)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(watch::channel(false).0))
    }
}

impl Gate {
    /// Lets everything through, for ever.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(super) async fn opened(&self) {
        let mut state = self.0.subscribe();
        // The sender lives as long as `self`.
        let _ = state.wait_for(|open| *open).await;
    }
}

/// One answer of the fake: a list of steps. Step 0 is the head; step 1 is the body, or step n a stream's n-th piece.
#[derive(Clone)]
pub struct Answer {
    pub(super) steps: Vec<Step>,
}

#[derive(Clone)]
pub(super) enum Step {
    Send(Bytes),
    Wait(Gate),
    Pause(Duration),
    /// Never goes on.
    Hang,
    Close,
    /// Closes as a crash does.
    Reset,
}

impl Answer {
    /// A whole answer with its length.
    pub fn whole(status: u16, content_type: &str, body: &str) -> Self {
        Self::with_length(status, content_type, body, body.len())
    }

    /// A whole answer that lies about its length, then closes.
    pub fn lying(body: &str, length: usize) -> Self {
        Self::with_length(200, "application/json", body, length).then_close()
    }

    fn with_length(status: u16, content_type: &str, body: &str, length: usize) -> Self {
        let head = format!(
            "HTTP/1.1 {status} Fake\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\
             x-fake-build: 7\r\nset-cookie: fake=1\r\n\r\n"
        );
        Self { steps: vec![Step::Send(head.into()), Step::Send(Bytes::copy_from_slice(body.as_bytes()))] }
    }

    /// A whole JSON answer.
    pub fn json(status: u16, body: &Value) -> Self {
        Self::whole(status, "application/json", &body.to_string())
    }

    /// A stream, each piece in a chunk of its own, with its proper end as last step.
    pub fn stream(content_type: &str, pieces: impl IntoIterator<Item = String>) -> Self {
        let head = format!(
            "HTTP/1.1 200 Fake\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\nx-fake-build: 7\r\n\r\n"
        );
        let chunks = pieces.into_iter().map(|piece| format!("{:x}\r\n{piece}\r\n", piece.len()));
        let texts = std::iter::once(head).chain(chunks).chain(["0\r\n\r\n".to_owned()]);
        Self { steps: texts.map(|text| Step::Send(text.into())).collect() }
    }

    /// More bytes, as a piece of their own.
    pub fn then(mut self, text: &str) -> Self {
        self.steps.push(Step::Send(Bytes::copy_from_slice(text.as_bytes())));
        self
    }

    /// Any bytes.
    pub fn raw(text: impl Into<Bytes>) -> Self {
        Self { steps: vec![Step::Send(text.into())] }
    }

    /// Reads the request and says nothing.
    pub fn never() -> Self {
        Self { steps: vec![Step::Hang] }
    }

    /// Reads the request and closes.
    pub fn close() -> Self {
        Self { steps: vec![Step::Close] }
    }

    /// Closes the connection afterwards.
    pub fn then_close(mut self) -> Self {
        self.steps.push(Step::Close);
        self
    }

    /// Adds a header.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        if let Some(Step::Send(head)) = self.steps.first_mut() {
            let text = String::from_utf8_lossy(head).replacen("\r\n", &format!("\r\n{name}: {value}\r\n"), 1);
            *head = text.into();
        }
        self
    }

    /// Waits for the gate before a step.
    pub fn gate(mut self, before_step: usize, gate: &Gate) -> Self {
        self.steps.insert(before_step, Step::Wait(gate.clone()));
        self
    }

    /// Breaks the connection off in place of a step.
    pub fn cut(mut self, at_step: usize) -> Self {
        self.steps.truncate(at_step);
        self.then_close()
    }

    /// Sends nothing more from a step on, and keeps the connection.
    pub fn hang(mut self, at_step: usize) -> Self {
        self.steps.truncate(at_step);
        self.steps.push(Step::Hang);
        self
    }

    /// Takes its time before a step, as a model does.
    pub fn pause(mut self, before_step: usize, pause: Duration) -> Self {
        self.steps.insert(before_step, Step::Pause(pause));
        self
    }

    /// Takes its time before every piece of the body.
    pub fn paced(self, pause: Duration) -> Self {
        let pieces = self.steps.len();
        (1..pieces).rev().fold(self, |paced, step| paced.pause(step, pause))
    }

    /// Resets the connection after so many bytes, if there are more.
    pub fn reset_after(mut self, bytes: usize) -> Self {
        let mut left = bytes;
        for at in 0..self.steps.len() {
            let Step::Send(piece) = &mut self.steps[at] else { continue };
            if piece.len() > left {
                piece.truncate(left);
                self.steps.truncate(at + 1);
                self.steps.push(Step::Reset);
                break;
            }
            left -= piece.len();
        }
        self
    }
}
