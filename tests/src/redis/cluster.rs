//! A cluster of servers: formed, fail-over, slots on the move.

use super::options::HARNESS;
use super::{Flavour, RedisOptions, RedisServer, Value};
use crate::{eventually, within};

/// Hash slots of every cluster.
pub const SLOTS: u16 = 16_384;

const MIGRATE_TIMEOUT_MS: &str = "5000";
const MIGRATE_KEYS: &str = "100";

/// Masters that share the slots evenly, and perhaps a replica for each; all end when it is dropped.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    ids: Vec<String>,
    masters: usize,
}

impl RedisCluster {
    /// Starts masters and waits until each serves.
    pub async fn start(flavour: Flavour, masters: usize) -> Self {
        Self::start_with(masters, || RedisOptions::new(flavour)).await
    }

    /// Starts masters that are set up so: passwords, TLS.
    pub async fn start_with<'a>(masters: usize, options: impl Fn() -> RedisOptions<'a>) -> Self {
        Self::form(masters, 0, options).await
    }

    /// Starts masters with one replica each, and waits until each master serves and each replica is in step. A master that
    /// dies is replaced after 2 to 6 s.
    pub async fn start_with_replicas(flavour: Flavour, masters: usize) -> Self {
        Self::form(masters, masters, || RedisOptions::new(flavour)).await
    }

    /// The masters, in the order of their slots, then the replicas, in the same order; as they were at first, whatever
    /// fail-over made of them.
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// One of [`nodes`](Self::nodes), to kill it or start it again.
    pub fn node_mut(&mut self, index: usize) -> &mut RedisServer {
        &mut self.nodes[index]
    }

    /// Where a node's replica is among the [`nodes`](Self::nodes).
    pub fn replica_of(&self, master: usize) -> usize {
        assert!(self.masters + master < self.nodes.len(), "no replicas were asked for");
        self.masters + master
    }

    /// Every node's URL.
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// The slot of a key.
    pub async fn slot_of(&self, key: &str) -> u16 {
        let slot = self.any().command(&["CLUSTER", "KEYSLOT", key]).await.integer();
        u16::try_from(slot).unwrap()
    }

    /// Which of the [`nodes`](Self::nodes) serves a slot now.
    pub async fn owner_of(&self, slot: u16) -> usize {
        let ranges = self.any().command(&["CLUSTER", "SLOTS"]).await;
        let holds = |range: &&Value| {
            let bounds = range.items()[0].integer()..=range.items()[1].integer();
            bounds.contains(&i64::from(slot))
        };
        let range = ranges.items().iter().find(holds).expect("every slot has an owner");
        let id = range.items()[2].items()[2].text();
        self.ids.iter().position(|own| *own == id).unwrap()
    }

    /// Waits until a replica has become the master and every living node knows and serves.
    pub async fn promoted(&self, replica: usize) {
        let is_master =
            async || (self.nodes[replica].info("role").await.as_deref() == Some("master")).then_some(());
        eventually("the replica's promotion", is_master).await;
        self.served().await;
    }

    /// Waits until every living node serves all slots.
    pub async fn served(&self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            eventually("the cluster's state", async || serves(node).await.then_some(())).await;
        }
    }

    /// Begins to move a slot: from now on its owner answers `ASK` for keys that it hasn't, and `TRYAGAIN` for some of several.
    pub async fn move_slot(&self, slot: u16, to: usize) -> SlotMove<'_> {
        let from = self.owner_of(slot).await;
        assert_ne!(from, to, "the slot is there already");
        let moving = SlotMove { cluster: self, slot, from, to };
        moving.set_state(to, &["IMPORTING", &self.ids[from]]).await;
        moving.set_state(from, &["MIGRATING", &self.ids[to]]).await;
        moving
    }

    async fn form<'a>(masters: usize, replicas: usize, options: impl Fn() -> RedisOptions<'a>) -> Self {
        let (mut nodes, mut ids) = (Vec::new(), Vec::new());
        for _ in 0..masters + replicas {
            let node = RedisServer::start_with(options().cluster()).await;
            ids.push(node.command(&["CLUSTER", "MYID"]).await.text());
            nodes.push(node);
        }
        let cluster = Self { nodes, ids, masters };
        cluster.assign_slots().await;
        cluster.meet().await;
        cluster.served().await;
        for replica in masters..masters + replicas {
            cluster.follow(replica - masters, replica).await;
        }
        cluster.served().await;
        cluster
    }

    async fn assign_slots(&self) {
        let first = |nth: usize| nth * usize::from(SLOTS) / self.masters;
        for (nth, node) in self.nodes.iter().enumerate() {
            // Else nodes that meet would first quarrel about who is right.
            expect_ok(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(nth + 1).to_string()]).await;
            if nth < self.masters {
                let (from, to) = (first(nth).to_string(), (first(nth + 1) - 1).to_string());
                expect_ok(node, &["CLUSTER", "ADDSLOTSRANGE", &from, &to]).await;
            }
        }
    }

    /// Every pair, which is faster than gossip.
    async fn meet(&self) {
        for (nth, node) in self.nodes.iter().enumerate() {
            for other in &self.nodes[nth + 1..] {
                let (address, bus) = (other.address(), other.bus_port().to_string());
                let (ip, port) = (address.ip().to_string(), address.port().to_string());
                expect_ok(node, &["CLUSTER", "MEET", &ip, &port, &bus]).await;
            }
        }
        let all = self.nodes.len().to_string();
        for node in &self.nodes {
            let knows_all = async || (known_nodes(node).await == all).then_some(());
            eventually("the nodes' acquaintance", knows_all).await;
        }
    }

    async fn follow(&self, master: usize, replica: usize) {
        let id = &self.ids[master];
        expect_ok(&self.nodes[replica], &["CLUSTER", "REPLICATE", id]).await;
        let in_step = async || {
            let link = self.nodes[replica].info("master_link_status").await;
            (link.as_deref() == Some("up")).then_some(())
        };
        eventually("the replica's first copy", in_step).await;
        // Who has not heard of it would not vote for it.
        for node in &self.nodes[..self.masters] {
            let known = async || {
                let replicas = node.command(&["CLUSTER", "REPLICAS", id]).await;
                (replicas.items().len() == 1).then_some(())
            };
            eventually("the replica's fame", known).await;
        }
    }

    fn any(&self) -> &RedisServer {
        self.nodes.iter().find(|node| node.is_running()).expect("a node lives")
    }
}

