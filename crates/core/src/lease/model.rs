//! TEs, hosts and leases as values, and how their states are spelt where they are stored.

use crate::id::{Generation, HostId, Label, LeaseId, Project, ShapeName, TeId};
use crate::time::Time;
use core::time::Duration;

/// What a TE is doing, as the server knows it. See the diagram in [`super`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TeState {
    /// Nothing is known yet: its host has not said that it is clean.
    Unknown,
    /// Clean and free.
    Ready,
    /// Chosen for a lease; its host has not confirmed yet.
    Granted(LeaseId),
    /// Its host serves it; other TEs of the same lease are still awaited.
    Confirmed(LeaseId),
    /// In use.
    Leased(LeaseId),
    /// Kept for debugging.
    Held(LeaseId),
    /// Being cut off and reset; not granted before its host has said `Clean`.
    Resetting,
    /// As `Resetting`, with a trial of its machines, on its way back from quarantine.
    BurnIn,
    /// Failed too often, or taken out by hand; the TE says why.
    Quarantined,
    /// Its host no longer has it.
    Gone,
}

/// A word in the store that is no state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a known state")]
pub struct UnknownWord(pub String);

impl TeState {
    /// The lease that has it.
    #[must_use]
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            TeState::Granted(l) | TeState::Confirmed(l) | TeState::Leased(l) | TeState::Held(l) => {
                Some(*l)
            }
            TeState::Unknown
            | TeState::Ready
            | TeState::Resetting
            | TeState::BurnIn
            | TeState::Quarantined
            | TeState::Gone => None,
        }
    }

    /// The stored spelling. The four states of a TE with a lease are one word: which of them it
    /// is follows from the lease, so that a TE's row is written at the grant and the end only.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            TeState::Unknown => "unknown",
            TeState::Ready => "ready",
            TeState::Granted(_) | TeState::Confirmed(_) | TeState::Leased(_) | TeState::Held(_) => {
                "busy"
            }
            TeState::Resetting => "resetting",
            TeState::BurnIn => "burn_in",
            TeState::Quarantined => "quarantined",
            TeState::Gone => "gone",
        }
    }

    /// Reads the stored spelling; `busy` comes back as `Granted` and is refined by the lease.
    pub fn parse(word: &str, lease: Option<LeaseId>) -> Result<TeState, UnknownWord> {
        Ok(match (word, lease) {
            ("unknown", None) => TeState::Unknown,
            ("ready", None) => TeState::Ready,
            ("busy", Some(l)) => TeState::Granted(l),
            ("resetting", None) => TeState::Resetting,
            ("burn_in", None) => TeState::BurnIn,
            ("quarantined", None) => TeState::Quarantined,
            ("gone", None) => TeState::Gone,
            (other, _) => return Err(UnknownWord(other.into())),
        })
    }
}

/// A test environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Te {
    /// Its name.
    pub id: TeId,
    /// Its host.
    pub host: HostId,
    /// Its number on the host.
    pub number: u32,
    /// Its shape.
    pub shape: ShapeName,
    /// What it offers, sorted.
    pub labels: Vec<Label>,
    /// Generation of the last grant (or of the last reset that had to be told from older ones).
    pub generation: Generation,
    /// What it is doing.
    pub state: TeState,
    /// No new grants; the running lease goes on.
    pub draining: bool,
    /// Failures in a row.
    pub strikes: u32,
    /// Why it is quarantined; empty otherwise.
    pub reason: String,
    /// When `state` was entered.
    pub since: Time,
}

/// A TE host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub id: HostId,
    /// No new grants on any of its TEs.
    pub draining: bool,
    /// When it was enrolled.
    pub enrolled: Time,
}

/// How a lease ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The holder gave it back.
    Released,
    /// Its time was over.
    Expired,
    /// The holder's heartbeats stopped.
    Lost,
    /// An operator, or the loss of its TE, ended it.
    Revoked,
    /// It never got a TE: withdrawn, wait limit passed, or impossible.
    Refused,
}

/// Where a lease stands. See the diagram in [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// In the queue.
    Waiting,
    /// TEs are chosen; not every host has confirmed.
    Granted {
        /// When they were chosen.
        since: Time,
    },
    /// The holder has the TEs; the clock runs.
    Active {
        /// When it ends unless extended.
        expires: Time,
    },
    /// Kept for debugging; no heartbeats are needed.
    Held {
        /// When it ends.
        expires: Time,
    },
    /// Over for good.
    Over {
        /// How it ended.
        end: End,
        /// When.
        at: Time,
    },
}

