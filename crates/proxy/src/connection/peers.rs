//! How many connections each client address has open, over all data threads.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use refrain_core::settings::{Limits, Network};

/// Open connections by client. As many clients at most as there are connections, which are bounded.
#[derive(Default)]
pub(crate) struct Peers(Mutex<HashMap<Network, usize>>);

/// A connection's place among those of its client; given back when dropped.
pub(crate) struct Place(Option<(Arc<Peers>, Network)>);

impl Peers {
    /// A place for a new connection; none if its client has too many.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr, limits: &Limits) -> Option<Place> {
        let Some(client) = client(peer, limits) else { return Some(Place(None)) };
        let mut open = self.0.lock();
        let count = open.entry(client).or_default();
        if *count >= limits.connections_per_address_max {
            return None;
        }
        *count += 1;
        Some(Place(Some((self.clone(), client))))
    }

    fn leave(&self, client: Network) {
        let mut open = self.0.lock();
        if let Some(count) = open.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                open.remove(&client);
            }
        }
    }
}

/// Who is at the other end; none: a balancer, which brings many.
pub(crate) fn client(peer: IpAddr, limits: &Limits) -> Option<Network> {
    let is_balancer = limits.trusted_proxies.iter().any(|network| network.contains(peer));
    (!is_balancer).then(|| Network::of_client(peer))
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some((peers, client)) = self.0.take() {
            peers.leave(client);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(trusted: &[&str]) -> Limits {
        let trusted = trusted.iter().map(|address| Network::of(address.parse().unwrap(), 8).unwrap());
        Limits { connections_per_address_max: 2, trusted_proxies: trusted.collect(), ..Limits::default() }
    }

    /// Which of these connections get a place, all being open at once.
    fn admitted(limits: &Limits, peers: &[&str]) -> Vec<bool> {
        let table = Arc::new(Peers::default());
        let places: Vec<_> = peers.iter().map(|peer| table.admit(peer.parse().unwrap(), limits)).collect();
        let admitted = places.iter().map(Option::is_some).collect();
        drop(places);
        assert!(table.0.lock().is_empty());
        admitted
    }

    #[test]
    fn a_client_has_so_many_connections_and_others_have_theirs() {
        let peers = ["10.0.0.1", "10.0.0.1", "10.0.0.1", "10.0.0.2", "::ffff:10.0.0.1"];
        assert_eq!(admitted(&limits(&[]), &peers), [true, true, false, true, false]);
    }

    #[test]
    fn a_whole_64_is_one_client() {
        let peers = ["2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::3", "2001:db8:0:1::1"];
        assert_eq!(admitted(&limits(&[]), &peers), [true, true, false, true]);
    }

    #[test]
    fn balancers_are_not_counted() {
        assert_eq!(admitted(&limits(&["10.0.0.0"]), &["10.1.2.3"; 5]), [true; 5]);
    }

    #[test]
    fn a_place_is_given_back() {
        let (table, limits) = (Arc::new(Peers::default()), limits(&[]));
        for _ in 0..10 {
            assert!(table.admit([10, 0, 0, 1].into(), &limits).is_some());
        }
    }
}
