//! The result of a benchmark: figures with their units, and goals.

use std::fmt;
use std::fs;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::cargo;

/// What a benchmark measured; printed as a table and written to `target/bench/<name>.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Name of the benchmark, such as `gearman`.
    pub(crate) name: &'static str,
    /// Machine and versions, for whoever compares two reports.
    pub(crate) setting: Vec<(String, String)>,
    /// In the order of the table.
    pub(crate) figures: Vec<Figure>,
}

/// One measured number.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    /// What was measured, such as `round trips, 100 clients`.
    pub(crate) what: String,
    /// Who was measured, such as `toci` or `gearmand`.
    pub(crate) who: String,
    /// The number.
    pub(crate) value: f64,
    /// Its unit, such as `1/s` or `ms`.
    pub(crate) unit: &'static str,
    /// What to reach, when there is a goal.
    pub(crate) goal: Option<Goal>,
}

/// The value in the middle; none when nothing was measured.
pub(crate) fn median_of(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// A goal in the figure's own unit.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// At least so much.
    AtLeast(f64),
    /// At most so much.
    AtMost(f64),
}

impl Goal {
    fn is_met(self, value: f64) -> bool {
        match self {
            Goal::AtLeast(limit) => value >= limit,
            Goal::AtMost(limit) => value <= limit,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::AtLeast(limit) => write!(f, ">= {limit:.2}"),
            Goal::AtMost(limit) => write!(f, "<= {limit:.2}"),
        }
    }
}

impl Report {
    /// Goals that were not reached, a line each.
    pub(crate) fn missed(&self) -> Vec<String> {
        self.figures
            .iter()
            .filter_map(|figure| {
                let goal = figure.goal.filter(|goal| !goal.is_met(figure.value))?;
                let Figure { what, who, value, unit, .. } = figure;
                Some(format!("{}: {what}, {who}: {value:.2} {unit}, goal {goal}", self.name))
            })
            .collect()
    }

    /// Writes `target/bench/<name>.json`.
    pub(crate) fn write(&self) -> Result<()> {
        let folder = cargo::target_dir().join("bench");
        let file = folder.join(format!("{}.json", self.name));
        let text = serde_json::to_string_pretty(self).context("a report is plain JSON")?;
        fs::create_dir_all(&folder)
            .and_then(|()| fs::write(&file, text))
            .with_context(|| format!("writing {}", file.display()))?;
        println!("written to {}", file.display());
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.name)?;
        for (what, value) in &self.setting {
            writeln!(f, "  {what}: {value}")?;
        }
        for Figure { what, who, value, unit, goal } in &self.figures {
            write!(f, "  {what:<44} {who:<17} {value:>10.2} {unit:<8}")?;
            match goal {
                Some(goal) if goal.is_met(*value) => writeln!(f, " goal {goal}: met")?,
                Some(goal) => writeln!(f, " goal {goal}: MISSED")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_named_with_figure_and_limit() {
        let report = Report {
            name: "x",
            setting: Vec::new(),
            figures: vec![Figure {
                what: "cycles".to_owned(),
                who: "toci".to_owned(),
                value: 1.0,
                unit: "1/s",
                goal: Some(Goal::AtLeast(2.0)),
            }],
        };
        assert_eq!(report.missed(), ["x: cycles, toci: 1.00 1/s, goal >= 2.00"]);
        assert!(report.to_string().contains("MISSED"));
        assert!(Goal::AtMost(1.0).is_met(1.0));
    }
}
