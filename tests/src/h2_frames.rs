//! HTTP/2 by hand: any frames, in any order, for clients that a library would not let anybody be.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::within;

/// Frame types (RFC 9113, section 6).
pub const DATA: u8 = 0;
/// Frame type of a head.
pub const HEADERS: u8 = 1;
/// Frame type of a cancelled stream.
pub const RST_STREAM: u8 = 3;
/// Frame type of settings.
pub const SETTINGS: u8 = 4;
/// Frame type of a ping.
pub const PING: u8 = 6;
/// Frame type of a connection's end.
pub const GOAWAY: u8 = 7;
/// Frame type of more room.
pub const WINDOW_UPDATE: u8 = 8;
/// Frame type of more of a head.
pub const CONTINUATION: u8 = 9;

/// Flag: nothing follows on the stream. On SETTINGS and PING: an answer.
pub const END_STREAM: u8 = 1;
/// Flag: the head is whole.
pub const END_HEADERS: u8 = 4;

/// `GET /` as indexed fields, with authority `x`.
pub const GET_ROOT: &[u8] = &[0x82, 0x84, 0x86, 0x41, 0x01, b'x'];

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Header fields as literals, never indexed, not compressed (RFC 7541, section 6.2.3).
pub fn literals(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0x10);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend(text.bytes());
        }
    }
    block
}

/// With a prefix of 7 bits (RFC 7541, section 5.1).
fn integer(block: &mut Vec<u8>, value: usize) {
    let Some(mut rest) = value.checked_sub(127) else { return block.push(u8::try_from(value).unwrap()) };
    block.push(127);
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).unwrap() | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).unwrap());
}

/// A frame that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// A connection whose preface and (empty or given) settings were sent.
pub struct H2Raw {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl H2Raw {
    /// Connects.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[]).await
    }

    /// Connects with settings (RFC 9113, section 6.5.2).
    pub async fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let stream = within("connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut connection = Self { stream, buffer: Vec::new() };
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend(id.to_be_bytes());
            payload.extend(value.to_be_bytes());
        }
        assert!(connection.send([PREFACE, &frame(SETTINGS, 0, 0, &payload)].concat()).await);
        connection
    }

    /// Sends; false if the other side has closed.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        within("room to send", self.stream.write_all(bytes.as_ref())).await.is_ok()
    }

    /// The next frame; none at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        within("a frame", async {
            loop {
                if let Some(frame) = self.whole() {
                    return Some(frame);
                }
                if matches!(self.stream.read_buf(&mut self.buffer).await, Ok(0) | Err(_)) {
                    return None;
                }
            }
        })
        .await
    }

    /// The next frame of a type; none at the end of the connection.
    pub async fn until(&mut self, kind: u8) -> Option<Frame> {
        while let Some(frame) = self.next().await {
            if frame.kind == kind {
                return Some(frame);
            }
        }
        None
    }

    /// Sends the same bytes again and again, at most so often, reading what comes; how often it went, until the other side
    /// closed.
    pub async fn flood(&mut self, times: usize, bytes: impl Fn(usize) -> Vec<u8>) -> usize {
        let (mut reader, mut writer) = self.stream.split();
        let flooding = async {
            for nth in 0..times {
                if writer.write_all(&bytes(nth)).await.is_err() {
                    return nth;
                }
            }
            times
        };
        let reading = async {
            let mut buffer = vec![0; 64 * 1024];
            while matches!(reader.read(&mut buffer).await, Ok(1..)) {}
        };
        within("the flood's end", async {
            tokio::pin!(flooding, reading);
            tokio::select! {
                sent = &mut flooding => sent,
                () = &mut reading => flooding.await,
            }
        })
        .await
    }

    /// Waits until the other side closes.
    pub async fn closed(&mut self) {
        while self.next().await.is_some() {}
    }

    fn whole(&mut self) -> Option<Frame> {
        let head = self.buffer.first_chunk::<9>()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let (kind, flags) = (head[3], head[4]);
        if self.buffer.len() < 9 + length {
            return None;
        }
        let payload = self.buffer.drain(..9 + length).skip(9).collect();
        Some(Frame { kind, flags, stream, payload })
    }
}
