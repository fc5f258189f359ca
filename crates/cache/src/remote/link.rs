//! The connections to Redis, one a thread, and whether Redis may be asked at all.
//!
//! A request never waits longer than one deadline: the first failure of the connection closes the link for everybody, and
//! only the keeper ([`super::keeper`]) opens it again, on new connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, ThreadId};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use redis::cluster_routing::RoutingInfo;
use redis::{Cmd, FromRedisValue, Pipeline, RedisResult, ScriptInvocation, Value};
use refrain_core::Tasks;
use tokio::sync::{Notify, OnceCell};
use tokio::time::timeout;

use super::server::{Connection, Server};
use super::trouble::{StoreTrouble, Trouble};

/// The link.
pub(super) struct Link {
    server: Arc<Server>,
    deadline: Duration,
    is_up: AtomicBool,
    /// By thread: a runtime's tasks wake each other without crossing threads. Emptied when the link closes.
    connections: ArcSwap<HashMap<ThreadId, Arc<OnceCell<Connection>>>>,
    /// Counted up when the link closes, so that what a former connection met doesn't close it again.
    generation: AtomicU64,
    /// Connections being opened, and what must be told: they outlive who asked.
    tasks: Tasks,
    failed: Notify,
    /// What closed it.
    failure: Mutex<Option<StoreTrouble>>,
    troubles: [AtomicU64; Trouble::ALL.len()],
}

impl Link {
    pub(super) fn new(server: Server, deadline: Duration) -> Self {
        Self {
            server: Arc::new(server),
            deadline,
            is_up: AtomicBool::new(false),
            connections: ArcSwap::default(),
            generation: AtomicU64::new(0),
            tasks: Tasks::new(),
            failed: Notify::new(),
            failure: Mutex::default(),
            troubles: Default::default(),
        }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.server.is_cluster()
    }

    /// Whether requests may ask.
    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    /// Requests may ask from now on.
    pub(super) fn open(&self) {
        self.is_up.store(true, Ordering::Release);
    }

    /// Nobody may ask until [`Link::open`]; connections are closed once nobody uses them.
    pub(super) fn close(&self) {
        self.is_up.store(false, Ordering::Release);
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.connections.store(Arc::default());
    }

    /// Waits until a failure has closed the link, and tells it.
    ///
    /// # Cancel safety
    /// Safe: a failure meanwhile is told by the next call.
    pub(super) async fn failed(&self) -> StoreTrouble {
        loop {
            self.failed.notified().await;
            // What failed before the link was opened was told then.
            if !self.is_up() {
                let failure = self.failure.lock().take();
                return failure.unwrap_or_else(StoreTrouble::timed_out);
            }
        }
    }

