//! Would a proxy be able to use this Redis? Asks what a proxy asks, and changes nothing that anybody could see: what has to be
//! written to be tried is removed in the same step.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;
use std::time::Duration;

use redis::{Cmd, Script, ScriptInvocation, Value, cmd};
use tokio::time::Instant;

use super::{StoreUpkeep, ask_any, if_allowed};
use crate::embedder::DIMENSIONS;
use crate::remote::charter;
use crate::remote::link::Link;
use crate::remote::probe::{self, VectorChoice, VectorMode};
use crate::remote::scan::Scan;
use crate::remote::server::Server;
use crate::remote::trouble::{StoreTrouble, Trouble};
use crate::secret::KeySecret;

/// Round trips whose median is told.
const ROUND_TRIPS: usize = 5;

/// Tries what the store writes on names that nobody has; which commands were refused. KEYS: entry, claim; vector set and
/// expiries with vector sets only. ARGV: vector or ''.
static TRY: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local refused = {}
local function try(...)
  local answer = redis.pcall(...)
  local err = type(answer) == 'table' and answer.err
  -- In the words of Redis 7.2 and of those before it.
  if err and (string.find(err, 'permission') or string.find(err, 'executing the script')) then
    table.insert(refused, (select(1, ...)))
  end
  return not err
end
try('TIME')
try('EXISTS', KEYS[1])
if try('DEL', KEYS[1]) then
  try('SET', KEYS[1], '')
  redis.pcall('DEL', KEYS[1])
  try('HSET', KEYS[1], 'r', '')
  try('HGET', KEYS[1], 'r')
  try('PEXPIREAT', KEYS[1], 1)
  try('GET', KEYS[2])
  redis.pcall('DEL', KEYS[1])
  if KEYS[3] then
    try('VADD', KEYS[3], 'FP32', ARGV[1], 'm')
    try('VREM', KEYS[3], 'm')
    try('ZADD', KEYS[4], 1, 'm')
    try('ZRANGE', KEYS[4], '-inf', 2, 'BYSCORE', 'LIMIT', 0, 1)
    try('ZREM', KEYS[4], 'm')
    redis.pcall('DEL', KEYS[3], KEYS[4])
  end
end
return refused
",
    )
});

/// The same for what shared limits ask for. KEYS: meters, leases.
static TRY_LIMITS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local refused = {}
local function try(...)
  local answer = redis.pcall(...)
  local err = type(answer) == 'table' and answer.err
  if err and (string.find(err, 'permission') or string.find(err, 'executing the script')) then
    table.insert(refused, (select(1, ...)))
  end
end
try('HMGET', KEYS[1], '0')
try('HSET', KEYS[1], '0', '0 0')
try('PTTL', KEYS[1])
try('PEXPIRE', KEYS[1], 1)
try('ZADD', KEYS[2], 1, 'm')
try('ZREM', KEYS[2], 'n')
try('ZREMRANGEBYSCORE', KEYS[2], '-inf', 0)
try('ZCARD', KEYS[2])
try('PEXPIRE', KEYS[2], 1)
redis.pcall('DEL', KEYS[1], KEYS[2])
return refused
",
    )
});

/// What proxies would do with the server beside storing answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counting {
    /// Nothing.
    None,
    /// Count what callers ask for, together.
    Limits,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Examination {
    /// The server's version, if it says.
    pub version: Option<String>,
    /// Version of the protocol: 2 or 3.
    pub protocol: Option<u64>,
    /// Median round trip of a command as requests send it.
    pub round_trip: Duration,
    /// How vectors would be searched.
    pub vectors: VectorChoice,
    /// Whether proxies have joined before, with the same secret.
    pub is_joined: bool,
    /// What the server does with memory and disk, if it says.
    pub memory: Option<Memory>,
}

/// What a server does with memory and disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// `maxmemory`, in bytes; 0: no limit.
    pub bytes_max: u64,
    /// `maxmemory-policy`.
    pub policy: String,
    /// Whether anything outlives a restart; none: the server doesn't say.
    pub is_persistent: Option<bool>,
}

impl Memory {
    /// Whether it may remove what proxies agree on and what was purged, when memory is full.
    pub fn evicts_anything(&self) -> bool {
        self.policy.starts_with("allkeys")
    }
}

