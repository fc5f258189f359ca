//! Removing what leads nowhere: members of vector sets whose entries have gone, and, if asked to, what other models and
//! older layouts have left behind.
//!
//! Entries need none of it: each expires by itself. A vector set forgets its expired members as it is written; what is
//! never written again, or lost its expiry set to eviction, is left to this.

use std::collections::{BTreeMap, HashSet};
use std::sync::LazyLock;

use futures_util::future::join_all;
use redis::{Script, cmd};
use tokio::time::Instant;

use super::found::{Found, What, entry_of, sibling};
use super::remove::{STEP_MEMBERS, pause};
use super::{AT_ONCE, StoreUpkeep, UpkeepMode};
use crate::remote::names::LAYOUT;
use crate::remote::scan::Scan;
use crate::remote::trouble::StoreTrouble;

/// Members that are looked at in one step.
const LOOK: usize = 200;
/// Random draws of members from one set.
const DRAWS_MAX: u64 = 1_000;
/// Draws in which nothing was found that end the search.
const DRY_DRAWS_MAX: u32 = 3;

/// Takes members without entries out of a vector set; how many. KEYS: vector set, expiries, entries. ARGV: their members.
static FORGET: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local forgotten = 0
for i, member in ipairs(ARGV) do
  if redis.call('EXISTS', KEYS[i + 2]) == 0 then
    forgotten = forgotten + redis.call('VREM', KEYS[1], member)
    redis.call('ZREM', KEYS[2], member)
  end
end
return forgotten
",
    )
});

/// Removes an expiry set whose vector set has gone. KEYS: expiries, vector set.
static FORGET_EXPIRIES: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('EXISTS', KEYS[2]) == 0 then return redis.call('UNLINK', KEYS[1]) end return 0",
    )
});

/// What to collect.
#[derive(Clone, Debug)]
pub struct Collect {
    /// Whether anything is removed.
    pub mode: UpkeepMode,
    /// What becomes of vectors of other models.
    pub models: Models,
    /// What becomes of older layouts.
    pub layouts: Layouts,
}

/// What becomes of vectors of other models than the configured one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Models {
    /// They stay.
    Keep,
    /// All go but those of these models, as names have them.
    OnlyKeep(Vec<String>),
}

/// What becomes of keys of older layouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layouts {
    /// They stay.
    Keep,
    /// They go.
    RemoveOlder,
}

/// What was removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Members of vector sets whose entries have gone.
    pub members: u64,
    /// Expiry sets whose vector sets have gone.
    pub expiries: u64,
    /// Vector sets of other models, by model.
    pub sets: BTreeMap<String, u64>,
    /// The query engine's indexes of other models and older layouts.
    pub indexes: Vec<String>,
    /// Keys of older layouts, by layout.
    pub layouts: BTreeMap<u32, u64>,
    /// Keys of other layouts that stay.
    pub other_layouts: u64,
    /// Vector sets of other models that stay.
    pub other_models: u64,
}

impl StoreUpkeep {
    /// Removes what leads nowhere.
    ///
    /// # Errors
    /// Redis could not be asked: what was removed by then stays removed.
    ///
    /// # Cancel safety
    /// It may be left half-way, and begun again.
    pub async fn collect(&self, collect: &Collect) -> Result<Collected, StoreTrouble> {
        let mut collected = Collected::default();
        let mut scan = Scan::begin(&self.link, self.naming.pattern()).await?;
        while let Some(names) = scan.next(&self.link).await? {
            self.saw(names.len());
            for name in names {
                if let Some(found) = self.naming.read(&name) {
                    self.collect_one(name, found, collect, &mut collected).await?;
                }
            }
        }
        for (name, found) in self.indexes().await? {
            if is_stale(&found, collect) {
                if collect.mode == UpkeepMode::Real {
                    self.drop_index(&name).await?;
                }
                collected.indexes.push(name);
            }
        }
        Ok(collected)
    }

