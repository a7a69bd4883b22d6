//! What can never be served, as far as that is known: providers learn what their clouds' quotas are, and quotas change.

use super::policy::COUNT_MAX;
use super::pool::{Outcome, Pool, Provider};
use super::settings::Room;
use crate::id::{Label, ProviderName, RunId};
use std::collections::{BTreeMap, BTreeSet};

/// Whether so many nodes of a label can be at a provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// There is room for them, or would be without other nodes of ours.
    Fits,
    /// Its cloud has not said yet, or does not answer.
    Unknown,
    /// Others use so much of its quotas now that there is none, and how much.
    Taken(String),
    /// Settings or quotas do not allow it, and by which figures.
    Never(String),
}

impl Provider {
    /// Whether so many nodes of a label can be here, whatever others of ours are; none when it does not offer the label.
    pub(super) fn fit(&self, label: &Label, count: u32) -> Option<Fit> {
        let (pool, cost) = (self.spec.pools.get(label)?, self.cost(label)?);
        let (name, need) = (&self.spec.name, cost.times(count));
        let nodes = || format!("{count} node{} of {label}", if count == 1 { "" } else { "s" });
        if pool.max < u64::from(count) {
            let max = pool.max;
            return Some(Fit::Never(format!("{name} has at most {max} nodes of {label} (max)")));
        }
        if let Some((needed, there)) = self.spec.quota.short_of(need) {
            let nodes = nodes();
            let why = format!("{nodes} at {name} need {needed}, and its settings allow {there}");
            return Some(Fit::Never(why));
        }
        Some(match &self.told {
            _ if !self.answers() => Fit::Unknown,
            None => Fit::Fits,
            Some(room) => match room.quota.short_of(need) {
                Some((needed, there)) => {
                    let nodes = nodes();
                    Fit::Never(format!("{nodes} at {name} need {needed}, and the quota is {there}"))
                }
                None => match room.capacity.short_of(need) {
                    Some((needed, there)) => Fit::Taken(format!(
                        "{} at {name} need {needed}, and others leave {there} of the quota",
                        nodes()
                    )),
                    None => Fit::Fits,
                },
            },
        })
    }

    /// So many nodes of a label in one request the settings and the quotas allow.
    fn most(&self, label: &Label) -> u32 {
        let (Some(pool), Some(cost)) = (self.spec.pools.get(label), self.cost(label)) else {
            return 0;
        };
        let quota = self.told.as_ref().map_or(self.spec.quota, |room| room.quota);
        let quota = quota.least(self.spec.quota);
        let fits =
            |count: &u32| pool.max >= u64::from(*count) && quota.less(cost.times(*count)).is_some();
        (1..=COUNT_MAX).rev().find(fits).unwrap_or(0)
    }

    /// It has been asked and answers.
    pub(super) fn answers(&self) -> bool {
        self.listed.is_some() && self.unreachable.is_none()
    }
}

impl Pool {
    /// A provider's cloud has told what room there is.
    pub(super) fn told_room(&mut self, name: &ProviderName, room: Room) {
        let Some(provider) = self.providers.get_mut(name) else { return };
        provider.told = Some(room);
        for label in provider.spec.pools.keys() {
            let most = provider.most(label);
            let before = self.possible.entry(label.clone()).or_default();
            *before = most.max(*before);
        }
    }

    /// Why nobody can ever give so many nodes of a label, by all that is known; none when somebody may.
    pub(super) fn never(&self, label: &Label, count: u32) -> Option<String> {
        let mut why = Vec::new();
        for provider in self.providers.values() {
            match provider.fit(label, count) {
                None => {}
                Some(Fit::Never(reason)) => why.push(reason),
                Some(Fit::Fits | Fit::Unknown | Fit::Taken(_)) => return None,
            }
            if self.ready_at(&provider.spec.name, label) >= count as usize {
                return None;
            }
        }
        Some(why.join("; "))
    }

    /// Whether so many were once possible: then quotas were lowered, and somebody may raise them again.
    pub(super) fn was_possible(&self, label: &Label, count: u32) -> bool {
        self.possible.get(label).is_some_and(|most| *most >= count)
    }

    /// Ends requests that no provider can ever serve.
    pub(super) fn refuse_the_impossible(&mut self) {
        // Why, and whether it was possible before.
        let mut known: BTreeMap<(Label, u32), Option<(String, bool)>> = BTreeMap::new();
        let mut has_some: BTreeSet<RunId> = BTreeSet::new();
        for (run, waiter) in &self.requests {
            let key = (waiter.label.clone(), waiter.request.count);
            if waiter.resumes || !self.nodes_of(*run).is_empty() {
                has_some.insert(*run);
            } else {
                let (label, count) = (&waiter.label, waiter.request.count);
                known.entry(key).or_insert_with(|| {
                    self.never(label, count).map(|why| (why, self.was_possible(label, count)))
                });
            }
        }
        let (now, wait) = (self.now, self.policy.quota_wait);
        let mut over: Vec<(RunId, String)> = Vec::new();
        for (run, waiter) in &mut self.requests {
            let (label, count) = (&waiter.label, waiter.request.count);
            let never = known.get(&(label.clone(), count)).and_then(Option::as_ref);
            let Some((why, hopes)) = never.filter(|_| !has_some.contains(run)) else {
                waiter.impossible = None;
                continue;
            };
            let since = *waiter.impossible.get_or_insert(now);
            if !hopes || since.after(wait) <= now {
                over.push((*run, why.clone()));
            }
        }
        for (run, why) in over {
            self.end(run, Outcome::Impossible(why));
        }
    }
}
