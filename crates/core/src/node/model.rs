//! Nodes as values, and how their states are spelt where they are stored.

use crate::id::{Label, NodeId, ProviderName, RunId};
use crate::lease::UnknownWord;
use crate::time::Time;

/// What a node is doing. See the diagram in [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// Its provider makes it.
    Building,
    /// It is there; whether it is fit for a run is being found out.
    Testing,
    /// Fit and free.
    Ready,
    /// Chosen for a run; its guard is being written.
    Handing(RunId),
    /// A run has it.
    InUse(RunId),
    /// Kept for people to look at.
    Held,
    /// Not needed any more; its provider has not said yet that it is gone.
    Deleting,
}

impl NodeState {
    /// The run that has it.
    #[must_use]
    pub fn run(self) -> Option<RunId> {
        match self {
            NodeState::Handing(run) | NodeState::InUse(run) => Some(run),
            NodeState::Building
            | NodeState::Testing
            | NodeState::Ready
            | NodeState::Held
            | NodeState::Deleting => None,
        }
    }

    /// The stored spelling.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            NodeState::Building => "building",
            NodeState::Testing => "testing",
            NodeState::Ready => "ready",
            NodeState::Handing(_) => "handing",
            NodeState::InUse(_) => "in_use",
            NodeState::Held => "held",
            NodeState::Deleting => "deleting",
        }
    }

    /// Reads the stored spelling.
    pub fn parse(word: &str, run: Option<RunId>) -> Result<NodeState, UnknownWord> {
        Ok(match (word, run) {
            ("building", None) => NodeState::Building,
            ("testing", None) => NodeState::Testing,
            ("ready", None) => NodeState::Ready,
            ("handing", Some(run)) => NodeState::Handing(run),
            ("in_use", Some(run)) => NodeState::InUse(run),
            ("held", None) => NodeState::Held,
            ("deleting", None) => NodeState::Deleting,
            (other, _) => return Err(UnknownWord(other.to_owned())),
        })
    }
}

/// A wish to keep a node for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Until then.
    pub until: Time,
    /// Why.
    pub reason: String,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: NodeId,
    /// What its provider calls it: `<label>-<provider>-<number>`. Known before it is built, so that nothing that was
    /// begun can be lost.
    pub name: String,
    /// What it is.
    pub label: Label,
    /// Where it is.
    pub provider: ProviderName,
    /// What it is doing.
    pub state: NodeState,
    /// Since when.
    pub since: Time,
    /// How its provider finds it again; empty until it is built, and where the name suffices.
    pub machine: String,
    /// The job that has it or had it.
    pub job: String,
    /// Kept for people: at once, or when its run is over.
    pub hold: Option<Hold>,
    /// Why it is deleted, or what went wrong last.
    pub reason: String,
}

/// All that is kept of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// The highest number that was ever given, to a node or an autohold.
    pub last_node: u64,
    /// Every node that is not gone.
    pub nodes: Vec<Node>,
    /// Every wish to hold nodes of failures to come.
    pub autoholds: Vec<super::Autohold>,
    /// Every provider of which something is kept.
    pub providers: Vec<super::ProviderRow>,
}
