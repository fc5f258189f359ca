//! What proxies tell each other through Redis: purges, replaced entries and, where no server searches them, new vectors.
//!
//! Three short streams. They are read several times a second without blocking, so that one connection serves all, a lost
//! message can't be lost, and a successful read confirms everything that this process keeps.

use std::collections::HashMap;

use redis::streams::{StreamId, StreamReadReply};
use redis::{Value, cmd, from_redis_value_ref};

use super::link::Link;
use super::names::Names;
use super::trouble::StoreTrouble;

/// Messages of a stream in one read.
const READ_MAX: usize = 1_000;
/// Replaced entries that are remembered: those of minutes. Who was away longer forgets everything.
const CHANGES_KEPT: usize = 10_000;
/// New vectors that are remembered, likewise.
const VECTORS_KEPT: usize = 100_000;

/// An entry that another proxy wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pointer {
    pub(super) partition: [u8; 32],
    pub(super) key: [u8; 32],
}

/// What happened since the last read.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The life of the data; none: there is none.
    pub(super) life: Option<String>,
    /// Purges: id in the stream, sealed contents.
    pub(super) purges: Vec<(String, Vec<u8>)>,
    /// Entries that were replaced.
    pub(super) changes: Vec<Pointer>,
    /// Entries with a vector.
    pub(super) vectors: Vec<Pointer>,
    /// There is more to read.
    pub(super) is_partial: bool,
}

/// Reads the streams from where it stopped.
#[derive(Clone, Debug)]
pub(super) struct Reader {
    /// This process: its own messages are no news.
    me: String,
    purges: String,
    changes: String,
    vectors: String,
}

impl Reader {
    /// `me`: a random name of this process.
    pub(super) fn new(me: String) -> Self {
        let start = || "0-0".to_owned();
        Self { me, purges: start(), changes: start(), vectors: start() }
    }

    /// From the beginning of purges; changes and vectors from now on.
    pub(super) async fn restart(&mut self, link: &Link, names: &Names) -> Result<(), StoreTrouble> {
        *self = Self::new(std::mem::take(&mut self.me));
        self.changes = last_id(link, &names.changes()).await?;
        self.vectors = last_id(link, &names.vectors()).await?;
        Ok(())
    }

