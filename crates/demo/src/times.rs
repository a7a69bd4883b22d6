//! How long each stage took.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

/// A stop watch for stages.
#[derive(Debug)]
pub struct Times {
    started: Instant,
    rows: Vec<(String, Duration)>,
}

impl Times {
    /// `before`: stages that were done before this process was started.
    #[must_use]
    pub fn start(before: Vec<(String, Duration)>) -> Times {
        let now = Instant::now();
        let taken: Duration = before.iter().map(|(_, took)| *took).sum();
        Times { started: now.checked_sub(taken).unwrap_or(now), rows: before }
    }

    /// A line with the time since the start. Whoever read it may have left: the work goes on then.
    pub fn say(&self, text: &str) {
        let _ = writeln!(io::stdout(), "[{:7.1} s] {text}", self.started.elapsed().as_secs_f64());
    }

    /// A stage is done that began at `began`.
    pub fn done(&mut self, stage: &str, began: Instant) {
        let took = began.elapsed();
        self.say(&format!("{stage}: done in {:.1} s", took.as_secs_f64()));
        self.rows.push((stage.to_owned(), took));
    }

    /// All stages as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let total = ("total".to_owned(), self.started.elapsed());
        let rows: Vec<_> = self.rows.iter().chain([&total]).collect();
        let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        let mut lines = vec![format!("{:<width$}     TIME", "STAGE")];
        lines.extend(
            rows.iter().map(|(name, took)| format!("{name:<width$}  {:7.1} s", took.as_secs_f64())),
        );
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_before_counts() {
        let images = ("images of the deployment".to_owned(), Duration::from_secs(7));
        let times = Times::start(vec![images]);
        let table = times.table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines[0], "STAGE                        TIME");
        assert_eq!(lines[1], "images of the deployment      7.0 s");
        assert_eq!(lines[2], "total                         7.0 s");
    }
}
