//! Without a server: every TE is served at once and for good, its JSON written to
//! `<state>/test_env_<N>.json`, as the origin's TE hosts did to `/etc` (origin.md 2.5).

use crate::host::Host;
use crate::state;
use crate::te::{TeTaskHandle, Wish};
use std::sync::Arc;
use toci_core::chain::Chain;
use toci_core::id::LeaseId;
use toci_core::lease::fence::Standing;
use toci_wire::api::{DesiredTe, TeTask};

/// As long as the fence can think: about ten years, in seconds.
const FOR_GOOD_S: u64 = 10 * 365 * 24 * 3600;

/// Serves one TE; ends with its task.
pub(super) async fn serve(host: Arc<Host>, te: TeTaskHandle) {
    let path = host.state.root().join(format!("test_env_{}.json", te.te.number));
    let mut status = te.status.clone();
    loop {
        let now = status.borrow_and_update().clone();
        match (&now.standing, &now.serving) {
            (Standing::Clean, _) => {
                let generation = now.generation.next().0;
                let lease = LeaseId(generation).to_string();
                let task = TeTask::Serve { lease, left_s: FOR_GOOD_S };
                let wish = DesiredTe { testenv: te.te.id.to_string(), generation, task };
                if let Some(wish) = Wish::new(&wish) {
                    te.wish(wish);
                }
            }
            (Standing::Serving, Some(serving)) => {
                let text = serde_json::to_vec_pretty(&serving.te_json).unwrap_or_default();
                match state::write_private(&path, &text) {
                    Ok(()) => tracing::info!(te = %te.te.id, file = %path.display(), "served"),
                    Err(e) => tracing::error!(error = %Chain(&e), "cannot write the TE JSON"),
                }
            }
            (Standing::Serving, None) | (Standing::Resetting, _) => {}
            (Standing::Broken(reason), _) => {
                tracing::error!(te = %te.te.id, %reason, "broken");
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}