    /// Whether something that was not read has left a stream meanwhile.
    pub(super) async fn has_gap(&self, link: &Link, names: &Names) -> Result<bool, StoreTrouble> {
        for (stream, read) in [(names.changes(), &self.changes), (names.vectors(), &self.vectors)] {
            let first = cmd("XRANGE").arg(stream).arg("-").arg("+").arg("COUNT").arg(1).to_owned();
            let first: Value = link.ask(&first).await?;
            // Who has read nothing yet has missed nothing that matters.
            if *read != "0-0" && first_id(&first).is_some_and(|first| order(&first) > order(read)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is new.
    ///
    /// # Cancel safety
    /// Safe: what was not returned is read again.
    pub(super) async fn read(&mut self, link: &Link, names: &Names) -> Result<News, StoreTrouble> {
        let streams = [names.purges(), names.changes(), names.vectors()];
        let mut both = redis::pipe();
        both.cmd("HGET").arg(names.meta()).arg("life");
        both.cmd("XREAD").arg("COUNT").arg(READ_MAX).arg("STREAMS").arg(&streams);
        both.arg(&self.purges).arg(&self.changes).arg(&self.vectors);
        let (life, read): (Option<String>, Option<StreamReadReply>) = link.ask_all(&both).await?;
        let mut by_stream: HashMap<String, Vec<StreamId>> =
            read.unwrap_or_default().keys.into_iter().map(|stream| (stream.key, stream.ids)).collect();
        let [purges, changes, vectors] = streams.map(|stream| by_stream.remove(&stream).unwrap_or_default());
        let is_partial = [&purges, &changes, &vectors].iter().any(|ids| ids.len() >= READ_MAX);
        advance(&mut self.purges, &purges);
        advance(&mut self.changes, &changes);
        advance(&mut self.vectors, &vectors);
        Ok(News {
            life,
            purges: purges.into_iter().filter_map(|id| Some((id.id.clone(), field(&id, "purge")?))).collect(),
            changes: self.pointers(&changes),
            vectors: self.pointers(&vectors),
            is_partial,
        })
    }

    fn pointers(&self, ids: &[StreamId]) -> Vec<Pointer> {
        let of_others = ids.iter().filter(|id| field(id, "from").as_deref() != Some(self.me.as_bytes()));
        of_others.filter_map(pointer).collect()
    }

    /// Tells the others that an entry was replaced.
    pub(super) fn tell_change(me: &str, names: &Names, pointer: &Pointer) -> redis::Cmd {
        tell(me, &names.changes(), CHANGES_KEPT, pointer)
    }

    /// Tells the others of a new vector.
    pub(super) fn tell_vector(me: &str, names: &Names, pointer: &Pointer) -> redis::Cmd {
        tell(me, &names.vectors(), VECTORS_KEPT, pointer)
    }
}

fn tell(me: &str, stream: &str, kept: usize, pointer: &Pointer) -> redis::Cmd {
    let mut add = cmd("XADD");
    add.arg(stream).arg("MAXLEN").arg("~").arg(kept).arg("*").arg("from").arg(me);
    add.arg("p").arg(&pointer.partition[..]).arg("k").arg(&pointer.key[..]);
    add
}

async fn last_id(link: &Link, stream: &str) -> Result<String, StoreTrouble> {
    let last: Value = link.ask(cmd("XREVRANGE").arg(stream).arg("+").arg("-").arg("COUNT").arg(1)).await?;
    Ok(first_id(&last).unwrap_or_else(|| "0-0".to_owned()))
}

fn first_id(range: &Value) -> Option<String> {
    let Value::Array(entries) = range else { return None };
    let Value::Array(entry) = entries.first()? else { return None };
    from_redis_value_ref(entry.first()?).ok()
}

/// Ids as numbers: milliseconds, then a count within them.
fn order(id: &str) -> (u64, u64) {
    let (ms, count) = id.split_once('-').unwrap_or((id, "0"));
    (ms.parse().unwrap_or(0), count.parse().unwrap_or(0))
}

fn advance(position: &mut String, ids: &[StreamId]) {
    if let Some(last) = ids.last() {
        position.clone_from(&last.id);
    }
}

fn pointer(id: &StreamId) -> Option<Pointer> {
    Some(Pointer { partition: field(id, "p")?.try_into().ok()?, key: field(id, "k")?.try_into().ok()? })
}

fn field(id: &StreamId, name: &str) -> Option<Vec<u8>> {
    super::entries::bytes_of(id.map.get(name)?).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(from: &str) -> StreamId {
        let text = |bytes: &[u8]| Value::BulkString(bytes.to_vec());
        let map = [("from", text(from.as_bytes())), ("p", text(&[1; 32])), ("k", text(&[2; 32]))];
        let map = map.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        StreamId { id: "5-1".to_owned(), map, ..StreamId::default() }
    }

    #[test]
    fn ones_own_messages_are_no_news() {
        let reader = Reader::new("me".to_owned());
        let told = reader.pointers(&[message("me"), message("other")]);
        assert_eq!(told, [Pointer { partition: [1; 32], key: [2; 32] }]);
    }

    #[test]
    fn malformed_messages_are_passed_over() {
        let mut odd = message("other");
        odd.map.insert("k".to_owned(), Value::BulkString(vec![1]));
        assert!(Reader::new("me".to_owned()).pointers(&[odd, StreamId::default()]).is_empty());
    }

    #[test]
    fn ids_are_ordered_as_numbers() {
        assert!(order("9-10") > order("9-9"));
        assert!(order("10-0") > order("9-99"));
    }
}
