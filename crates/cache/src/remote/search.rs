//! Neighbours of a question among the vectors that the server searches.

use std::collections::HashMap;

use redis::{Cmd, Value, cmd, from_redis_value_ref, pipe};
use refrain_core::hex;

use super::entries::{Entries, PARTITION, bytes_of};
use super::link::Link;
use super::names;
use super::sizes::Way;
use super::trouble::{StoreTrouble, Trouble};
use crate::embedder::{DIMENSIONS, Embedding};
use crate::entry::Entry;
use crate::store::unix_ms;

/// Candidates that a search looks at on its way: 0.997 of the true neighbours are found among 100,000 (the query engine's
/// default of 10 finds 0.88).
const SEARCH_EFFORT: usize = 50;
/// What the query engine calls the distance.
const DISTANCE: &str = "d";

/// A stored question like the one asked.
#[derive(Debug)]
pub(super) struct Near {
    /// Cosine.
    pub(super) similarity: f32,
    /// The key of its entry.
    pub(super) key: [u8; 32],
    /// Its entry, if it is still there and sound.
    pub(super) entry: Option<Entry>,
    /// Its vector: the first one's only.
    pub(super) vector: Option<Embedding>,
}

/// Makes the query engine's index of this model's vectors, if it isn't there.
pub(super) async fn make_index(link: &Link, entries: &Entries) -> Result<(), StoreTrouble> {
    let (Some(model), Some(field)) = (&entries.model, entries.field()) else { return Ok(()) };
    let mut create = cmd("FT.CREATE");
    create
        .arg(entries.names.index(model))
        .arg("ON")
        .arg("HASH")
        .arg("PREFIX")
        .arg(1)
        .arg(entries.names.entries());
    create.arg("SCHEMA").arg(PARTITION).arg("TAG").arg(field).arg("VECTOR").arg("HNSW").arg(6);
    create.arg("TYPE").arg("FLOAT32").arg("DIM").arg(DIMENSIONS).arg("DISTANCE_METRIC").arg("COSINE");
    // Another proxy has made it.
    let is_there = |trouble: &StoreTrouble| trouble.message.to_lowercase().contains("already exists");
    link.ask_unless::<Value>(&create, is_there).await.map(drop)
}

/// By the query engine: the partition is a TAG, so that no other's vector is ever a neighbour.
pub(super) async fn by_engine(
    link: &Link,
    entries: &Entries,
    partition: &[u8; 32],
    vector: &Embedding,
    k: usize,
) -> Result<Vec<Near>, StoreTrouble> {
    let (Some(model), Some(field)) = (&entries.model, entries.field()) else { return Ok(Vec::new()) };
    let now_ms = unix_ms();
    let way = entries.sizes.way(partition, k, now_ms);
    let question = Question { index: entries.names.index(model), field, partition: hex(partition), k };
    let search = question.search(way, vector);
    let reply = match way {
        Way::Unknown => {
            let mut both = pipe();
            both.add_command(question.count()).add_command(search);
            let (count, reply): (Value, Value) = link.search(&both).await?;
            entries.sizes.note(partition, total(&count).unwrap_or(0), now_ms);
            reply
        }
        Way::Any => alone(link, search).await?,
        Way::Compare | Way::Walk => match alone(link, search).await {
            Err(trouble) if trouble.trouble == Trouble::Refused => {
                // Perhaps it doesn't know the words: they are for speed only.
                entries.sizes.switch_off();
                alone(link, question.search(Way::Any, vector)).await?
            }
            reply => reply?,
        },
    };
    let documents = documents(&reply);
    let mut found: Vec<Near> = documents.iter().filter_map(|document| near(entries, document)).collect();
    if let (Some(first), Some(document)) = (found.first_mut(), documents.first()) {
        let is_its_own = names::key_of(document.name) == Some(first.key);
        first.vector = document.field(&question.field).filter(|_| is_its_own).and_then(Embedding::from_bytes);
    }
    Ok(found)
}

