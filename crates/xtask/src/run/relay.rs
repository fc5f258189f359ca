//! A relay before the upstream that notes how long it took to answer, so that Refrain's own time is what remains.
//!
//! It takes one question at a time into account and copies bytes as they are. Requests other than POST (probes) don't
//! count.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// No question was seen.
const NEVER: u64 = u64::MAX;
const COPY_BYTES: usize = 64 * 1024;

pub(super) struct Relay {
    address: SocketAddr,
    times: Arc<Times>,
}

impl Relay {
    /// Listens on a free port of this machine until the program ends.
    pub(super) fn start(upstream: String) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let times = Arc::new(Times::new());
        let noted = times.clone();
        thread::Builder::new().name("relay".into()).spawn(move || {
            for client in listener.incoming().flatten() {
                let (upstream, times) = (upstream.clone(), noted.clone());
                // A connection that fails is closed, which the proxy reports.
                let serve = move || _ = connect(client, &upstream, &times);
                _ = thread::Builder::new().name("relayed".into()).spawn(serve);
            }
        })?;
        Ok(Self { address, times })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How long the upstream took since the last call, from the question's first byte to the answer's last; none: it was
    /// not asked.
    pub(super) fn take(&self) -> Option<Duration> {
        self.times.take()
    }
}

/// When the upstream was asked and last heard, in microseconds since the start.
struct Times {
    start: Instant,
    asked: AtomicU64,
    answered: AtomicU64,
}

impl Times {
    fn new() -> Self {
        Self { start: Instant::now(), asked: AtomicU64::new(NEVER), answered: AtomicU64::new(0) }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(NEVER - 1)
    }

    fn note_request(&self, bytes: &[u8]) {
        if bytes.starts_with(b"POST ") {
            // Only the first counts: a retry belongs to the same question.
            let _ = self.asked.compare_exchange(NEVER, self.now(), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn note_answer(&self) {
        self.answered.store(self.now(), Ordering::Relaxed);
    }

    fn take(&self) -> Option<Duration> {
        let asked = self.asked.swap(NEVER, Ordering::Relaxed);
        let answered = self.answered.load(Ordering::Relaxed);
        (asked != NEVER).then(|| Duration::from_micros(answered.saturating_sub(asked)))
    }
}

fn connect(client: TcpStream, upstream: &str, times: &Arc<Times>) -> std::io::Result<()> {
    let server = TcpStream::connect(upstream)?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_server) = (client.try_clone()?, server.try_clone()?);
    let noted = times.clone();
    thread::Builder::new()
        .name("relayed".into())
        .spawn(move || copy(from_client, to_server, |bytes| noted.note_request(bytes)))?;
    copy(server, client, |_| times.note_answer());
    Ok(())
}

/// Copies until either side ends, then ends the other.
fn copy(mut from: TcpStream, mut to: TcpStream, note: impl Fn(&[u8])) {
    let mut buffer = vec![0; COPY_BYTES];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        note(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers every read with the same bytes, reversed.
    fn mirror() -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                thread::spawn(move || {
                    let mut buffer = [0; 64];
                    while let Ok(read @ 1..) = stream.read(&mut buffer) {
                        buffer[..read].reverse();
                        stream.write_all(&buffer[..read]).unwrap();
                    }
                });
            }
        });
        address
    }

    fn exchange(relay: &Relay, text: &str) -> String {
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[test]
    fn only_questions_are_timed_and_each_once() {
        let relay = Relay::start(mirror()).unwrap();
        assert_eq!(relay.take(), None);
        assert_eq!(exchange(&relay, "GET /health"), "htlaeh/ TEG");
        assert_eq!(relay.take(), None);
        assert_eq!(exchange(&relay, "POST /v1"), "1v/ TSOP");
        assert!(relay.take().is_some());
        assert_eq!(relay.take(), None);
    }
}