/// A slot on its way to another master. Nothing ends it but [`finish`](Self::finish): a test may look at any state.
#[must_use]
pub struct SlotMove<'a> {
    cluster: &'a RedisCluster,
    slot: u16,
    from: usize,
    to: usize,
}

impl SlotMove<'_> {
    /// Who gives it away, among the cluster's nodes.
    pub fn from(&self) -> usize {
        self.from
    }

    /// Moves all keys that are there now; returns how many.
    pub async fn move_keys(&self) -> usize {
        let mut moved = 0;
        loop {
            let keys = self.keys().await;
            if keys.is_empty() {
                return moved;
            }
            moved += keys.len();
            self.migrate(&keys).await;
        }
    }

    /// Moves what is left and makes the other node the owner, as every living node knows.
    pub async fn finish(self) {
        self.move_keys().await;
        let id = &self.cluster.ids[self.to];
        let others = (0..self.cluster.masters).filter(|node| ![self.from, self.to].contains(node));
        for node in [self.to, self.from].into_iter().chain(others) {
            if self.cluster.nodes[node].is_running() {
                self.set_state(node, &["NODE", id]).await;
            }
        }
    }

    async fn keys(&self) -> Vec<Vec<u8>> {
        let slot = self.slot.to_string();
        let source = &self.cluster.nodes[self.from];
        let keys = source.command(&["CLUSTER", "GETKEYSINSLOT", &slot, MIGRATE_KEYS]).await;
        keys.items().iter().map(|key| key.bytes().to_vec()).collect()
    }

    async fn migrate(&self, keys: &[Vec<u8>]) {
        let target = self.cluster.nodes[self.to].address();
        let (ip, port) = (target.ip().to_string(), target.port().to_string());
        let mut arguments = vec!["MIGRATE", &ip, &port, "", "0", MIGRATE_TIMEOUT_MS];
        if self.cluster.nodes[self.to].asks_who() {
            arguments.extend(["AUTH2", HARNESS[0], HARNESS[1]]);
        }
        arguments.push("KEYS");
        let mut arguments: Vec<&[u8]> = arguments.into_iter().map(str::as_bytes).collect();
        arguments.extend(keys.iter().map(Vec::as_slice));
        let answer = self.cluster.nodes[self.from].command(&arguments).await;
        // NOKEY: they expired on the way.
        assert!(answer.is_ok() || answer.text() == "NOKEY", "{answer:?}");
    }

    async fn set_state(&self, node: usize, state: &[&str]) {
        let slot = self.slot.to_string();
        let arguments = [&["CLUSTER", "SETSLOT", &slot], state].concat();
        expect_ok(&self.cluster.nodes[node], &arguments).await;
    }
}

async fn serves(node: &RedisServer) -> bool {
    let info = within("the cluster's state", node.command(&["CLUSTER", "INFO"])).await.text();
    info.contains("cluster_state:ok") && info.contains(&format!("cluster_slots_ok:{SLOTS}"))
}

async fn known_nodes(node: &RedisServer) -> String {
    let info = node.command(&["CLUSTER", "INFO"]).await.text();
    let known = info.lines().find_map(|line| line.strip_prefix("cluster_known_nodes:"));
    known.unwrap_or_default().to_owned()
}

async fn expect_ok(node: &RedisServer, arguments: &[&str]) {
    let answer = node.command(arguments).await;
    assert!(answer.is_ok(), "{arguments:?}: {answer:?}");
}
