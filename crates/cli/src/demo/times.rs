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

    /// A part of the stage before, measured by somebody else, in seconds.
    pub(super) fn part(&mut self, name: &str, seconds: f64) {
        self.rows.push((format!("  {name}"), Duration::from_secs_f64(seconds.max(0.0))));
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

/// The lines of `devtest_perf.log`: moment, stage, seconds, exit code.
pub(super) fn parse_perf_log(text: &str) -> Vec<(String, f64)> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .filter(|(stage, _)| stage != "total")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_of_the_deployment_are_read_from_its_log() {
        let text =
            "2026-11-23T14:00:00Z images 12.3 0\nbroken\n2026-11-23T14:01:00Z total 60.0 0\n";
        assert_eq!(parse_perf_log(text), [("images".to_owned(), 12.3)]);
    }
}
