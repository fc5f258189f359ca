//! What is there, counted by layout, kind and model; sizes are measured on some and taken for all.

use std::collections::{BTreeMap, HashMap};

use futures_util::future::join_all;
use redis::{Value, cmd};

use super::found::{Found, What};
use super::{AT_ONCE, StoreUpkeep, if_allowed};
use crate::remote::scan::Scan;
use crate::remote::trouble::StoreTrouble;

/// Keys of a row whose size is measured.
const MEASURED_MAX: u64 = 1_000;
/// Rows of a listing: layouts and models are few, unless somebody else writes our names.
const ROWS_MAX: usize = 1_000;

/// What stands under a prefix. A key may count twice where the server's table grows meanwhile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// By layout, kind and model.
    pub rows: Vec<Row>,
    /// Keys whose names begin alike and are not ours.
    pub foreign: u64,
}

/// Keys of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The layout that their names tell.
    pub layout: u32,
    /// What they are.
    pub kind: ListedKind,
    /// The model, or the stream's name.
    pub detail: String,
    /// How many there are.
    pub keys: u64,
    /// What they hold: members, documents, messages. None where that means nothing or can't be known.
    pub members: Option<u64>,
    /// Memory that they take, estimated if more were counted than measured; none: the server doesn't say.
    pub bytes: Option<u64>,
}

/// What keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListedKind {
    /// Answers.
    Entries,
    /// Vectors of a partition, searched by the server.
    VectorSets,
    /// When a vector set's members expire.
    Expiries,
    /// The query engine's index.
    Indexes,
    /// Who generates.
    Claims,
    /// What subjects of limits have taken.
    Limits,
    /// What proxies agree on.
    Meta,
    /// What proxies tell each other.
    Streams,
    /// Ours, and unknown to this version.
    Unknown,
}

impl ListedKind {
    /// For tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Entries => "entries",
            Self::VectorSets => "vector sets",
            Self::Expiries => "expiry sets",
            Self::Indexes => "query index",
            Self::Claims => "claims",
            Self::Limits => "limits",
            Self::Meta => "meta",
            Self::Streams => "stream",
            Self::Unknown => "unknown",
        }
    }
}

#[derive(Default)]
struct Tally {
    keys: u64,
    members: Option<u64>,
    measured: u64,
    measured_bytes: u64,
}

type Tallies = BTreeMap<(u32, ListedKind, String), Tally>;

impl StoreUpkeep {
    /// Counts what stands under the prefix, in all layouts. Takes as long as a walk over all keys of the server.
    ///
    /// # Errors
    /// Redis could not be asked.
    ///
    /// # Cancel safety
    /// Safe: it only reads.
    pub async fn list(&self) -> Result<Listing, StoreTrouble> {
        let mut tallies = Tallies::new();
        let mut foreign = 0;
        let mut scan = Scan::begin(&self.link, self.naming.pattern()).await?;
        while let Some(names) = scan.next(&self.link).await? {
            self.saw(names.len());
            for some in names.chunks(AT_ONCE) {
                foreign += self.tally(some, &mut tallies).await?;
            }
        }
        for (name, found) in self.indexes().await? {
            self.tally_index(&name, found, &mut tallies).await?;
        }
        Ok(Listing { rows: tallies.into_iter().map(|(place, tally)| row(place, &tally)).collect(), foreign })
    }

    /// Counts keys; how many of them are not ours.
    async fn tally(&self, names: &[Vec<u8>], tallies: &mut Tallies) -> Result<u64, StoreTrouble> {
        let mut looks = Vec::new();
        let mut foreign = 0;
        for name in names {
            let Some(found) = self.naming.read(name) else {
                foreign += u64::from(self.naming.begins_alike(name));
                continue;
            };
            let Some(place) = place_in(tallies, found) else { continue };
            let tally = tallies.entry(place.clone()).or_default();
            tally.keys += 1;
            let is_measured = tally.keys <= MEASURED_MAX;
            looks.push(async move { Ok((place.clone(), self.look(name, &place, is_measured).await?)) });
        }
        let looked: Result<Vec<_>, StoreTrouble> = join_all(looks).await.into_iter().collect();
        for (place, Look { bytes, members }) in looked? {
            let tally = tallies.entry(place).or_default();
            tally.measured += u64::from(bytes.is_some());
            tally.measured_bytes += bytes.unwrap_or(0);
            tally.members = members.map(|more| tally.members.unwrap_or(0) + more).or(tally.members);
        }
        Ok(foreign)
    }