    async fn collect_one(
        &self,
        name: Vec<u8>,
        found: Found,
        collect: &Collect,
        collected: &mut Collected,
    ) -> Result<(), StoreTrouble> {
        let is_real = collect.mode == UpkeepMode::Real;
        let is_stale = is_stale(&found, collect);
        if is_stale && is_real {
            self.unlink(&[(name.clone(), found.what.clone())]).await?;
        }
        match found {
            Found { layout, .. } if layout != LAYOUT && is_stale => {
                *collected.layouts.entry(layout).or_default() += 1;
            }
            Found { layout, .. } if layout != LAYOUT => collected.other_layouts += 1,
            Found { what: What::VectorSet(model), .. } if is_stale => {
                *collected.sets.entry(model).or_default() += 1;
            }
            Found { what: What::VectorSet(model), .. } => {
                collected.other_models += u64::from(self.model().is_some_and(|own| own != model));
                collected.members += self.collect_members(&name, collect.mode).await?;
            }
            Found { what: What::Expiries(_), .. } if !is_stale => {
                collected.expiries += self.collect_expiries(&name, collect.mode).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn collect_expiries(&self, expiries: &[u8], mode: UpkeepMode) -> Result<u64, StoreTrouble> {
        let Some(set) = sibling(expiries) else { return Ok(0) };
        if mode == UpkeepMode::DryRun {
            let sets: u64 = self.link.ask(cmd("EXISTS").arg(&set)).await?;
            return Ok(1 - sets.min(1));
        }
        let removed: u64 = self.link.call(FORGET_EXPIRIES.prepare_invoke().key(expiries).key(set)).await?;
        self.did_remove(removed);
        Ok(removed)
    }

    /// Members of a set whose entries have gone: those that its expiry set knows, then those that only it knows.
    async fn collect_members(&self, set: &[u8], mode: UpkeepMode) -> Result<u64, StoreTrouble> {
        let Some(expiries) = sibling(set) else { return Ok(0) };
        let mut members = 0;
        let mut cursor = 0_u64;
        loop {
            let mut scan = cmd("ZSCAN");
            scan.arg(&expiries).arg(cursor).arg("COUNT").arg(LOOK);
            let (next, found): (u64, Vec<(Vec<u8>, f64)>) = self.link.ask(&scan).await?;
            let found: Vec<Vec<u8>> = found.into_iter().map(|(member, _)| member).collect();
            let gone = self.gone(set, &found).await?;
            members += self.forget((set, &expiries), &gone, mode).await?;
            cursor = next;
            if cursor == 0 {
                break;
            }
        }
        Ok(members + self.collect_unknown(set, &expiries, mode).await?)
    }

    /// Draws members at random, for there is no way to walk over a vector set, until nothing more is found.
    async fn collect_unknown(
        &self,
        set: &[u8],
        expiries: &[u8],
        mode: UpkeepMode,
    ) -> Result<u64, StoreTrouble> {
        let mut seen = HashSet::new();
        let (mut members, mut dry) = (0, 0);
        let all: u64 = self.link.ask(cmd("VCARD").arg(set)).await?;
        let known: u64 = self.link.ask(cmd("ZCARD").arg(expiries)).await?;
        if all <= known {
            return Ok(0);
        }
        // All of a small set come in one.
        let draws = if all <= LOOK as u64 { 1 } else { DRAWS_MAX };
        for _ in 0..draws {
            let drawn: Vec<Vec<u8>> = self.link.ask(cmd("VRANDMEMBER").arg(set).arg(LOOK)).await?;
            let drawn = self.unknown(expiries, drawn).await?;
            let mut gone = self.gone(set, &drawn).await?;
            gone.retain(|member| seen.insert(member.clone()));
            dry = if gone.is_empty() { dry + 1 } else { 0 };
            if dry >= DRY_DRAWS_MAX {
                break;
            }
            members += self.forget((set, expiries), &gone, mode).await?;
        }
        Ok(members)
    }

    /// Those that an expiry set doesn't know.
    async fn unknown(&self, expiries: &[u8], members: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, StoreTrouble> {
        if members.is_empty() {
            return Ok(members);
        }
        let known: Vec<Option<f64>> = self.link.ask(cmd("ZMSCORE").arg(expiries).arg(&members)).await?;
        let unknown = members.into_iter().zip(known).filter(|(_, known)| known.is_none());
        Ok(unknown.map(|(member, _)| member).collect())
    }

    /// Those whose entries have gone.
    async fn gone(&self, set: &[u8], members: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, StoreTrouble> {
        let mut gone = Vec::new();
        for some in members.chunks(AT_ONCE) {
            let looks = some.iter().map(async |member| match entry_of(set, member) {
                Some(entry) => self.link.ask::<bool>(cmd("EXISTS").arg(entry)).await,
                None => Ok(true),
            });
            for (member, is_there) in some.iter().zip(join_all(looks).await) {
                if !is_there? {
                    gone.push(member.clone());
                }
            }
        }
        Ok(gone)
    }

    async fn forget(
        &self,
        (set, expiries): (&[u8], &[u8]),
        members: &[Vec<u8>],
        mode: UpkeepMode,
    ) -> Result<u64, StoreTrouble> {
        if mode == UpkeepMode::DryRun {
            return Ok(members.len() as u64);
        }
        let mut forgotten = 0;
        for some in members.chunks(STEP_MEMBERS) {
            let began = Instant::now();
            let mut call = FORGET.prepare_invoke();
            call.key(set).key(expiries);
            for member in some {
                call.key(entry_of(set, member).unwrap_or_default()).arg(member);
            }
            let count: u64 = self.link.call(&call).await?;
            self.did_remove(count);
            forgotten += count;
            pause(began).await;
        }
        Ok(forgotten)
    }
}

/// Whether it is of an older layout, or of another model, that shall go.
fn is_stale(found: &Found, collect: &Collect) -> bool {
    if found.layout != LAYOUT {
        return found.layout < LAYOUT && collect.layouts == Layouts::RemoveOlder;
    }
    let (What::VectorSet(model) | What::Expiries(model) | What::Index(model)) = &found.what else {
        return false;
    };
    matches!(&collect.models, Models::OnlyKeep(kept) if !kept.contains(model))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_stale_in(layout: u32, what: What, models: Models, layouts: Layouts) -> bool {
        is_stale(&Found { layout, what }, &Collect { mode: UpkeepMode::DryRun, models, layouts })
    }

    #[test]
    fn only_what_was_asked_for_goes() {
        let set = || What::VectorSet("old".to_owned());
        let keep = || Models::OnlyKeep(vec!["new".to_owned()]);
        assert!(!is_stale_in(LAYOUT, set(), Models::Keep, Layouts::RemoveOlder));
        assert!(is_stale_in(LAYOUT, set(), keep(), Layouts::Keep));
        assert!(is_stale_in(LAYOUT, What::Index("old".to_owned()), keep(), Layouts::Keep));
        assert!(!is_stale_in(LAYOUT, What::VectorSet("new".to_owned()), keep(), Layouts::Keep));
        assert!(!is_stale_in(LAYOUT, What::Entry, keep(), Layouts::RemoveOlder));
        assert!(!is_stale_in(LAYOUT - 1, set(), keep(), Layouts::Keep));
        assert!(is_stale_in(LAYOUT - 1, What::Entry, Models::Keep, Layouts::RemoveOlder));
        assert!(!is_stale_in(LAYOUT + 1, What::Entry, keep(), Layouts::RemoveOlder));
    }
}
