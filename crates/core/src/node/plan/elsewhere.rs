//! Whether a run that has some of its nodes is better off elsewhere.

use super::super::settings::Amount;
use super::{Round, Shelf};
use crate::id::{Label, ProviderName};

impl<'a> Round<'a> {
    /// Whether so many nodes are there, or are made there soon, as far as anybody knows. Those that nobody has make room.
    pub(super) fn gives_soon(&self, name: &'a ProviderName, label: &'a Label, need: usize) -> bool {
        let (Some(room), Some(cost)) = (self.rooms.get(name), self.cost(name, label)) else {
            return false;
        };
        let shelf = self.shelves.get(&(name, label)).cloned().unwrap_or_default();
        if self.is_silent(name) || room.closed && shelf.ready.len() < need {
            return false;
        }
        let more = u64::try_from(need).unwrap_or(u64::MAX).saturating_sub(shelf.counted_on());
        let mut most = room.free.and(room.coming);
        for ((_, other), shelf) in self.shelves.iter().filter(|((at, _), _)| *at == name) {
            let cost = self.cost(name, other).filter(|_| *other != label).unwrap_or(Amount::NONE);
            most = most.and(cost.times(u32::try_from(shelf.ready.len()).unwrap_or(u32::MAX)));
        }
        let most = room.more.get(label).copied().unwrap_or(0).min(most.holds(cost));
        let goes_on = self.is_open(name, label) && !self.is_full(name, label) && shelf.late == 0;
        more == 0 || goes_on && most >= more
    }

    /// Whether nobody knows when so many nodes more will be there.
    pub(super) fn is_stuck(&self, name: &'a ProviderName, label: &'a Label, need: usize) -> bool {
        let there = self.shelves.get(&(name, label)).map_or(0, Shelf::counted_on);
        let paused = self.pool.providers.get(name).is_none_or(|p| p.row.paused.is_some());
        let hangs = self.is_silent(name) || self.late(name, label) > 0;
        there < need as u64 && (paused || hangs || self.is_full(name, label))
    }
}