impl StoreUpkeep {
    /// Tries it, within the deadlines that requests have. `secret`: ours, if there is one yet.
    ///
    /// # Errors
    /// What a proxy would fail at: no connection, no log-in, another secret, commands that the user may not run.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn examine(
        &self,
        secret: Option<&KeySecret>,
        counting: Counting,
    ) -> Result<Examination, StoreTrouble> {
        let link = Link::new(Server::new(self.settings.clone()), self.settings.command_timeout);
        // Connecting is no round trip, and has its own deadline.
        link.connect().await?;
        let is_joined = charter::look(&link, &self.names, secret).await?;
        let round_trip = self.round_trip(&link).await?;
        let vectors = match self.model {
            Some(_) => probe::choose(&link, self.settings.vectors).await?,
            None => VectorChoice { mode: VectorMode::None, why: "there is no embedder" },
        };
        self.try_commands(&link, vectors.mode, counting).await?;
        let hello: Option<HashMap<String, Value>> = if_allowed(ask_any(&link, &cmd("HELLO")).await)?;
        let hello = hello.unwrap_or_default();
        let told = |field: &str| hello.get(field).cloned();
        Ok(Examination {
            version: told("version").and_then(|version| redis::from_redis_value(version).ok()),
            protocol: told("proto").and_then(|protocol| redis::from_redis_value(protocol).ok()),
            round_trip,
            vectors,
            is_joined,
            memory: memory(&link).await?,
        })
    }

    async fn round_trip(&self, link: &Link) -> Result<Duration, StoreTrouble> {
        let mut took = Vec::with_capacity(ROUND_TRIPS);
        for _ in 0..ROUND_TRIPS {
            let began = Instant::now();
            charter::look(link, &self.names, None).await?;
            took.push(began.elapsed());
        }
        took.sort_unstable();
        Ok(took[ROUND_TRIPS / 2])
    }

    /// All that the store asks for in this mode.
    async fn try_commands(
        &self,
        link: &Link,
        mode: VectorMode,
        counting: Counting,
    ) -> Result<(), StoreTrouble> {
        let (partition, key): ([u8; 32], [u8; 32]) = (rand::random(), rand::random());
        let (entry, claim) = (self.names.entry(&partition, &key), self.names.claim(&partition, &key));
        let model = self.model.as_deref().unwrap_or_default();
        let (set, expiries) = (self.names.set(&partition, model), self.names.expiries(&partition, model));
        let mut call = TRY.prepare_invoke();
        call.key(&entry).key(&claim);
        if mode == VectorMode::VectorSets {
            call.key(&set).key(expiries);
        }
        let vector: Vec<u8> = [1.0_f32; DIMENSIONS].iter().flat_map(|number| number.to_le_bytes()).collect();
        let mut refused = refused_by(link, call.arg(&vector)).await?;
        if counting == Counting::Limits {
            let (meters, leases) = self.names.quota(&key);
            refused.extend(refused_by(link, TRY_LIMITS.key(meters).key(leases)).await?);
        }
        for command in
            self.harmless(&entry, &claim).iter().chain(&of_mode(mode, &self.names.index(model), &set))
        {
            if is_refused(link, command).await? {
                refused.push(name(command));
            }
        }
        match Scan::begin(link, self.names.meta()).await {
            Ok(mut scan) => match scan.next(link).await {
                Err(trouble) if trouble.trouble == Trouble::Forbidden => refused.push("SCAN".to_owned()),
                names => _ = names?,
            },
            Err(trouble) if trouble.trouble == Trouble::Forbidden => refused.push("CLUSTER SLOTS".to_owned()),
            Err(trouble) => return Err(trouble),
        }
        if refused.is_empty() {
            return Ok(());
        }
        // A command may be tried for several purposes.
        let refused: BTreeSet<String> = refused.into_iter().collect();
        let refused = refused.into_iter().collect::<Vec<_>>().join(", ");
        let message = format!("the user may not run {refused} on the keys of this prefix");
        Err(StoreTrouble::new(Trouble::Forbidden, message))
    }

    /// Commands that change nothing, on keys that aren't there but for the streams.
    fn harmless(&self, entry: &str, claim: &str) -> Vec<Cmd> {
        let command = |parts: &[&str]| {
            let mut command = cmd(parts[0]);
            command.arg(&parts[1..]);
            command
        };
        let (purges, changes, trial) = (self.names.purges(), self.names.changes(), self.names.trial());
        vec![
            command(&["HMGET", entry, "r", "p"]),
            command(&["PTTL", entry]),
            command(&["SET", claim, "check", "XX", "PX", "1"]),
            command(&["XREAD", "COUNT", "1", "STREAMS", &purges, "$"]),
            command(&["XRANGE", &changes, "-", "+", "COUNT", "1"]),
            command(&["XREVRANGE", &changes, "+", "-", "COUNT", "1"]),
            command(&["XADD", &trial, "NOMKSTREAM", "*", "from", "check"]),
        ]
    }
}

