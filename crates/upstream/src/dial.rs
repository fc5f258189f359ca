//! A name to a TCP connection: addresses of both families are raced against each other ("happy eyeballs", RFC 8305), so that
//! a dead one costs a quarter of a second and not the connect time-out.

use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::sleep;

/// How long an attempt is alone before the next begins beside it (RFC 8305, section 8).
const STAGGER: Duration = Duration::from_millis(250);

/// Most addresses of a name that are tried.
const ADDRESSES_MAX: usize = 16;

/// Connects to a host, which is a name or an address. The caller limits the time.
///
/// # Errors
/// The name has no address, or none accepted; then what the first one said.
///
/// # Cancel safety
/// Dropping the future gives all attempts up.
pub(crate) async fn dial(host: &str, port: u16) -> io::Result<TcpStream> {
    let resolved: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    let tcp = race(&interleaved(resolved), TcpStream::connect).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// The first address first, then one of each family in turns (RFC 8305, section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let leads = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == leads);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut order = Vec::new();
    while order.len() < ADDRESSES_MAX {
        let pair = [first.next(), second.next()];
        if pair == [None, None] {
            break;
        }
        order.extend(pair.into_iter().flatten());
    }
    order.truncate(ADDRESSES_MAX);
    order
}

/// Begins with one address after the other, the next one early if all before have failed. The first success wins, and the
/// other attempts are dropped.
async fn race<T, F>(addresses: &[SocketAddr], connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>>,
{
    let mut left = addresses.iter();
    let mut attempts = Attempts::default();
    loop {
        let began = left.next().map(|&address| attempts.0.push(Box::pin(connect(address)))).is_some();
        if attempts.0.is_empty() {
            let none = || io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            return Err(attempts.1.unwrap_or_else(none));
        }
        let next = async { if began && left.len() > 0 { sleep(STAGGER).await } else { pending().await } };
        tokio::select! {
            connected = attempts.next() => if let Ok(connected) = connected { return Ok(connected) },
            () = next => {}
        }
    }
}

/// Attempts under way, and the first error.
struct Attempts<F>(Vec<Pin<Box<F>>>, Option<io::Error>);

impl<F> Default for Attempts<F> {
    fn default() -> Self {
        Self(Vec::new(), None)
    }
}

/// One attempt failed.
struct Failed;

impl<T, F: Future<Output = io::Result<T>>> Attempts<F> {
    /// Waits until one of them ends. Safe to cancel.
    async fn next(&mut self) -> Result<T, Failed> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Failed>> {
        for index in 0..self.0.len() {
            let Poll::Ready(ended) = self.0[index].as_mut().poll(cx) else { continue };
            drop(self.0.remove(index));
            return Poll::Ready(ended.map_err(|error| {
                self.1.get_or_insert(error);
                Failed
            }));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    use tokio::time::Instant;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// What becomes of an attempt.
    #[derive(Clone, Copy)]
    enum Fate {
        BlackHole,
        Refuses,
        AcceptsAfter(u64),
    }
    use Fate::*;

    /// Who won (its port), when in milliseconds, and how many attempts were begun.
    async fn outcome(fates: &[Fate]) -> (Result<u16, io::ErrorKind>, u128, usize) {
        let begun = AtomicUsize::new(0);
        let connect = async |address: SocketAddr| {
            begun.fetch_add(1, Relaxed);
            match fates[usize::from(address.port())] {
                BlackHole => pending().await,
                Refuses => Err(io::ErrorKind::ConnectionRefused.into()),
                AcceptsAfter(millis) => {
                    sleep(Duration::from_millis(millis)).await;
                    Ok(address.port())
                }
            }
        };
        let addresses: Vec<_> =
            (0..fates.len()).map(|port| SocketAddr::from(([127, 0, 0, 1], port as u16))).collect();
        let started = Instant::now();
        let raced = tokio::time::timeout(Duration::from_secs(5), race(&addresses, connect)).await;
        let raced = raced.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        (raced.map_err(|error| error.kind()), started.elapsed().as_millis(), begun.load(Relaxed))
    }

    #[test]
    fn families_take_turns_and_the_first_address_stays_first() {
        let order = interleaved(addresses(&["[::1]:1", "[::2]:1", "[::3]:1", "127.0.0.1:1", "127.0.0.2:1"]));
        let expected = ["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1", "[::3]:1"];
        assert_eq!(order, addresses(&expected));
        assert_eq!(
            interleaved(addresses(&["127.0.0.1:1", "[::1]:1"])),
            addresses(&["127.0.0.1:1", "[::1]:1"])
        );
        assert_eq!(interleaved(vec!["127.0.0.1:1".parse().unwrap(); 40]).len(), ADDRESSES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_black_holed_address_costs_a_quarter_of_a_second() {
        assert_eq!(outcome(&[BlackHole, AcceptsAfter(3)]).await, (Ok(1), 253, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_refuses_costs_nothing() {
        assert_eq!(outcome(&[Refuses, Refuses, AcceptsAfter(3)]).await, (Ok(2), 3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quick_first_address_is_the_only_one_asked() {
        assert_eq!(outcome(&[AcceptsAfter(249), AcceptsAfter(0)]).await, (Ok(0), 249, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_address_still_wins_if_the_later_ones_fail() {
        assert_eq!(outcome(&[AcceptsAfter(400), Refuses, BlackHole]).await, (Ok(0), 400, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_refuse_the_first_error_is_told() {
        assert_eq!(outcome(&[Refuses, Refuses]).await, (Err(io::ErrorKind::ConnectionRefused), 0, 2));
        assert_eq!(outcome(&[]).await, (Err(io::ErrorKind::NotFound), 0, 0));
        assert_eq!(outcome(&[BlackHole, Refuses]).await, (Err(io::ErrorKind::TimedOut), 5000, 2));
    }
}
