//! Places for connections of operators: so many, and nobody who has shown no token keeps others out by holding them.
//!
//! When all are taken, whoever comes gets the place of a connection on which nothing is asked: one without a token before one with;
//! of those one whose client has the most of them; of those the oldest. Where something is asked on all, it waits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use refrain_core::settings::Network;
use tokio::sync::Notify;

/// All places.
pub(super) struct Places {
    count_max: usize,
    table: Mutex<Table>,
    /// Wakes who waits for one.
    changed: Notify,
}

#[derive(Default)]
struct Table {
    /// In the order in which they came.
    taken: BTreeMap<u64, Taken>,
    next: u64,
}

struct Taken {
    client: Network,
    standing: Standing,
    /// Tells the connection that its place is another's.
    lost: Arc<Notify>,
}

/// What is known of who is there, in the order in which they lose their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    /// Nobody in particular.
    Unknown,
    /// It has asked what it may.
    Known,
    /// And it is being answered.
    Answered,
}

/// A connection's place; given back when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    lost: Arc<Notify>,
}

/// A request of somebody who may ask it, under way: its place can't be lost.
pub(super) struct Answering<'a>(&'a Place);

impl Places {
    /// So many.
    pub(super) fn new(count_max: usize) -> Arc<Self> {
        Arc::new(Self { count_max, table: Mutex::default(), changed: Notify::new() })
    }

    /// A place for a new connection. Waits while on all of them something is answered. One may wait at a time.
    ///
    /// # Cancel safety
    /// Safe: nothing is taken.
    pub(super) async fn take(self: &Arc<Self>, peer: IpAddr) -> Place {
        loop {
            if let Some((number, lost)) = self.table.lock().take(Network::of_client(peer), self.count_max) {
                return Place { places: self.clone(), number, lost };
            }
            self.changed.notified().await;
        }
    }
}

impl Table {
    fn take(&mut self, client: Network, count_max: usize) -> Option<(u64, Arc<Notify>)> {
        if self.taken.len() >= count_max {
            let loser = self.loser()?;
            if let Some(loser) = self.taken.remove(&loser) {
                loser.lost.notify_one();
            }
        }
        let (number, lost) = (self.next, Arc::new(Notify::new()));
        self.next += 1;
        self.taken.insert(number, Taken { client, standing: Standing::Unknown, lost: lost.clone() });
        Some((number, lost))
    }

    /// Whose place is another's next; none: all are being answered.
    fn loser(&self) -> Option<u64> {
        let mut of_client: HashMap<Network, usize> = HashMap::new();
        self.taken.values().for_each(|taken| *of_client.entry(taken.client).or_default() += 1);
        let idle = self.taken.iter().filter(|(_, taken)| taken.standing != Standing::Answered);
        let rank = |taken: &Taken| (taken.standing, Reverse(of_client.get(&taken.client).copied()));
        // Of equal ones the first.
        idle.min_by_key(|(_, taken)| rank(taken)).map(|(number, _)| *number)
    }
}

impl Place {
    /// Ends when it is another's.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn lost(&self) {
        self.lost.notified().await;
    }

    /// Somebody there asks what it may.
    pub(super) fn answering(&self) -> Answering<'_> {
        self.set(Standing::Answered);
        Answering(self)
    }

    fn set(&self, standing: Standing) {
        if let Some(taken) = self.places.table.lock().taken.get_mut(&self.number) {
            taken.standing = standing;
        }
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.set(Standing::Known);
        self.0.places.changed.notify_one();
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.table.lock().taken.remove(&self.number);
        self.places.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};

    use super::*;

    const HOLDER: [u8; 4] = [10, 0, 0, 1];
    const OTHER: [u8; 4] = [10, 0, 0, 2];

    fn poll<T>(future: impl Future<Output = T>) -> Poll<T> {
        std::pin::pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A place that is had at once.
    fn take(places: &Arc<Places>, peer: [u8; 4]) -> Place {
        let Poll::Ready(place) = poll(places.take(peer.into())) else { panic!("it has to wait") };
        place
    }

    fn is_lost(place: &Place) -> bool {
        poll(place.lost()).is_ready()
    }

    #[test]
    fn who_comes_when_all_places_are_held_gets_that_of_the_oldest_without_a_token() {
        let places = Places::new(3);
        let [known, first, second] = [HOLDER; 3].map(|peer| take(&places, peer));
        drop(known.answering());
        let _new = take(&places, HOLDER);
        assert_eq!([&known, &first, &second].map(is_lost), [false, true, false]);
        drop(first);
        assert_eq!(places.table.lock().taken.len(), 3, "it gave back nothing that was another's");
    }

    #[test]
    fn who_holds_many_places_takes_none_from_others() {
        let places = Places::new(4);
        let other = take(&places, OTHER);
        let held: Vec<_> = (0..100).map(|_| take(&places, HOLDER)).collect();
        assert!(!is_lost(&other));
        assert_eq!(held.iter().filter(|place| is_lost(place)).count(), 97);
    }

    #[test]
    fn who_has_shown_a_token_loses_its_place_last_and_never_while_it_is_answered() {
        let places = Places::new(2);
        let [known, other] = [take(&places, HOLDER), take(&places, HOLDER)];
        let answering = known.answering();
        let other_answering = other.answering();
        assert!(poll(places.take(OTHER.into())).is_pending());
        drop(other_answering);
        let new = take(&places, OTHER);
        assert_eq!([&known, &other, &new].map(is_lost), [false, true, false]);
        drop(answering);
        let _newer = take(&places, OTHER);
        assert_eq!([&known, &new].map(is_lost), [false, true]);
    }

    #[tokio::test]
    async fn who_waits_gets_a_place_that_is_given_back() {
        let places = Places::new(1);
        let place = take(&places, HOLDER);
        let answering = place.answering();
        let mut waiting = Box::pin(places.take(OTHER.into()));
        assert!(poll(&mut waiting).is_pending());
        drop(answering);
        drop(place);
        waiting.await;
    }
}