/// The same for what searches vectors.
fn of_mode(mode: VectorMode, index: &str, set: &str) -> Vec<Cmd> {
    // Who isn't told what the server can do takes it for one that can't search.
    let ask = cmd("COMMAND").arg("INFO").arg("VSIM").to_owned();
    match mode {
        VectorMode::None => Vec::new(),
        VectorMode::Local => vec![ask],
        VectorMode::VectorSets => {
            let mut similar = cmd("VSIM");
            similar.arg(set).arg("ELE").arg("m");
            vec![ask, similar]
        }
        VectorMode::QueryEngine => {
            let mut search = cmd("FT.SEARCH");
            search.arg(index).arg("*").arg("LIMIT").arg(0).arg(0);
            let info = cmd("FT.INFO").arg(index).to_owned();
            let mut create = cmd("FT.CREATE");
            // Not a type, so that nothing is made of it.
            create.arg(index).arg("ON").arg("NOTHING").arg("SCHEMA").arg("p").arg("TAG");
            vec![ask, search, info, create]
        }
    }
}

/// What a script that tries commands was refused.
async fn refused_by(link: &Link, tries: &ScriptInvocation<'_>) -> Result<Vec<String>, StoreTrouble> {
    match link.call(tries).await {
        Err(trouble) if trouble.trouble == Trouble::Forbidden => {
            Ok(vec!["EVALSHA or SCRIPT LOAD".to_owned()])
        }
        refused => refused,
    }
}

async fn is_refused(link: &Link, command: &Cmd) -> Result<bool, StoreTrouble> {
    match link.ask::<Value>(command).await {
        Err(trouble) if trouble.trouble == Trouble::Forbidden => Ok(true),
        // That it is there and may be run is enough.
        Err(trouble) if trouble.trouble.is_of_one_command() => Ok(false),
        answer => answer.map(|_| false),
    }
}

fn name(command: &Cmd) -> String {
    match command.args_iter().next() {
        Some(redis::Arg::Simple(b"COMMAND")) => "COMMAND INFO".to_owned(),
        Some(redis::Arg::Simple(name)) => String::from_utf8_lossy(name).into_owned(),
        _ => String::new(),
    }
}

/// Nothing where the server doesn't say.
async fn memory(link: &Link) -> Result<Option<Memory>, StoreTrouble> {
    let Some(info) = if_allowed(ask_any::<String>(link, &cmd("INFO")).await)? else { return Ok(None) };
    let save = cmd("CONFIG").arg("GET").arg("save").to_owned();
    let save: Option<HashMap<String, String>> = if_allowed(ask_any(link, &save).await)?;
    Ok(memory_of(&info, save.as_ref().and_then(|save| save.get("save")).map(String::as_str)))
}

fn memory_of(info: &str, save: Option<&str>) -> Option<Memory> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let appends = field("aof_enabled").map(|enabled| enabled.trim() == "1");
    let saves = save.map(|save| !save.is_empty());
    let is_persistent = match (appends, saves) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    };
    Some(Memory {
        bytes_max: field("maxmemory")?.trim().parse().ok()?,
        policy: field("maxmemory_policy")?.trim().to_owned(),
        is_persistent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = "# Memory\r\nmaxmemory:1000\r\nmaxmemory_human:1K\r\nmaxmemory_policy:allkeys-lru\r\n\
                        # Persistence\r\naof_enabled:0\r\n";

    #[test]
    fn what_a_server_does_when_memory_is_full_is_read() {
        let memory = memory_of(INFO, Some("")).unwrap();
        assert_eq!((memory.bytes_max, memory.policy.as_str()), (1000, "allkeys-lru"));
        assert!(memory.evicts_anything());
        assert_eq!(memory.is_persistent, Some(false));
        assert_eq!(memory_of(INFO, Some("60 1")).unwrap().is_persistent, Some(true));
        assert_eq!(memory_of(INFO, None).unwrap().is_persistent, None);
        assert!(!Memory { policy: "volatile-lru".to_owned(), ..memory }.evicts_anything());
    }

    #[test]
    fn what_does_not_say_is_not_guessed() {
        assert_eq!(memory_of("redis_version:7.0.0\r\n", None), None);
    }
}