impl LeaseState {
    /// The stored spelling.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            LeaseState::Waiting => "waiting",
            LeaseState::Granted { .. } => "granted",
            LeaseState::Active { .. } => "active",
            LeaseState::Held { .. } => "held",
            LeaseState::Over { end, .. } => match end {
                End::Released => "released",
                End::Expired => "expired",
                End::Lost => "lost",
                End::Revoked => "revoked",
                End::Refused => "refused",
            },
        }
    }

    /// The moment stored beside the word: of the grant, the expiry or the end.
    #[must_use]
    pub fn moment(&self) -> Time {
        match self {
            LeaseState::Waiting => Time(0),
            LeaseState::Granted { since } => *since,
            LeaseState::Active { expires } | LeaseState::Held { expires } => *expires,
            LeaseState::Over { at, .. } => *at,
        }
    }

    /// Reads the stored spelling.
    pub fn parse(word: &str, moment: Time) -> Result<LeaseState, UnknownWord> {
        let over = |end| LeaseState::Over { end, at: moment };
        Ok(match word {
            "waiting" => LeaseState::Waiting,
            "granted" => LeaseState::Granted { since: moment },
            "active" => LeaseState::Active { expires: moment },
            "held" => LeaseState::Held { expires: moment },
            "released" => over(End::Released),
            "expired" => over(End::Expired),
            "lost" => over(End::Lost),
            "revoked" => over(End::Revoked),
            "refused" => over(End::Refused),
            other => return Err(UnknownWord(other.into())),
        })
    }

    /// Whether it is over for good.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self {
            LeaseState::Waiting
            | LeaseState::Granted { .. }
            | LeaseState::Active { .. }
            | LeaseState::Held { .. } => false,
            LeaseState::Over { .. } => true,
        }
    }
}

/// Which TEs would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Demand {
    /// Only TEs that offer this label.
    pub label: Option<Label>,
    /// Only TEs of this shape.
    pub shape: Option<ShapeName>,
}

impl Demand {
    /// Whether the TE would do.
    #[must_use]
    pub fn fits(&self, te: &Te) -> bool {
        self.label.as_ref().is_none_or(|l| te.labels.contains(l))
            && self.shape.as_ref().is_none_or(|s| te.shape == *s)
    }
}

impl core::fmt::Display for Demand {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match (&self.label, &self.shape) {
            (None, None) => f.write_str("any kind"),
            (Some(l), None) => write!(f, "label {l}"),
            (None, Some(s)) => write!(f, "shape {s}"),
            (Some(l), Some(s)) => write!(f, "label {l} and shape {s}"),
        }
    }
}

/// A lease, from the request to its place in the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its number.
    pub id: LeaseId,
    /// Where it stands.
    pub state: LeaseState,
    /// Who asked: the token's subject.
    pub owner: String,
    /// Who it is for.
    pub project: Project,
    /// Which TEs would do.
    pub demand: Demand,
    /// How many, all or none.
    pub count: u32,
    /// As asked for, 0 to 100.
    pub priority: u8,
    /// What it is for, for people.
    pub purpose: String,
    /// Chosen by the client.
    pub idempotency_key: Option<String>,
    /// How long it was asked for, from the confirmation of the grant.
    pub timeout: Duration,
    /// When waiting ends in refusal.
    pub wait_until: Option<Time>,
    /// Place in the queue: smaller is sooner. Fixed at the request.
    pub rank: i64,
    /// When it was asked for.
    pub requested: Time,
    /// When it became active.
    pub active: Option<Time>,
    /// The TEs granted, with the generation of each; empty while waiting.
    pub tes: Vec<(TeId, Generation)>,
    /// Why it ended or is held; empty otherwise.
    pub reason: String,
}

/// How much of its hold budget a project has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldBudget {
    /// The project.
    pub project: Project,
    /// TE time used, as of `at`; it comes back with time.
    pub used: Duration,
    /// When `used` was worked out.
    pub at: Time,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_spellings_read_back() {
        let l = LeaseId(7);
        for s in [
            TeState::Unknown,
            TeState::Ready,
            TeState::Granted(l),
            TeState::Resetting,
            TeState::BurnIn,
            TeState::Quarantined,
            TeState::Gone,
        ] {
            assert_eq!(TeState::parse(s.word(), s.lease()), Ok(s.clone()));
        }
        let t = Time(5);
        let over = |end| LeaseState::Over { end, at: t };
        for s in [
            LeaseState::Granted { since: t },
            LeaseState::Active { expires: t },
            LeaseState::Held { expires: t },
            over(End::Released),
            over(End::Expired),
            over(End::Lost),
            over(End::Revoked),
            over(End::Refused),
            LeaseState::Waiting,
        ] {
            assert_eq!(LeaseState::parse(s.word(), s.moment()), Ok(s));
        }
        assert!(TeState::parse("busy", None).is_err());
        assert!(LeaseState::parse("gone", t).is_err());
    }
}
