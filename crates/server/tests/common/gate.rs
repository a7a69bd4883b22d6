//! A server with a gate, and what left its pipelines.

use super::{LIMIT, World, config};
use std::path::Path;
use std::time::Duration;
use toci_server::{GateConfig, MergerConfig, ServerConfig, SourceConfig};
use toci_wire::api::EndedItem;

/// Settings for a server in `folder` whose gate has this layout and this source.
pub(crate) fn with_gate(folder: &Path, layout: &str, source: SourceConfig) -> ServerConfig {
    let file = folder.join("layout.yaml");
    std::fs::write(&file, layout).unwrap();
    let gate = GateConfig {
        layout: file,
        sources: vec![source],
        merger: MergerConfig {
            folder: folder.join("mirrors"),
            url: None,
            identity: ("toci".into(), "toci@example.org".into()),
        },
        status_url: None,
    };
    ServerConfig { gate: Some(gate), ..config(folder) }
}

/// What left so far, once that is as it should be.
pub(crate) async fn ended(world: &World, enough: impl Fn(&[EndedItem]) -> bool) -> Vec<EndedItem> {
    let wait = async {
        loop {
            let last = world.admin.ended_items().await.unwrap();
            if enough(&last) {
                return last;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(LIMIT, wait).await {
        Ok(ended) => ended,
        Err(_) => {
            let pipelines = world.admin.pipelines().await.unwrap();
            panic!("{:#?}\n{pipelines:#?}", world.admin.ended_items().await.unwrap())
        }
    }
}

/// Whether something left a pipeline this way.
pub(crate) fn has(ended: &[EndedItem], pipeline: &str, subject: &str, end: &str) -> bool {
    ended.iter().any(|e| e.pipeline == pipeline && e.subject == subject && e.end == end)
}