async fn alone(link: &Link, search: Cmd) -> Result<Value, StoreTrouble> {
    let mut pipeline = pipe();
    pipeline.add_command(search);
    let [reply]: [Value; 1] = link.search(&pipeline).await?;
    Ok(reply)
}

/// Asks how many vectors there are in all.
pub(super) async fn count_all(link: &Link, entries: &Entries) -> Result<(), StoreTrouble> {
    let Some(model) = &entries.model else { return Ok(()) };
    let info: Value = link.ask(cmd("FT.INFO").arg(entries.names.index(model))).await?;
    let facts: HashMap<String, Value> = from_redis_value_ref(&info).unwrap_or_default();
    if let Some(vectors) = facts.get("num_docs").and_then(|count| from_redis_value_ref(count).ok()) {
        entries.sizes.note_all(vectors);
    }
    Ok(())
}

/// What the query engine is asked.
struct Question {
    index: String,
    field: String,
    partition: String,
    k: usize,
}

impl Question {
    fn search(&self, way: Way, vector: &Embedding) -> Cmd {
        let Self { index, field, partition, k } = self;
        let how = match way {
            Way::Unknown | Way::Any => format!("EF_RUNTIME {SEARCH_EFFORT}"),
            Way::Compare => "HYBRID_POLICY ADHOC_BF".to_owned(),
            Way::Walk => {
                format!("EF_RUNTIME {SEARCH_EFFORT} HYBRID_POLICY BATCHES BATCH_SIZE {SEARCH_EFFORT}")
            }
        };
        let query = format!("(@{PARTITION}:{{{partition}}})=>[KNN {k} @{field} $q {how} AS {DISTANCE}]");
        let mut search = cmd("FT.SEARCH");
        search.arg(index).arg(query).arg("PARAMS").arg(2).arg("q").arg(vector.to_bytes());
        search.arg("SORTBY").arg(DISTANCE).arg("LIMIT").arg(0).arg(*k);
        search.arg("RETURN").arg(3).arg("r").arg(DISTANCE).arg(field).arg("DIALECT").arg(2);
        search
    }

    fn count(&self) -> Cmd {
        let mut count = cmd("FT.SEARCH");
        count.arg(&self.index).arg(format!("@{PARTITION}:{{{}}}", self.partition));
        count.arg("LIMIT").arg(0).arg(0).arg("DIALECT").arg(2);
        count
    }
}

/// How many documents a reply says that there are.
fn total(reply: &Value) -> Option<u64> {
    let count = match reply {
        Value::Array(items) => items.first()?,
        Value::Map(parts) => value_of(parts, "total_results")?,
        _ => return None,
    };
    from_redis_value_ref(count).ok()
}

fn near(entries: &Entries, document: &Document<'_>) -> Option<Near> {
    let key = names::key_of(document.name)?;
    let distance: f32 = std::str::from_utf8(document.field(DISTANCE)?).ok()?.parse().ok()?;
    let entry = document.field("r").and_then(|record| entries.open(&key, record));
    Some(Near { similarity: (1.0 - distance).clamp(-1.0, 1.0), key, entry, vector: None })
}

/// A document of a search's reply.
struct Document<'a> {
    name: &'a [u8],
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Document<'a> {
    fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields.iter().find(|(field, _)| *field == name.as_bytes()).map(|(_, value)| *value)
    }
}

