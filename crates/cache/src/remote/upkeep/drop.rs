//! Removing everything under a prefix, or what one layout has of it.
//!
//! Indexes go first, then what proxies agree on, in one step: proxies that run notice that their data has gone and begin anew,
//! and no purge is forgotten while an answer that it is about is still there.

use std::collections::BTreeMap;

use redis::cmd;

use super::found::{Found, What};
use super::{AT_ONCE, StoreUpkeep, UpkeepMode};
use crate::remote::scan::Scan;
use crate::remote::trouble::StoreTrouble;

/// Control keys of a layout that are removed in one step; this version has four.
const CONTROL_MAX: usize = 64;

/// What was removed, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// Keys, by layout.
    pub keys: BTreeMap<u32, u64>,
    /// The query engine's indexes.
    pub indexes: Vec<String>,
    /// Keys of other layouts, which stay.
    pub other_layouts: u64,
    /// Keys whose names begin alike and are not ours, which stay.
    pub foreign: u64,
}

#[derive(Default)]
struct Survey {
    dropped: Dropped,
    control: BTreeMap<u32, Vec<Vec<u8>>>,
}

impl StoreUpkeep {
    /// Removes everything, or a layout.
    ///
    /// # Errors
    /// Redis could not be asked: what was removed by then stays removed.
    ///
    /// # Cancel safety
    /// It may be left half-way, and begun again.
    pub async fn drop_all(&self, layout: Option<u32>, mode: UpkeepMode) -> Result<Dropped, StoreTrouble> {
        let mut survey = self.survey(layout).await?;
        if mode == UpkeepMode::DryRun {
            return Ok(survey.dropped);
        }
        for index in &survey.dropped.indexes {
            self.drop_index(index).await?;
        }
        let mut removed = BTreeMap::new();
        for (layout, control) in &survey.control {
            let count: u64 = self.link.ask(cmd("UNLINK").arg(control)).await?;
            self.did_remove(count);
            *removed.entry(*layout).or_default() += count;
        }
        self.drop_data(layout, &mut removed).await?;
        survey.dropped.keys = removed;
        Ok(survey.dropped)
    }

    /// Removes an index; the entries that it leads to stay.
    pub(super) async fn drop_index(&self, name: &str) -> Result<(), StoreTrouble> {
        self.link.ask::<redis::Value>(cmd("FT.DROPINDEX").arg(name)).await?;
        self.did_remove(1);
        Ok(())
    }

    async fn survey(&self, layout: Option<u32>) -> Result<Survey, StoreTrouble> {
        let mut survey = Survey::default();
        let is_meant = |found: &Found| layout.is_none_or(|layout| layout == found.layout);
        for (name, _) in self.indexes().await?.into_iter().filter(|(_, found)| is_meant(found)) {
            survey.dropped.indexes.push(name);
        }
        let mut scan = Scan::begin(&self.link, self.naming.pattern()).await?;
        while let Some(names) = scan.next(&self.link).await? {
            self.saw(names.len());
            for name in names {
                survey.count(self.naming.read(&name), is_meant, name, |name| self.naming.begins_alike(name));
            }
        }
        Ok(survey)
    }

    async fn drop_data(
        &self,
        layout: Option<u32>,
        removed: &mut BTreeMap<u32, u64>,
    ) -> Result<(), StoreTrouble> {
        let mut scan = Scan::begin(&self.link, self.naming.pattern()).await?;
        while let Some(names) = scan.next(&self.link).await? {
            self.saw(names.len());
            let mut meant: BTreeMap<u32, Vec<(Vec<u8>, What)>> = BTreeMap::new();
            for name in names {
                match self.naming.read(&name) {
                    // What proxies have agreed on since belongs to their new life.
                    None | Some(Found { what: What::Control(_), .. }) => {}
                    Some(found) if layout.is_none_or(|layout| layout == found.layout) => {
                        meant.entry(found.layout).or_default().push((name, found.what));
                    }
                    Some(_) => {}
                }
            }
            for (layout, keys) in meant {
                for some in keys.chunks(AT_ONCE) {
                    *removed.entry(layout).or_default() += self.unlink(some).await?;
                }
            }
        }
        Ok(())
    }
}

impl Survey {
    fn count(
        &mut self,
        found: Option<Found>,
        is_meant: impl Fn(&Found) -> bool,
        name: Vec<u8>,
        begins_alike: impl Fn(&[u8]) -> bool,
    ) {
        let Some(found) = found else {
            self.dropped.foreign += u64::from(begins_alike(&name));
            return;
        };
        if !is_meant(&found) {
            self.dropped.other_layouts += 1;
            return;
        }
        *self.dropped.keys.entry(found.layout).or_default() += 1;
        if let What::Control(_) = found.what {
            let control = self.control.entry(found.layout).or_default();
            if control.len() < CONTROL_MAX {
                control.push(name);
            }
        }
    }
}
