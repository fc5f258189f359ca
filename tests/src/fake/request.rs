//! Reads HTTP/1.1 requests as they are, strictly, so that a test can say what came over the wire.

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt};

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Its method.
    pub method: String,
    /// Its path, with the query.
    pub path: String,
    /// Names (lower case) and values, in order.
    pub headers: Vec<(String, String)>,
    /// Its body, unchunked.
    pub body: Vec<u8>,
}

impl Recorded {
    /// All values of a header.
    pub fn header(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(own, _)| own == name).map(|(_, value)| value.as_str()).collect()
    }

    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// The next request; none when the client closes or sends what is none.
pub(super) async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<Recorded> {
    let end = loop {
        match find(buffer, b"\r\n\r\n") {
            Some(end) => break end,
            None => more(stream, buffer).await?,
        }
    };
    let head = String::from_utf8(buffer.drain(..end + 4).collect()).ok()?;
    let mut lines = head.trim_end().split("\r\n");
    let mut request_line = lines.next()?.split(' ');
    let (method, path) = (request_line.next()?.to_owned(), request_line.next()?.to_owned());
    let headers: Vec<_> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut request = Recorded { method, path, headers, body: Vec::new() };
    request.body = body(stream, buffer, &request).await?;
    Some(request)
}

async fn body(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    head: &Recorded,
) -> Option<Vec<u8>> {
    if head.header("transfer-encoding") == ["chunked"] {
        let mut body = Vec::new();
        loop {
            let size = line(stream, buffer).await?;
            let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
            body.extend(exactly(stream, buffer, size).await?);
            line(stream, buffer).await?;
            if size == 0 {
                return Some(body);
            }
        }
    }
    let length = head.header("content-length").first().map_or(Some(0), |length| length.parse().ok())?;
    exactly(stream, buffer, length).await
}

async fn line(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = find(buffer, b"\r\n") {
            let line: Vec<u8> = buffer.drain(..end + 2).collect();
            return String::from_utf8(line[..end].to_vec()).ok();
        }
        more(stream, buffer).await?;
    }
}

async fn exactly(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    length: usize,
) -> Option<Vec<u8>> {
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    Some(buffer.drain(..length).collect())
}

async fn more(stream: &mut (impl AsyncRead + Unpin), buffer: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(buffer).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}

fn find(buffer: &[u8], pattern: &[u8]) -> Option<usize> {
    buffer.windows(pattern.len()).position(|window| window == pattern)
}