/// The documents of a reply in either protocol: RESP2 has a flat list after the count, RESP3 a map with `results`.
fn documents(reply: &Value) -> Vec<Document<'_>> {
    match reply {
        Value::Array(items) => {
            let (pairs, _) = items.get(1..).unwrap_or_default().as_chunks::<2>();
            pairs.iter().filter_map(|[name, fields]| document(name, fields)).collect()
        }
        Value::Map(parts) => match value_of(parts, "results") {
            Some(Value::Array(results)) => results.iter().filter_map(document_of_map).collect(),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn document_of_map(result: &Value) -> Option<Document<'_>> {
    let Value::Map(parts) = result else { return None };
    document(value_of(parts, "id")?, value_of(parts, "extra_attributes")?)
}

fn document<'a>(name: &'a Value, fields: &'a Value) -> Option<Document<'a>> {
    let fields: Vec<(&Value, &Value)> = match fields {
        Value::Array(items) => items.as_chunks::<2>().0.iter().map(|[field, value]| (field, value)).collect(),
        Value::Map(parts) => parts.iter().map(|(field, value)| (field, value)).collect(),
        _ => return None,
    };
    let fields = fields.into_iter().filter_map(|(field, value)| Some((bytes_of(field)?, bytes_of(value)?)));
    Some(Document { name: bytes_of(name)?, fields: fields.collect() })
}

fn value_of<'a>(parts: &'a [(Value, Value)], name: &str) -> Option<&'a Value> {
    parts.iter().find(|(key, _)| bytes_of(key) == Some(name.as_bytes())).map(|(_, value)| value)
}

/// By the partition's own vector set, which holds nobody else's.
pub(super) async fn by_set(
    link: &Link,
    entries: &Entries,
    partition: &[u8; 32],
    vector: &Embedding,
    k: usize,
) -> Result<Vec<Near>, StoreTrouble> {
    let Some(model) = &entries.model else { return Ok(Vec::new()) };
    let mut search = cmd("VSIM");
    search.arg(entries.names.set(partition, model)).arg("FP32").arg(vector.to_bytes()).arg("WITHSCORES");
    search.arg("COUNT").arg(k).arg("EF").arg(SEARCH_EFFORT.max(k)).arg("NOTHREAD");
    let reply = alone(link, search).await?;
    let members: Vec<(Vec<u8>, f32)> = from_redis_value_ref(&reply).unwrap_or_default();
    let found: Vec<([u8; 32], f32)> =
        members.into_iter().filter_map(|(member, score)| Some((member.try_into().ok()?, score))).collect();
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let keys: Vec<[u8; 32]> = found.iter().map(|(key, _)| *key).collect();
    let read = entries.read_all(link, partition, &keys).await?;
    // The score is (1 + cosine) / 2.
    let near = found.into_iter().zip(read).map(|((key, score), read)| Near {
        similarity: (2.0 * score - 1.0).clamp(-1.0, 1.0),
        key,
        entry: read.entry,
        vector: read.vector,
    });
    Ok(near.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn a_reply_reads_alike_in_both_protocols() {
        let fields = [("d", "0.25"), ("r", "record")];
        let flat: Vec<Value> = fields.iter().flat_map(|(name, value)| [text(name), text(value)]).collect();
        let resp2 = Value::Array(vec![Value::Int(1), text("a:e:00"), Value::Array(flat)]);
        let attributes = fields.iter().map(|(name, value)| (text(name), text(value))).collect();
        let result = Value::Map(vec![
            (text("id"), text("a:e:00")),
            (text("extra_attributes"), Value::Map(attributes)),
            (text("values"), Value::Array(Vec::new())),
        ]);
        let resp3 = Value::Map(vec![
            (Value::SimpleString("total_results".to_owned()), Value::Int(1)),
            (Value::SimpleString("results".to_owned()), Value::Array(vec![result])),
        ]);
        for reply in [resp2, resp3] {
            let documents = documents(&reply);
            assert_eq!(documents.len(), 1);
            assert_eq!(documents[0].name, b"a:e:00");
            assert_eq!(documents[0].field("d"), Some(&b"0.25"[..]));
            assert_eq!(documents[0].field("r"), Some(&b"record"[..]));
            assert_eq!(total(&reply), Some(1));
        }
    }

    #[test]
    fn odd_replies_hold_no_documents() {
        for reply in [
            Value::Nil,
            Value::Int(3),
            Value::Array(vec![]),
            Value::Array(vec![Value::Int(1), text("x")]),
            Value::Map(vec![]),
        ] {
            assert!(documents(&reply).is_empty());
        }
    }
}
