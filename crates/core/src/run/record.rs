//! What is remembered of a run: for people, and so that after a crash nothing of it is left running.

use super::steps::State;
use crate::event::{Branch, ProjectName};
use crate::id::{ItemId, Label, LeaseId, RunId};
use crate::layout::{JobName, PipelineName};
use crate::pipeline::{RunResult, RunWish, Subject};
use crate::time::Time;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A node of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunNode {
    /// Its name.
    pub name: String,
    /// What it was asked for as.
    pub label: Label,
    /// Where it came from.
    pub provider: String,
    /// How a server that was started anew gets there to end what runs. None: it ends with the server.
    pub way: Option<SshWay>,
}

/// The way to a node over OpenSSH.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SshWay {
    /// User and address.
    pub target: String,
    /// TCP port.
    pub port: u16,
    /// The file of the private key.
    pub key: PathBuf,
    /// The file of the node's host key.
    pub known_hosts: PathBuf,
}

/// A run as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which.
    pub run: RunId,
    /// Of which item.
    pub item: ItemId,
    /// Which job.
    pub job: JobName,
    /// Whether its result counts.
    pub voting: bool,
    /// 1 for the first.
    pub attempt: u32,
    /// Of which pipeline.
    pub pipeline: PipelineName,
    /// The project under test.
    pub project: Option<ProjectName>,
    /// Its branch, if it is about one.
    pub branch: Option<Branch>,
    /// What it is about, for people: `1234,5`, a ref, a branch.
    pub subject: String,
    /// Where it stands.
    pub state: State,
    /// What it waits for, for people; empty when it runs.
    pub waits_for: String,
    /// When it was first wanted.
    pub queued: Time,
    /// When node and test environment were there.
    pub started: Option<Time>,
    /// When all was over, logs included.
    pub ended: Option<Time>,
    /// Its nodes; the first one runs the scripts.
    pub nodes: Vec<RunNode>,
    /// Its test environment's lease.
    pub lease: Option<LeaseId>,
    /// Console, then logs.
    pub url: String,
    /// One line for people: the first error, or why the infrastructure failed.
    pub note: String,
}

impl Record {
    /// Of a run that is wanted now.
    #[must_use]
    pub fn new(wish: &RunWish, now: Time) -> Record {
        let (branch, subject) = match &wish.context.subject {
            Subject::Change(key) => {
                let own = wish.context.series.last();
                (own.map(|item| item.branch.clone()), key.short())
            }
            Subject::Ref(update) => {
                let branch = update.branch().and_then(|b| Branch::new(b).ok());
                (branch, update.zuul_name().to_owned())
            }
            Subject::Branch { branch, .. } => (Some(branch.clone()), branch.to_string()),
        };
        Record {
            run: wish.run,
            item: wish.item,
            job: wish.job.name.clone(),
            voting: wish.job.voting,
            attempt: wish.attempt,
            pipeline: wish.context.pipeline.clone(),
            project: super::variables::project(wish).cloned(),
            branch,
            subject,
            state: State::WaitingNode,
            waits_for: String::new(),
            queued: now,
            started: None,
            ended: None,
            nodes: Vec::new(),
            lease: None,
            url: String::new(),
            note: String::new(),
        }
    }

    /// What it came to, when it is over.
    #[must_use]
    pub fn result(&self) -> Option<RunResult> {
        match self.state {
            State::Over(result) => Some(result),
            State::WaitingNode
            | State::WaitingTestenv
            | State::Preparing { .. }
            | State::Running { .. }
            | State::Post { .. }
            | State::Collecting { .. } => None,
        }
    }
}
