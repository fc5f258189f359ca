//! Memory for request bodies under way, over all connections: whoever sends many large ones at once, each slower than the
//! next, must neither fill it nor take it from everybody else.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use refrain_core::settings::{Limits, Network};
use refrain_core::{Code, TenantId, UserId};

use crate::auth::Caller;
use crate::connection;
use crate::failure::Failure;

/// Bodies up to this size take no room: they come in one read, and there are no more of them than connections and streams.
const FREE_BYTES: usize = 16 * 1024;
/// When to come again, in seconds: answers take seconds.
const RETRY_AFTER_S: u32 = 1;

/// Bytes of all bodies under way, over all workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyMemory(Arc<Mutex<Books>>);

/// What one request may hold of it, and for whom.
#[derive(Clone, Copy)]
pub(crate) struct Share<'a> {
    /// All of it.
    pub(crate) memory: &'a BodyMemory,
    /// Who asks.
    pub(crate) caller: &'a Caller,
    /// From where.
    pub(crate) peer: IpAddr,
    /// How much there is.
    pub(crate) limits: &'a Limits,
}

/// What one body holds, until dropped. Short ones hold nothing.
#[derive(Debug, Default)]
pub(crate) struct Room(Option<Held>);

#[derive(Debug)]
struct Held {
    memory: BodyMemory,
    /// None: somebody behind a balancer.
    sender: Option<Sender>,
    bytes: usize,
}

/// Whose bodies are counted together: a verified person, a service as a whole, or the address of somebody without credentials.
/// Not the tenant: many deployments have one alone, whose people would share a share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Sender {
    Caller(TenantId, Option<UserId>),
    Address(Network),
}

/// Who holds how much.
#[derive(Debug, Default)]
struct Books {
    taken: usize,
    /// Whoever is in it holds more than [`FREE_BYTES`]: there are at most `limits.bodies` / 16 KiB of them, a hundredth of that
    /// memory.
    by_sender: HashMap<Sender, usize>,
}

impl Share<'_> {
    /// Makes a body hold this many bytes in all, if there is room for them.
    ///
    /// # Errors
    /// All bodies together would take more than config allows, or those of this sender more than they leave free: 503.
    pub(crate) fn hold(&self, room: &mut Room, bytes: usize) -> Result<(), Failure> {
        if bytes <= FREE_BYTES {
            return Ok(());
        }
        let new = || Held { memory: self.memory.clone(), sender: self.sender(), bytes: 0 };
        room.0.get_or_insert_with(new).grow(bytes, self.limits.bodies_bytes_max)
    }

    fn sender(&self) -> Option<Sender> {
        let identity = &self.caller.identity;
        if identity.is_anonymous() {
            return connection::client(self.peer, self.limits).map(Sender::Address);
        }
        Some(Sender::Caller(identity.tenant.clone(), identity.user.clone()))
    }
}

impl Room {
    /// For as long as anybody has it; none if it holds nothing.
    pub(crate) fn kept(self) -> Option<Arc<Self>> {
        self.0.is_some().then(|| Arc::new(self))
    }
}

impl Held {
    fn grow(&mut self, bytes: usize, bytes_max: usize) -> Result<(), Failure> {
        if bytes > self.bytes {
            self.memory.0.lock().take(self.sender.as_ref(), (self.bytes, bytes), bytes_max)?;
            self.bytes = bytes;
        }
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.memory.0.lock().give_back(self.sender.as_ref(), self.bytes);
        }
    }
}

impl Books {
    /// A body of `held` bytes grows to `wanted`. A sender's bodies may take as much as they leave free of `bytes_max`: alone half
    /// of it, and however many senders take all that they get, a part is left for the next. Its only body may take what there
    /// is: otherwise none of more than half of it would ever fit.
    fn take(
        &mut self,
        sender: Option<&Sender>,
        (held, wanted): (usize, usize),
        bytes_max: usize,
    ) -> Result<(), Failure> {
        let taken = self.taken.saturating_add(wanted - held);
        let Some(left) = bytes_max.checked_sub(taken) else {
            return Err(full("too many large requests are under way; send this one again later"));
        };
        if let Some(sender) = sender {
            // One that is refused is in it already.
            let its = self.by_sender.entry(sender.clone()).or_default();
            let others_of_it = *its - held;
            if others_of_it > 0 && others_of_it + wanted > left {
                return Err(full("too many of your large requests are under way; send this one again later"));
            }
            *its = others_of_it + wanted;
        }
        self.taken = taken;
        Ok(())
    }

    fn give_back(&mut self, sender: Option<&Sender>, bytes: usize) {
        self.taken -= bytes;
        let Some(Entry::Occupied(mut its)) = sender.map(|sender| self.by_sender.entry(sender.clone())) else {
            return;
        };
        *its.get_mut() -= bytes;
        if *its.get() == 0 {
            its.remove();
        }
    }
}

