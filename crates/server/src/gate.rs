//! The stages of the gate, put together: sources, mirrors, the pipeline task and those that carry out what it wants.

use crate::config::{GateConfig, SourceConfig};
use crate::tasks::event::{self, Sources};
use crate::tasks::pipeline::{GateError, GateHandle, merge};
use crate::tasks::report;
use std::path::PathBuf;
use std::sync::Arc;
use toci_core::layout::Layout;
use toci_core::pipeline::{Input, Policy};
use toci_edge::git::{Merger, Mirrors, Remotes};
use toci_edge::source::Source;
use toci_edge::source::gerrit::GerritSource;
use toci_edge::source::git::GitSource;
use toci_store::{Store, StoreError};
use toci_wire::layout::{OWN_FILE, read_own};
use tokio::task::JoinSet;

/// Largest layout, in bytes.
const LAYOUT_MAX_BYTES: u64 = 4 << 20;

/// Why the gate did not start, or did not take a new layout.
#[derive(Debug, thiserror::Error)]
pub enum GateStartError {
    /// The layout's file.
    #[error("read the layout {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The layout is wrong: every error with its place, one a line.
    #[error("the layout is wrong:\n{0}")]
    Wrong(String),
    /// The store.
    #[error("read the gate")]
    Store(#[from] StoreError),
    /// The gate did not take it.
    #[error("change the layout")]
    Gate(#[from] GateError),
}

/// The gate as it runs. When it goes, its tasks end.
#[derive(Debug)]
pub struct GateParts {
    /// The pipeline task.
    pub gate: GateHandle,
    /// Where changes come from.
    pub sources: Sources,
    /// The merger's repositories.
    pub mirrors: Arc<Mirrors>,
    /// What it was started with.
    pub config: GateConfig,
    _tasks: JoinSet<()>,
}

impl GateParts {
    /// Starts everything. The store's book must be claimed.
    pub async fn start(store: Store, config: GateConfig) -> Result<GateParts, GateStartError> {
        let layout = read_layout(&config)?;
        let remotes: Remotes = config
            .sources
            .iter()
            .map(|source| match source {
                SourceConfig::Git(git) => (git.name.clone(), git.remote()),
                SourceConfig::Gerrit(gerrit) => (gerrit.name.clone(), gerrit.remote()),
            })
            .collect();
        let mirrors = Arc::new(Mirrors::new(&config.merger.folder, remotes));
        let all: Vec<Arc<dyn Source>> = config
            .sources
            .iter()
            .map(|source| -> Arc<dyn Source> {
                match source {
                    SourceConfig::Git(git) => {
                        Arc::new(GitSource::new(git.clone(), Arc::clone(&mirrors)))
                    }
                    SourceConfig::Gerrit(gerrit) => Arc::new(GerritSource::new(gerrit.clone())),
                }
            })
            .collect();
        let sources = Sources::new(all);
        let mut heard = store.read_cursors().await?;
        let policy = Policy {
            status_url: config.status_url.clone(),
            files: vec![OWN_FILE.to_owned()],
            read: read_own,
            ..Policy::default()
        };
        let gate = GateHandle::start(store, Arc::new(layout), policy).await?;
        let (name, email) = &config.merger.identity;
        let merger = Arc::new(Merger::new(Arc::clone(&mirrors), name, email));
        let mut tasks = JoinSet::new();
        tasks.spawn(merge::run(gate.clone(), merger));
        tasks.spawn(merge::sweep(gate.clone(), Arc::clone(&mirrors)));
        tasks.spawn(report::run(gate.clone(), sources.clone()));
        tasks.spawn(event::run_timers(gate.clone()));
        tasks.spawn(event::follow_merges(gate.clone(), sources.clone()));
        for source in sources.iter() {
            let since = heard.remove(source.name()).unwrap_or_default();
            tasks.spawn(event::follow(gate.clone(), sources.clone(), Arc::clone(source), since));
        }
        Ok(GateParts { gate, sources, mirrors, config, _tasks: tasks })
    }

    /// Reads the layout anew. Queues are kept; a layout that is wrong changes nothing.
    pub async fn reconfigure(&self) -> Result<(), GateStartError> {
        let layout = read_layout(&self.config)?;
        self.gate.submit(Input::Layout(Arc::new(layout))).await?;
        tracing::info!("the layout is read anew");
        Ok(())
    }
}

fn read_layout(config: &GateConfig) -> Result<Layout, GateStartError> {
    use std::io::Read;
    let path = &config.layout;
    let failed = |source| GateStartError::Read { path: path.clone(), source };
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    file.take(LAYOUT_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    let name = path.display().to_string();
    let Some(first) = config.sources.first() else {
        return Err(GateStartError::Wrong("there is no source".to_owned()));
    };
    let read = toci_wire::layout::read(&name, &text, first.name());
    for note in &read.notes {
        tracing::info!("{note}");
    }
    read.layout.ok_or_else(|| {
        let errors: Vec<String> = read.errors.iter().map(ToString::to_string).collect();
        GateStartError::Wrong(errors.join("\n"))
    })
}
