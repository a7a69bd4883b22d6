//! How long each stage took.

use crate::output;
use std::time::{Duration, Instant};

/// A stop watch for stages.
#[derive(Debug)]
pub(super) struct Times {
    started: Instant,
    rows: Vec<(String, Duration)>,
}

impl Times {
    /// `prepared`: what was done before this process was started.
    pub(super) fn start(prepared: Duration) -> Times {
        let now = Instant::now();
        let started = now.checked_sub(prepared).unwrap_or(now);
        let images = (!prepared.is_zero()).then(|| ("images".to_owned(), prepared));
        Times { started, rows: images.into_iter().collect() }
    }

    /// A line with the time since the start.
    pub(super) fn say(&self, text: &str) {
        output::say(&format!("[{:7.1} s] {text}", self.started.elapsed().as_secs_f64()));
    }

    /// A stage is done that began at `began`.
    pub(super) fn done(&mut self, stage: &str, began: Instant) {
        let took = began.elapsed();
        self.say(&format!("{stage}: done in {:.1} s", took.as_secs_f64()));
        self.rows.push((stage.to_owned(), took));
    }

    /// All stages as a table.
    pub(super) fn table(&self) -> String {
        let total = ("total".to_owned(), self.started.elapsed());
        let rows: Vec<_> = self
            .rows
            .iter()
            .chain([&total])
            .map(|(name, took)| vec![name.clone(), format!("{:7.1} s", took.as_secs_f64())])
            .collect();
        output::table(&["STAGE", "   TIME"], &rows)
    }
}