    async fn look(
        &self,
        name: &[u8],
        (_, kind, _): &(u32, ListedKind, String),
        is_measured: bool,
    ) -> Result<Look, StoreTrouble> {
        let length = match kind {
            ListedKind::VectorSets => Some("VCARD"),
            ListedKind::Expiries => Some("ZCARD"),
            ListedKind::Streams => Some("XLEN"),
            _ => None,
        };
        let members = match length {
            Some(length) => if_allowed(self.link.ask(cmd(length).arg(name)).await)?,
            None => None,
        };
        let bytes: Option<Option<u64>> = match is_measured {
            true => if_allowed(self.link.ask(cmd("MEMORY").arg("USAGE").arg(name)).await)?,
            false => None,
        };
        Ok(Look { bytes: bytes.flatten(), members })
    }

    async fn tally_index(&self, name: &str, found: Found, tallies: &mut Tallies) -> Result<(), StoreTrouble> {
        let Some(place) = place_in(tallies, found) else { return Ok(()) };
        let info: Option<HashMap<String, Value>> = if_allowed(self.link.ask(cmd("FT.INFO").arg(name)).await)?;
        let info = info.unwrap_or_default();
        let number = |field: &str| -> Option<f64> { redis::from_redis_value_ref(info.get(field)?).ok() };
        let tally = tallies.entry(place).or_default();
        tally.keys += 1;
        tally.members = number("num_docs").map(|count| count as u64);
        if let Some(megabytes) = number("vector_index_sz_mb") {
            tally.measured = 1;
            tally.measured_bytes = (megabytes * 1024.0 * 1024.0) as u64;
        }
        Ok(())
    }
}

struct Look {
    bytes: Option<u64>,
    members: Option<u64>,
}

/// Where a key counts; none: there are too many rows already.
fn place_in(tallies: &Tallies, Found { layout, what }: Found) -> Option<(u32, ListedKind, String)> {
    let (kind, detail) = match what {
        What::Entry => (ListedKind::Entries, String::new()),
        What::Claim => (ListedKind::Claims, String::new()),
        What::Quota => (ListedKind::Limits, String::new()),
        What::VectorSet(model) => (ListedKind::VectorSets, model),
        What::Expiries(model) => (ListedKind::Expiries, model),
        What::Index(model) => (ListedKind::Indexes, model),
        What::Control(name) if name == "meta" => (ListedKind::Meta, String::new()),
        What::Control(name) => (ListedKind::Streams, name),
        What::Unknown => (ListedKind::Unknown, String::new()),
    };
    let place = (layout, kind, detail);
    (tallies.len() < ROWS_MAX || tallies.contains_key(&place)).then_some(place)
}

fn row((layout, kind, detail): (u32, ListedKind, String), tally: &Tally) -> Row {
    let Tally { keys, members, measured, measured_bytes } = *tally;
    // In 128 bits nothing overflows.
    let all = |bytes: u64| u128::from(bytes) * u128::from(keys) / u128::from(measured);
    let bytes = (measured > 0).then(|| u64::try_from(all(measured_bytes)).unwrap_or(u64::MAX));
    Row { layout, kind, detail, keys, members, bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_stands_for_all() {
        let tally = Tally { keys: 3_000, members: None, measured: 1_000, measured_bytes: 50_000 };
        let row = row((1, ListedKind::Entries, String::new()), &tally);
        assert_eq!((row.keys, row.bytes), (3_000, Some(150_000)));
    }

    #[test]
    fn what_was_not_measured_has_no_size() {
        let tally = Tally { keys: 2, ..Tally::default() };
        assert_eq!(row((1, ListedKind::Claims, String::new()), &tally).bytes, None);
    }

    #[test]
    fn rows_are_bounded() {
        let mut tallies = Tallies::new();
        let found = |nth: usize| Found { layout: 1, what: What::VectorSet(nth.to_string()) };
        for nth in 0..ROWS_MAX {
            tallies.insert(place_in(&tallies, found(nth)).unwrap(), Tally::default());
        }
        assert_eq!(place_in(&tallies, found(ROWS_MAX)), None);
        assert!(place_in(&tallies, found(0)).is_some());
    }
}
