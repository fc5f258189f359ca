//! How much of what a source says is believed. Pure: it is told the time, and asks nobody.
//!
//! Listed endpoints are taken in at once; whether they are well is health's business. What is not listed any more leaves
//! only so fast: a provider's API that forgets half of a fleet, or answers with an empty list, must not take down what
//! works.

use std::collections::{BTreeMap, VecDeque};

use refrain_core::EndpointId;
use refrain_core::settings::Shrinking;
use tokio::time::Instant;

use super::listing::Listed;

/// The members that one source stands for.
#[derive(Debug)]
pub(super) struct MembershipGuard {
    shrinking: Shrinking,
    members: BTreeMap<EndpointId, Member>,
    /// When members left, in the last [`Shrinking::WINDOW`].
    departures: VecDeque<Instant>,
    /// The members are another source's, whose place this one takes.
    inherited: bool,
}

#[derive(Debug)]
struct Member {
    listed: Listed,
    /// Since when the source does not list it.
    missing_since: Option<Instant>,
}

impl MembershipGuard {
    /// Without members.
    pub(super) fn new(shrinking: Shrinking) -> Self {
        Self { shrinking, members: BTreeMap::new(), departures: VecDeque::new(), inherited: false }
    }

    /// With members that the same source listed before.
    pub(super) fn holding(shrinking: Shrinking, members: Vec<Listed>) -> Self {
        let member = |listed: Listed| (listed.endpoint.id.clone(), Member { listed, missing_since: None });
        Self { members: members.into_iter().map(member).collect(), ..Self::new(shrinking) }
    }

    /// With the members of another source that this one replaces: they stay until this one has listed something.
    pub(super) fn inheriting(shrinking: Shrinking, members: Vec<Listed>) -> Self {
        Self { inherited: true, ..Self::holding(shrinking, members) }
    }

    /// Takes in what is listed, and lets go of what is not as far as that is allowed.
    ///
    /// Invariants: what is listed is a member; unless `allow_empty`, the last members never leave for nothing; within a
    /// window at most the allowed share of the known members leaves, or one.
    pub(super) fn admit(&mut self, listed: Vec<Listed>, now: Instant) {
        if listed.is_empty() && !self.shrinking.allow_empty {
            return;
        }
        self.forget_departures(now);
        if std::mem::take(&mut self.inherited) {
            self.members.clear();
        }
        // Counted before anybody comes: a source that swaps all its endpoints shall not double what may leave.
        let allowed = self.departures_allowed();
        for member in self.members.values_mut() {
            member.missing_since.get_or_insert(now);
        }
        for listed in listed {
            self.members.insert(listed.endpoint.id.clone(), Member { listed, missing_since: None });
        }
        for id in self.longest_missing(allowed) {
            self.members.remove(&id);
            self.departures.push_back(now);
        }
    }

    /// The members, by id.
    pub(super) fn members(&self) -> Vec<Listed> {
        self.members.values().map(|member| member.listed.clone()).collect()
    }

    /// Members that the source does not list any more.
    pub(super) fn held_back(&self) -> usize {
        self.members.values().filter(|member| member.missing_since.is_some()).count()
    }

    /// When the next of them may leave; none if none waits.
    pub(super) fn release_at(&self) -> Option<Instant> {
        let oldest = self.departures.front().filter(|_| self.held_back() > 0);
        oldest.map(|departure| *departure + Shrinking::WINDOW)
    }

    fn forget_departures(&mut self, now: Instant) {
        let is_old = |departure: &Instant| now.saturating_duration_since(*departure) >= Shrinking::WINDOW;
        while self.departures.front().is_some_and(is_old) {
            self.departures.pop_front();
        }
    }

    /// How many may leave now, of those known at the beginning of the window.
    fn departures_allowed(&self) -> usize {
        let known = self.members.len() + self.departures.len();
        let share = known as u64 * u64::from(self.shrinking.permille_max) / 1000;
        (share as usize).max(1).saturating_sub(self.departures.len())
    }

    fn longest_missing(&self, count: usize) -> Vec<EndpointId> {
        let missing = self.members.iter().filter_map(|(id, member)| Some((member.missing_since?, id)));
        let mut missing: Vec<_> = missing.collect();
        missing.sort();
        missing.into_iter().take(count).map(|(_, id)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests;
