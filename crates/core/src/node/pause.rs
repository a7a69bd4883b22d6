//! Where nothing is built for a while: by hand until somebody says otherwise, after failed builds for a growing time.
//! Nodes that are there are used and deleted as ever.

use super::pool::{Pool, Provider, shortened};
use crate::id::{Label, ProviderName};
use crate::refused::Refused;
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Somebody wants nothing built there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderPause {
    /// Since when.
    pub since: Time,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// Failed builds of a label at a provider, in a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// How many.
    pub failures: u32,
    /// No build before this.
    pub until: Time,
    /// What was said of the last one.
    pub reason: String,
}

/// What is kept of a provider besides its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProviderRow {
    /// Which.
    pub name: ProviderName,
    /// Somebody has paused it.
    pub paused: Option<ProviderPause>,
    /// Labels whose builds fail there.
    pub troubles: BTreeMap<Label, Trouble>,
}

impl ProviderRow {
    /// All is well with it.
    pub(super) fn new(name: ProviderName) -> ProviderRow {
        ProviderRow { name, paused: None, troubles: BTreeMap::new() }
    }
}

impl Pool {
    /// What is kept of a provider; none when all is well with it, or it is not configured.
    #[must_use]
    pub fn provider_row(&self, name: &ProviderName) -> Option<&ProviderRow> {
        let row = &self.providers.get(name)?.row;
        (row.paused.is_some() || !row.troubles.is_empty()).then_some(row)
    }

    /// What was kept of a provider before a restart. The failures count on, but one build is tried soon: whoever
    /// starts the server anew may have done so because the cause is gone.
    pub(super) fn load_provider(&mut self, mut row: ProviderRow) {
        let name = row.name.clone();
        let soon = self.now.after(self.policy.pause_min);
        if let Some(provider) = self.providers.get_mut(&name) {
            row.troubles.retain(|label, _| provider.spec.pools.contains_key(label));
            for trouble in row.troubles.values_mut() {
                trouble.until = trouble.until.min(soon);
            }
            provider.row = row;
        }
        // Of one that is not configured any more nothing is kept.
        self.changes.providers.insert(name);
    }

    /// Nothing more is built there. Again is no harm.
    pub(super) fn pause_provider(
        &mut self,
        name: &ProviderName,
        by: &str,
        reason: &str,
    ) -> Result<(), Refused> {
        let since = self.now;
        let provider = self.known_provider(name)?;
        if provider.row.paused.is_none() {
            let (by, reason) = (shortened(by), shortened(reason));
            let told = format!("is paused by {by}: {reason}");
            provider.row.paused = Some(ProviderPause { since, by, reason });
            self.provider_changed(name, told);
        }
        Ok(())
    }

    /// Builds go on there, also where they failed before: one is tried at once.
    pub(super) fn resume_provider(&mut self, name: &ProviderName) -> Result<(), Refused> {
        let now = self.now;
        let row = &mut self.known_provider(name)?.row;
        let mut was_paused = row.paused.take().is_some();
        for trouble in row.troubles.values_mut().filter(|trouble| trouble.until > now) {
            trouble.until = now;
            was_paused = true;
        }
        if !was_paused {
            let message = format!("provider {name} is not paused");
            return Err(Refused::new("not_paused", message, "see `toci provider list`"));
        }
        self.provider_changed(name, "goes on".to_owned());
        Ok(())
    }

    /// Notes that a provider's row must be written, and what people are told.
    pub(super) fn provider_changed(&mut self, name: &ProviderName, told: String) {
        self.changes.providers.insert(name.clone());
        self.changes.news.push((name.clone(), told));
    }

    fn known_provider(&mut self, name: &ProviderName) -> Result<&mut Provider, Refused> {
        self.providers.get_mut(name).ok_or_else(|| {
            let message = format!("there is no provider {name}");
            Refused::new("no_such_provider", message, "see `toci provider list`")
        })
    }
}
