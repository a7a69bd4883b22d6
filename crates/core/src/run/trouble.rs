//! Failures of the infrastructure in a row, by job and by provider: three are no accident, and people are told.

use crate::run::record::Record;
use crate::time::Time;
use serde::Serialize;
use std::collections::BTreeMap;

/// So many failures in a row are told.
pub const TROUBLE_FROM: u32 = 3;
/// Jobs and providers that are counted at most; the oldest are forgotten.
const COUNTED_MAX: usize = 10_000;

/// A job or a provider whose runs fail by the infrastructure, one after the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trouble {
    /// `job NAME` or `provider NAME`.
    pub of: String,
    /// Failures in a row.
    pub failures: u32,
    /// Since when.
    pub since: Time,
    /// What was said of the last one.
    pub last: String,
}

/// All that is counted.
#[derive(Debug, Default)]
pub struct Troubles {
    known: BTreeMap<String, Trouble>,
}

impl Troubles {
    /// A run is over. Gives back what has become a trouble just now.
    pub fn count(&mut self, record: &Record, now: Time) -> Vec<Trouble> {
        let Some(result) = record.result() else { return Vec::new() };
        let failed = result.is_infrastructure();
        if result.says_nothing() {
            return Vec::new();
        }
        let mut names = vec![format!("job {}", record.job)];
        names.extend(record.nodes.first().map(|n| format!("provider {}", n.provider)));
        let mut fresh = Vec::new();
        for of in names {
            if !failed {
                self.known.remove(&of);
                continue;
            }
            let trouble = self.known.entry(of.clone()).or_insert(Trouble {
                of,
                failures: 0,
                since: now,
                last: String::new(),
            });
            trouble.failures += 1;
            trouble.last = format!("{}: {}", result.word(), record.note);
            if trouble.failures == TROUBLE_FROM {
                fresh.push(trouble.clone());
            }
        }
        while self.known.len() > COUNTED_MAX {
            let oldest = self.known.values().min_by_key(|t| t.since).map(|t| t.of.clone());
            let Some(oldest) = oldest else { break };
            self.known.remove(&oldest);
        }
        fresh
    }

    /// Those that are to be told.
    pub fn list(&self) -> Vec<Trouble> {
        self.known.values().filter(|t| t.failures >= TROUBLE_FROM).cloned().collect()
    }
}
