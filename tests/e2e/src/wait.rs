//! Waiting for a condition, with a limit.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Looks until `condition` gives a value; it says its state as an error otherwise.
///
/// # Errors
/// The last state, when `limit` has passed.
pub fn wait_for<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(state) if start.elapsed() > limit => {
                bail!("waited {:.1} s for {what}; last state: {state:#}", limit.as_secs_f64());
            }
            Err(_) => thread::sleep(LOOK_AGAIN),
        }
    }
}
