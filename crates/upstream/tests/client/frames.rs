//! An HTTP/2 server that sends, frame by frame, what a test tells it to (RFC 9113, section 6).

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::server::{Server, within};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

pub(crate) const INTERNAL_ERROR: u32 = 2;
pub(crate) const REFUSED_STREAM: u32 = 7;
pub(crate) const CANCEL: u32 = 8;

/// `:status: 200`, from HPACK's static table.
const STATUS_200: &[u8] = &[0x88];

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// The server's end of one HTTP/2 connection.
pub(crate) struct FramePeer(TcpStream);

impl FramePeer {
    /// Accepts a connection and exchanges the prefaces.
    pub(crate) async fn accept(server: &Server) -> Self {
        let tcp = server.accept().await.into_stream();
        tcp.set_nodelay(true).unwrap();
        let mut peer = Self(tcp);
        let mut preface = vec![0; PREFACE.len()];
        within(peer.0.read_exact(&mut preface)).await.unwrap();
        assert_eq!(preface, PREFACE);
        peer.send(SETTINGS, 0, 0, &[]).await;
        peer
    }

    pub(crate) async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = (payload.len() as u32).to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        within(self.0.write_all(&frame)).await.unwrap();
    }

    /// The next frame; settings are acknowledged.
    pub(crate) async fn frame(&mut self) -> Frame {
        let mut head = [0; 9];
        within(self.0.read_exact(&mut head)).await.unwrap();
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length];
        within(self.0.read_exact(&mut payload)).await.unwrap();
        let frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if frame.kind == SETTINGS && frame.flags & ACK == 0 {
            self.send(SETTINGS, ACK, 0, &[]).await;
        }
        frame
    }

    /// The next frame of a kind.
    pub(crate) async fn next(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.frame().await;
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// Waits for a whole request; gives its stream.
    pub(crate) async fn request(&mut self) -> u32 {
        loop {
            let frame = self.frame().await;
            if matches!(frame.kind, HEADERS | DATA) && frame.flags & END_STREAM != 0 {
                return frame.stream;
            }
        }
    }

    pub(crate) async fn head(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS, stream, STATUS_200).await;
    }

    pub(crate) async fn answer(&mut self, stream: u32, body: &str) {
        self.head(stream).await;
        self.send(DATA, END_STREAM, stream, body.as_bytes()).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32, code: u32) {
        self.send(RST_STREAM, 0, stream, &code.to_be_bytes()).await;
    }

    /// Says that nothing after `last` is or will be processed.
    pub(crate) async fn go_away(&mut self, last: u32) {
        let payload = [last.to_be_bytes(), 0u32.to_be_bytes()].concat();
        self.send(GOAWAY, 0, 0, &payload).await;
    }

    /// Waits until the client has closed.
    pub(crate) async fn closed(&mut self) {
        let mut rest = vec![0; 1 << 16];
        while !matches!(within(self.0.read(&mut rest)).await, Ok(0) | Err(_)) {}
    }
}
