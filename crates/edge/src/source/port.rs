//! What every source can do.

use crate::git::Remote;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use toci_core::event::{Change, ProjectName, Revision, SourceName, TriggerEvent};
use toci_core::id::ReportId;
use toci_core::layout::{GerritVote, MergeMode};
use toci_core::pipeline::ReportAction;
use tokio::sync::mpsc;

/// Changes that one answer lists at most; what is beyond is told in the log and left out.
pub const CHANGES_MAX: usize = 500;

/// An answer that takes a while.
pub type Work<'a, T> = BoxFuture<'a, T>;

/// How far a source was heard: a few named texts that only the source understands, kept by the server.
pub type Cursors = BTreeMap<String, String>;

/// What a source says while it is listened to.
#[derive(Clone, Debug)]
pub enum Heard {
    /// Something happened.
    Event {
        /// What.
        event: Box<TriggerEvent>,
        /// Once the event is safe: which cursor to keep, and its new text. Listening anew from there misses nothing;
        /// an event may come twice.
        cursor: (String, String),
    },
    /// Nothing happened, but listening may go on from here.
    Cursor((String, String)),
    /// The link came up (`Ok`) or went down, for people; the source mends it by itself.
    Link(Result<(), String>),
    /// Something came that is no event: for people. It is passed over.
    Malformed(String),
}

/// Why a source did not do something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached, or it failed: later it may work.
    #[error("{source_name} cannot be reached: {why}")]
    Unreachable {
        /// Which source.
        source_name: String,
        /// What happened.
        why: String,
    },
    /// It understood and will not.
    #[error("{source_name} refused: {why}")]
    Refused {
        /// Which source.
        source_name: String,
        /// What it said.
        why: String,
    },
}

/// What is to be told about a change.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// Its id, the same for every attempt: a source that can see that it was told already is not told twice.
    pub report: ReportId,
    /// What kind.
    pub action: ReportAction,
    /// Which pipeline's.
    pub pipeline: String,
    /// About which change.
    pub change: Change,
    /// The whole text.
    pub message: String,
    /// Votes and flags, as the layout names them.
    pub votes: Vec<GerritVote>,
    /// Merge the change.
    pub merge: bool,
    /// How the layout merges its project: how it was tested, and how a source that can choose merges it.
    pub mode: MergeMode,
    /// The tested commit: what a plain git source pushes when it merges.
    pub commit: Option<Revision>,
}

/// A source of changes.
pub trait Source: Send + Sync + core::fmt::Debug {
    /// What layouts call it.
    fn name(&self) -> &SourceName;

    /// Where its repositories are.
    fn remote(&self) -> Remote;

    /// Tells what happens from `since` on, in order, and mends its link by itself; returns when nobody listens any more.
    fn listen(&self, since: Cursors, out: mpsc::Sender<Heard>) -> Work<'_, ()>;

    /// Somebody says that there is news: a source that looks now and then does so at once.
    fn poke(&self) {}

    /// The source's projects that pipelines know. A source that has to be asked project by project asks about these.
    fn watch(&self, _projects: BTreeSet<ProjectName>) {}

    /// A change as it is now, its current patchset when none is named, with `needs` and `needed_by` filled in;
    /// `None` when there is no such change or patchset.
    fn change<'a>(
        &'a self,
        number: u64,
        patchset: Option<&'a str>,
    ) -> Work<'a, Result<Option<Change>, SourceError>>;

    /// What stands after `Depends-On:` in another source's change, when it is about a change of this source: its
    /// current patchset.
    fn find<'a>(&'a self, footer: &'a str) -> Work<'a, Result<Vec<Change>, SourceError>>;

    /// The open changes of a project, each in its current patchset.
    fn open_changes<'a>(
        &'a self,
        project: &'a ProjectName,
    ) -> Work<'a, Result<Vec<Change>, SourceError>>;

    /// Tells it. Answers whether the change is merged now.
    fn report<'a>(&'a self, report: &'a SourceReport) -> Work<'a, Result<bool, SourceError>>;
}
