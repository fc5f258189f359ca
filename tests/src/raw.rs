//! A client that sends any bytes: for what no proper client would send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::within;

/// A plain TCP connection.
pub struct Raw(TcpStream);

impl Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    /// Sends; the other side may have closed already.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = within("room to send", self.0.write_all(bytes.as_ref())).await;
    }

    /// Says that nothing more will come.
    pub async fn finish(&mut self) {
        let _ = self.0.shutdown().await;
    }

    /// One response: its head, and the body that its length announces. Status 0: the connection was closed without one.
    pub async fn response(&mut self) -> (u16, String) {
        let mut read = Vec::new();
        within("a response", async {
            while !is_whole(&read) {
                if matches!(self.0.read_buf(&mut read).await, Ok(0) | Err(_)) {
                    break;
                }
            }
        })
        .await;
        let text = String::from_utf8_lossy(&read).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
        (status, text)
    }

    /// What comes until a whole response is there, the other side closes, or so much time has passed.
    pub async fn said(&mut self, patience: Duration) -> String {
        let mut read = Vec::new();
        let reading = async {
            while !is_whole(&read) && !matches!(self.0.read_buf(&mut read).await, Ok(0) | Err(_)) {}
        };
        let _ = tokio::time::timeout(patience, reading).await;
        String::from_utf8_lossy(&read).into_owned()
    }

    /// Everything until the other side closes.
    pub async fn rest(&mut self) -> String {
        let mut read = Vec::new();
        let _ = within("the end of the connection", self.0.read_to_end(&mut read)).await;
        String::from_utf8_lossy(&read).into_owned()
    }
}

fn is_whole(read: &[u8]) -> bool {
    let text = String::from_utf8_lossy(read);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    if head.starts_with("HTTP/1.1 100") {
        return true;
    }
    let head = head.to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    match length {
        Some(length) => body.len() >= length,
        None => body.ends_with("0\r\n\r\n"),
    }
}
