//! The vectors of one partition: flat arrays, one slot a vector, kept dense by swap-remove.

use std::collections::HashMap;

use super::code::{BLOCK, Code, Query, Signs};
use super::{NEIGHBOURS_MAX, Neighbour};
use crate::embedder::DIMENSIONS;

/// Below this many vectors all are scored exactly, and ids are found by looking at each: most partitions are one
/// conversation and hold a vector or two.
const SMALL: usize = 256;

/// Fewest candidates that the sign bits hand on to be rescored.
const RESCORE_MIN: usize = 32;

/// Candidates rescored per neighbour asked for.
const RESCORE_FACTOR: usize = 4;

/// Most candidates.
const RESCORE_MAX: usize = NEIGHBOURS_MAX * RESCORE_FACTOR;

/// Bytes of a slot in the arrays.
const SLOT_BYTES: usize = size_of::<Signs>() + DIMENSIONS + size_of::<f32>() + 32;

/// Bytes of an id's place in the map of a large partition: key, slot, and the map's spare room.
const MAP_BYTES: usize = 64;

/// Invariant: all arrays have one length; `slots` is empty, or maps every id to its slot.
#[derive(Debug, Default)]
pub(super) struct Partition {
    signs: Vec<Signs>,
    codes: Vec<[i8; DIMENSIONS]>,
    scales: Vec<f32>,
    ids: Vec<[u8; 32]>,
    slots: HashMap<[u8; 32], u32>,
}

/// The closest slots by Hamming distance, in no order.
struct Closest {
    slots: [(u16, u32); RESCORE_MAX],
    len: usize,
    wanted: usize,
    /// Position and distance of the farthest, once `wanted` are held.
    farthest: (usize, u16),
}

impl Partition {
    /// Bytes of a partition with one vector.
    pub(super) const BYTES_FIRST: usize = SLOT_BYTES;

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Bytes of the arrays, spare capacity included, and of the map.
    pub(super) fn bytes(&self) -> usize {
        self.ids.capacity() * SLOT_BYTES + self.slots.len() * MAP_BYTES
    }

    /// What [`Self::bytes`] will be after one more insertion, at most.
    pub(super) fn bytes_after_push(&self) -> usize {
        let capacity = match self.ids.capacity() - self.len() {
            0 => self.len() + Self::growth(self.len()),
            _ => self.ids.capacity(),
        };
        let mapped = if self.len() + 1 >= SMALL { self.len() + 1 } else { self.slots.len() };
        capacity * SLOT_BYTES + mapped * MAP_BYTES
    }

    /// Whether the id is new.
    pub(super) fn insert(&mut self, id: [u8; 32], code: &Code) -> bool {
        if let Some(slot) = self.slot(&id) {
            self.signs[slot] = code.signs;
            self.codes[slot] = code.bytes;
            self.scales[slot] = code.scale;
            return false;
        }
        self.push(id, code);
        true
    }

    /// Whether the id was there.
    pub(super) fn remove(&mut self, id: &[u8; 32]) -> bool {
        let Some(slot) = self.slot(id) else { return false };
        self.signs.swap_remove(slot);
        self.codes.swap_remove(slot);
        self.scales.swap_remove(slot);
        self.ids.swap_remove(slot);
        if !self.slots.is_empty() {
            self.slots.remove(id);
            if let Some(moved) = self.ids.get(slot) {
                self.slots.insert(*moved, slot as u32);
            }
        }
        self.shrink();
        true
    }

    /// Best first.
    pub(super) fn nearest(&self, query: &Query, k: usize) -> Vec<Neighbour> {
        if k == 0 {
            return Vec::new();
        }
        let mut found: Vec<Neighbour> = if self.len() < SMALL {
            (0..self.len()).map(|slot| self.neighbour(query, slot)).collect()
        } else {
            let closest = self.closest(query, (k * RESCORE_FACTOR).max(RESCORE_MIN));
            closest.slots().map(|slot| self.neighbour(query, slot)).collect()
        };
        found.sort_unstable_by(|a, b| b.similarity.total_cmp(&a.similarity));
        found.truncate(k);
        found
    }

    fn neighbour(&self, query: &Query, slot: usize) -> Neighbour {
        Neighbour { id: self.ids[slot], similarity: query.similarity(&self.codes[slot], self.scales[slot]) }
    }

    fn closest(&self, query: &Query, wanted: usize) -> Closest {
        let mut closest = Closest::new(wanted);
        let mut distances = [0_u16; BLOCK];
        for (index, block) in self.signs.chunks(BLOCK).enumerate() {
            query.distances(block, &mut distances);
            for (offset, distance) in distances.iter().take(block.len()).enumerate() {
                if *distance < closest.farthest.1 {
                    closest.offer(*distance, (index * BLOCK + offset) as u32);
                }
            }
        }
        closest
    }

    fn slot(&self, id: &[u8; 32]) -> Option<usize> {
        if self.slots.is_empty() {
            self.ids.iter().position(|known| known == id)
        } else {
            self.slots.get(id).map(|slot| *slot as usize)
        }
    }

    fn push(&mut self, id: [u8; 32], code: &Code) {
        if self.len() == self.ids.capacity() {
            self.reserve(Self::growth(self.len()));
        }
        if !self.slots.is_empty() || self.len() + 1 >= SMALL {
            if self.slots.is_empty() {
                self.slots = self.ids.iter().enumerate().map(|(slot, id)| (*id, slot as u32)).collect();
            }
            self.slots.insert(id, self.len() as u32);
        }
        self.signs.push(code.signs);
        self.codes.push(code.bytes);
        self.scales.push(code.scale);
        self.ids.push(id);
    }

    /// Gentler than doubling: half as much again, and one at a time at first.
    fn growth(len: usize) -> usize {
        len / 2 + 1
    }

    fn reserve(&mut self, additional: usize) {
        self.signs.reserve_exact(additional);
        self.codes.reserve_exact(additional);
        self.scales.reserve_exact(additional);
        self.ids.reserve_exact(additional);
    }

    /// Gives memory back once three quarters are spare.
    fn shrink(&mut self) {
        if self.ids.capacity() > 4 * self.len() {
            let kept = 2 * self.len();
            self.signs.shrink_to(kept);
            self.codes.shrink_to(kept);
            self.scales.shrink_to(kept);
            self.ids.shrink_to(kept);
            self.slots.shrink_to(kept);
        }
    }
}

impl Closest {
    fn new(wanted: usize) -> Self {
        Self {
            slots: [(0, 0); RESCORE_MAX],
            len: 0,
            wanted: wanted.min(RESCORE_MAX),
            farthest: (0, u16::MAX),
        }
    }

    /// Takes a slot that is closer than the farthest held.
    fn offer(&mut self, distance: u16, slot: u32) {
        if self.len < self.wanted {
            self.slots[self.len] = (distance, slot);
            self.len += 1;
            if self.len < self.wanted {
                return;
            }
        } else {
            self.slots[self.farthest.0] = (distance, slot);
        }
        self.farthest = self.find_farthest();
    }

    fn find_farthest(&self) -> (usize, u16) {
        let held = self.slots[..self.len].iter().enumerate();
        held.fold((0, 0), |far, (i, (distance, _))| if *distance >= far.1 { (i, *distance) } else { far })
    }

    fn slots(&self) -> impl Iterator<Item = usize> {
        self.slots[..self.len].iter().map(|(_, slot)| *slot as usize)
    }
}