fn full(message: &'static str) -> Failure {
    Failure { retry_after_s: Some(RETRY_AFTER_S), ..Failure::new(Code::Overloaded, message) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use refrain_core::{Identity, Role};

    use super::*;

    /// Somebody at an address; `user` none: without credentials.
    struct Somebody {
        caller: Caller,
        peer: IpAddr,
    }

    fn somebody(user: Option<&str>, peer: &str) -> Somebody {
        let verified = |user: &str| Identity {
            tenant: "acme".into(),
            user: Some(user.into()),
            claims: BTreeMap::new(),
            role: Role::Caller,
        };
        let identity = user.map_or_else(|| Identity::anonymous(Role::Caller), verified);
        Somebody { caller: Caller::of(identity), peer: peer.parse().unwrap() }
    }

    struct Bench {
        memory: BodyMemory,
        limits: Limits,
    }

    impl Bench {
        fn of(bodies_bytes_max: usize) -> Self {
            Self { memory: BodyMemory::default(), limits: Limits { bodies_bytes_max, ..Limits::default() } }
        }

        fn hold(&self, by: &Somebody, room: &mut Room, bytes: usize) -> Result<(), Failure> {
            let Self { memory, limits } = self;
            Share { memory, caller: &by.caller, peer: by.peer, limits }.hold(room, bytes)
        }

        /// A body of this many bytes; none: there is no room.
        fn body(&self, by: &Somebody, bytes: usize) -> Option<Room> {
            let mut room = Room::default();
            self.hold(by, &mut room, bytes).ok().map(|()| room)
        }

        /// As many of this many bytes as get in at once.
        fn flood(&self, by: &Somebody, bytes: usize) -> Vec<Room> {
            std::iter::from_fn(|| self.body(by, bytes)).collect()
        }
    }

    #[test]
    fn bodies_share_their_room_and_give_it_back() {
        let bench = Bench::of(100_000);
        let behind_a_balancer = somebody(None, "127.0.0.1");
        let mut one = bench.body(&behind_a_balancer, 60_000).unwrap();
        bench.hold(&behind_a_balancer, &mut one, 50_000).unwrap();
        let mut two = bench.body(&behind_a_balancer, 40_000).unwrap();
        let refused = bench.hold(&behind_a_balancer, &mut two, 40_001).unwrap_err();
        assert_eq!((refused.code, refused.retry_after_s), (Code::Overloaded, Some(RETRY_AFTER_S)));
        drop(one);
        bench.hold(&behind_a_balancer, &mut two, 100_000).unwrap();
        drop(two);
        assert_eq!(bench.memory.0.lock().taken, 0);
    }

    #[test]
    fn short_bodies_need_no_room() {
        let bench = Bench::of(0);
        let person = somebody(Some("ann"), "10.0.0.1");
        let room = bench.body(&person, FREE_BYTES).unwrap();
        assert!(room.kept().is_none() && bench.body(&person, FREE_BYTES + 1).is_none());
    }

    #[test]
    fn whoever_sends_many_large_bodies_leaves_as_much_room_as_they_take() {
        for (greedy, other) in [
            (somebody(Some("ann"), "10.0.0.1"), somebody(Some("bob"), "10.0.0.1")),
            (somebody(None, "10.0.0.1"), somebody(None, "10.0.0.2")),
            (somebody(None, "2001:db8::1"), somebody(None, "2001:db8:0:1::1")),
        ] {
            let bench = Bench::of(1_000_000);
            let held = bench.flood(&greedy, 100_000);
            assert_eq!(held.len(), 5);
            let others = bench.flood(&other, 100_000);
            assert_eq!(others.len(), 2, "and so does the next");
            assert!(bench.body(&greedy, 20_000).is_none());
            drop((held, others));
            let books = bench.memory.0.lock();
            assert_eq!((books.taken, books.by_sender.len()), (0, 0));
        }
    }

    #[test]
    fn one_body_alone_may_take_all_the_room() {
        let bench = Bench::of(100_000);
        let person = somebody(Some("ann"), "10.0.0.1");
        let mut room = bench.body(&person, 20_000).unwrap();
        bench.hold(&person, &mut room, 100_000).unwrap();
        drop(room);
        let _first = bench.body(&person, 40_000).unwrap();
        assert!(bench.body(&person, 20_001).is_none());
    }

    #[test]
    fn a_person_is_one_sender_wherever_from_and_those_behind_a_balancer_are_not() {
        let bench = Bench::of(1_000_000);
        let held = bench.flood(&somebody(Some("ann"), "10.0.0.1"), 100_000);
        assert!(bench.body(&somebody(Some("ann"), "10.0.0.2"), 100_000).is_none());
        assert!(bench.body(&somebody(Some("bob"), "10.0.0.2"), 100_000).is_some());
        drop(held);
        assert_eq!(bench.flood(&somebody(None, "127.0.0.1"), 100_000).len(), 10);
    }
}