    /// Times that each trouble was met, in the order of [`Trouble::ALL`].
    pub(super) fn troubles(&self) -> [u64; Trouble::ALL.len()] {
        std::array::from_fn(|index| self.troubles[index].load(Ordering::Relaxed))
    }

    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreTrouble> {
        self.run(async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Several commands on keys of one slot, in one round trip.
    pub(super) async fn ask_all<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, StoreTrouble> {
        self.run(async |mut connection| commands.query_async(&mut connection).await).await
    }

    /// A script, by its digest; sent in full where the server doesn't know it.
    pub(super) async fn call<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
    ) -> Result<T, StoreTrouble> {
        self.run(async |mut connection| script.invoke_async(&mut connection).await).await
    }

    /// A command for one server of a cluster.
    pub(super) async fn ask_at(&self, command: &Cmd, routing: RoutingInfo) -> Result<Value, StoreTrouble> {
        self.run(async |connection| match connection {
            Connection::Single(mut connection) => connection.send_packed_command(command).await,
            Connection::Cluster(mut connection) => connection.route_command(command.clone(), routing).await,
        })
        .await
    }

    /// A command that may be refused in an expected way, which is no trouble: nothing then.
    pub(super) async fn ask_unless<T: FromRedisValue>(
        &self,
        command: &Cmd,
        is_expected: impl Fn(&StoreTrouble) -> bool,
    ) -> Result<Option<T>, StoreTrouble> {
        let generation = self.generation.load(Ordering::Acquire);
        let answered = self.answered(async |mut connection| command.query_async(&mut connection).await).await;
        match answered {
            Ok(answer) => Ok(Some(answer)),
            Err(trouble) if is_expected(&trouble) => Ok(None),
            Err(trouble) => {
                self.note(&trouble, generation);
                Err(trouble)
            }
        }
    }

    /// A search: where it alone takes too long, the rest of the store is not to blame.
    pub(super) async fn search<T: FromRedisValue>(&self, commands: &Pipeline) -> Result<T, StoreTrouble> {
        let asked = self.answered(async |mut connection| commands.query_async(&mut connection).await);
        let generation = self.generation.load(Ordering::Acquire);
        asked.await.inspect_err(|trouble| match trouble.trouble {
            Trouble::TimedOut => self.count(trouble),
            _ => self.note(trouble, generation),
        })
    }

    async fn run<T>(&self, ask: impl AsyncFnOnce(Connection) -> RedisResult<T>) -> Result<T, StoreTrouble> {
        let generation = self.generation.load(Ordering::Acquire);
        self.answered(ask).await.inspect_err(|trouble| self.note(trouble, generation))
    }

    /// Within one deadline, or two where a connection has to be opened first.
    async fn answered<T>(
        &self,
        ask: impl AsyncFnOnce(Connection) -> RedisResult<T>,
    ) -> Result<T, StoreTrouble> {
        let connection = self.connection(self.deadline).await?;
        match timeout(self.deadline, ask(connection)).await {
            Ok(answered) => Ok(answered?),
            Err(_) => Err(StoreTrouble::timed_out()),
        }
    }

    /// Waits until this thread has a connection, so that a command needn't: for this long at most.
    ///
    /// # Cancel safety
    /// Safe: it is opened nevertheless.
    pub(super) async fn connected(&self, patience: Duration) -> Result<(), StoreTrouble> {
        let generation = self.generation.load(Ordering::Acquire);
        let connection = self.connection(patience).await;
        connection.map(drop).inspect_err(|trouble| self.note(trouble, generation))
    }

    async fn connection(&self, patience: Duration) -> Result<Connection, StoreTrouble> {
        if let Some(connection) = self.known() {
            return Ok(connection);
        }
        // It goes on behind, for whoever asks next: a connection may take longer than a command.
        let connecting = StoreTrouble::new(Trouble::Connecting, "a connection is being opened");
        timeout(patience, self.connect()).await.unwrap_or(Err(connecting))
    }

    /// This thread's connection, if it is open.
    fn known(&self) -> Option<Connection> {
        self.connections.load().get(&thread::current().id())?.get().cloned()
    }

    /// This thread's connection, opened if need be.
    ///
    /// # Cancel safety
    /// Safe: it is opened nevertheless.
    pub(super) async fn connect(&self) -> Result<Connection, StoreTrouble> {
        let here = thread::current().id();
        let known = self.connections.load().get(&here).cloned();
        let cell = known.unwrap_or_else(|| self.add(here));
        let server = self.server.clone();
        let opened =
            self.tasks.spawn(async move { cell.get_or_try_init(|| server.connect()).await.cloned() });
        opened.await.unwrap_or_else(|_| Err(StoreTrouble::new(Trouble::Connecting, "the runtime ends")))
    }

    /// Goes on with this whoever leaves, on this thread.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    fn add(&self, here: ThreadId) -> Arc<OnceCell<Connection>> {
        let cell = Arc::new(OnceCell::new());
        self.connections.rcu(|connections| {
            let mut connections = HashMap::clone(connections);
            connections.entry(here).or_insert_with(|| cell.clone());
            connections
        });
        self.connections.load().get(&here).cloned().unwrap_or(cell)
    }

    /// Counts a trouble that no command has met: what Redis answered is in the way.
    pub(super) fn count(&self, trouble: &StoreTrouble) {
        self.troubles[trouble.trouble as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, trouble: &StoreTrouble, generation: u64) {
        self.count(trouble);
        let is_current = self.generation.load(Ordering::Acquire) == generation;
        if is_current && !trouble.trouble.is_of_one_command() {
            *self.failure.lock() = Some(trouble.clone());
            self.close();
            self.failed.notify_one();
        }
    }
}
