//! `agent.json` in the state folder: which program serves this host, there while it does so well; or that an agent made
//! way for its successor. An upgrade waits for it, and goes back to the version before when it does not come.

use crate::state::{self, StateDir, StateError};
use crate::te::wall_now;
use std::path::PathBuf;
use std::sync::OnceLock;
use toci_core::chain::Chain;

/// Tells, once.
#[derive(Debug)]
pub(super) struct Well {
    path: PathBuf,
    told: OnceLock<()>,
}

impl Well {
    /// A new agent: nothing is known of it yet.
    pub(super) fn begin(state: &StateDir) -> Result<Well, StateError> {
        let path = state.root().join("agent.json");
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(StateError::Io { doing: "remove", path, source })
            }
            Ok(()) | Err(_) => Ok(Well { path, told: OnceLock::new() }),
        }
    }

    /// All is in place, and the server (if there is one) has been told so.
    pub(super) fn tell(&self) {
        self.told.get_or_init(|| {
            let program = std::env::current_exe().unwrap_or_default();
            self.write(&serde_json::json!({
                "program": program.display().to_string(),
                "version": env!("CARGO_PKG_VERSION"),
                "since_us": wall_now().0,
            }));
        });
    }

    /// This agent is about to end; the time of its successor begins.
    pub(super) fn makes_way(&self) {
        self.told.get_or_init(|| ());
        self.write(&serde_json::json!({ "makes_way_us": wall_now().0 }));
    }

    fn write(&self, words: &serde_json::Value) {
        if let Err(e) = state::write_private(&self.path, words.to_string().as_bytes()) {
            tracing::warn!(error = %Chain(&e), "cannot tell how the agent is");
        }
    }
}
