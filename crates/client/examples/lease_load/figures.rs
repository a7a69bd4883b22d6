//! Times into figures.

use serde::Serialize;
use std::time::Duration;

/// What is printed.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    /// Takings and givings back.
    pub(crate) cycles: usize,
    /// The same a second.
    pub(crate) cycles_per_s: f64,
    /// From asking to having, or from giving back to the next one's having.
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) p999_ms: f64,
    pub(crate) max_ms: f64,
}

impl Figures {
    pub(crate) fn of(mut times: Vec<Duration>, took: Duration) -> Figures {
        times.sort();
        let at = |per_mille: usize| {
            let i = (times.len().saturating_sub(1) * per_mille).div_ceil(1000);
            times.get(i).map_or(0.0, |d| d.as_secs_f64() * 1e3)
        };
        let cycles = times.len();
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
        let cycles_per_s = cycles as f64 / took.as_secs_f64();
        Figures {
            cycles,
            cycles_per_s,
            p50_ms: at(500),
            p99_ms: at(990),
            p999_ms: at(999),
            max_ms: at(1000),
        }
    }

    pub(crate) fn print(&self) -> anyhow::Result<()> {
        println!("{}", serde_json::to_string(self)?);
        Ok(())
    }
}
