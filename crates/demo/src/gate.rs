//! Two changes, the layout that tests them, and a look at the gate that decides them.

use crate::error::{DemoError, Result};
use crate::git_host::{PROJECTS, Proposed};
use crate::narrator::Narrator;
use crate::times::Times;
use std::time::{Duration, Instant};
use toci_client::api::ApiClient;

/// Pipelines and jobs, for the git host; the job wants a node `local-node`.
pub const LAYOUT: &str = include_str!("layout.yaml");

/// What a developer pushes.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// Where it shall be merged.
    pub project: &'static str,
    /// The first line of its message.
    pub title: &'static str,
    /// The file that it replaces, and with what.
    pub file: (&'static str, &'static str),
}

/// The first one breaks the deployment, the second one does not; both are tested by the same job, so the second one is
/// first tested on top of the first.
pub const CHANGES: [Change; 2] = [
    Change {
        project: PROJECTS[0],
        title: "Set the seed up in one line",
        file: ("hooks/seed", "#!/bin/sh\necho 'the seed cannot be set up like this' >&2\nexit 1\n"),
    },
    Change {
        project: PROJECTS[1],
        title: "A better page",
        file: ("hooks/seed", "#!/bin/sh\n. ./lib/page.sh\npage \"a better seed\"\n"),
    },
];

/// Both changes on their way through the gate.
#[derive(Debug)]
pub struct Gate {
    narrator: Narrator,
    changes: [Proposed; 2],
    second_waits: bool,
    limit: Duration,
    until: Instant,
}

impl Gate {
    /// The first one was approved just now; both must be decided within `limit`.
    #[must_use]
    pub fn new(changes: [Proposed; 2], limit: Duration) -> Gate {
        let narrator = Narrator::default();
        Gate { narrator, changes, second_waits: true, limit, until: Instant::now() + limit }
    }

    /// Tells what is new, and has the second change approved when the first one is in the gate, so that it stands behind
    /// it. Whether both have left.
    ///
    /// # Errors
    /// The control plane does not answer, the approval fails, or the limit is over.
    pub async fn look<E: From<DemoError>>(
        &mut self,
        operator: &ApiClient,
        times: &Times,
        approve: impl Fn(&Proposed) -> Result<(), E>,
    ) -> Result<bool, E> {
        let pipelines = operator.pipelines().await.map_err(DemoError::from)?;
        let ended = operator.ended_items().await.map_err(DemoError::from)?;
        for line in self.narrator.tell(&pipelines, &ended) {
            times.say(&format!("  {line}"));
        }
        if self.second_waits
            && pipelines.iter().flat_map(|p| &p.queues).any(|q| !q.items.is_empty())
        {
            approve(&self.changes[1])?;
            self.second_waits = false;
        }
        let are_decided = ended.len() >= self.changes.len();
        if !are_decided && Instant::now() > self.until {
            let late = format!("the gate has not decided after {} s", self.limit.as_secs());
            return Err(DemoError::new(late, "see the control plane's log").into());
        }
        Ok(are_decided)
    }
}
