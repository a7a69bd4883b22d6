//! What a host keeps on disk for one TE.

use super::keys::LeaseKey;
use crate::state::{self, StateError};
use serde::{Deserialize, Serialize};
use std::path::Path;
use toci_core::id::{Generation, LeaseId};
use toci_core::lease::fence::{Mark, Open};
use toci_core::time::Time;
use zeroize::Zeroizing;

/// The record: the fence's mark and, while serving, the lease's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Newest generation seen.
    pub generation: Generation,
    /// Present while serving.
    pub open: Option<OpenRecord>,
    /// Life of the machines in which it was written (`clock::incarnation`).
    pub incarnation: String,
}

/// The lease that is being served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenRecord {
    /// The lease.
    pub lease: LeaseId,
    /// Its end, by the boot clock.
    pub until: Time,
    /// Its key.
    pub key: LeaseKey,
}

impl Record {
    /// The record of a TE; `None` when it was never served.
    pub fn read(path: &Path) -> Result<Option<Record>, StateError> {
        state::read_json(path)
    }

    /// Writes it durably.
    pub fn write(&self, path: &Path) -> Result<(), StateError> {
        let text = Zeroizing::new(serde_json::to_vec(self).unwrap_or_default());
        state::write_private(path, &text)
    }

    /// The record for a mark. The key is kept as long as the generation is the same.
    pub fn of(
        mark: Mark,
        before: Option<&Record>,
        incarnation: &str,
    ) -> Result<Record, StateError> {
        let generation = mark.generation.0;
        let kept = before.and_then(|r| r.open.as_ref()).map(|o| &o.key);
        let open = match mark.open {
            None => None,
            Some(Open { lease, until }) => Some(OpenRecord {
                lease,
                until,
                key: match kept.filter(|k| k.generation == generation) {
                    Some(k) => k.clone(),
                    None => LeaseKey::new(generation)?,
                },
            }),
        };
        Ok(Record { generation: mark.generation, open, incarnation: incarnation.to_owned() })
    }

    /// What the fence wants to know of it.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let open = self.open.as_ref().map(|o| Open { lease: o.lease, until: o.until });
        Mark { generation: self.generation, open }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_lives_as_long_as_its_generation() {
        let open = |s| Some(Open { lease: LeaseId(9), until: Time(s) });
        let mark = |g, open| Mark { generation: Generation(g), open };
        let one = Record::of(mark(1, open(5)), None, "i").unwrap();
        let extended = Record::of(mark(1, open(7)), Some(&one), "i").unwrap();
        assert_eq!(one.open.as_ref().unwrap().key, extended.open.as_ref().unwrap().key);
        assert_eq!(extended.mark(), mark(1, open(7)));
        let two = Record::of(mark(2, open(9)), Some(&extended), "i").unwrap();
        assert_ne!(one.open.unwrap().key, two.open.as_ref().unwrap().key);
        assert_eq!(Record::of(mark(2, None), Some(&two), "i").unwrap().open, None);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("1.json");
        two.write(&path).unwrap();
        assert_eq!(Record::read(&path).unwrap(), Some(two));
    }
}
