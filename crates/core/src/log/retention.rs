//! When logs go.

use crate::time::Time;
use core::time::Duration;

/// Logs that were archived before this moment have expired; none: they never do.
///
/// A clock that is set far back makes nothing expire; one that was far ahead when a run was archived keeps its logs longer.
#[must_use]
pub fn horizon(now: Time, keep: Option<Duration>) -> Option<Time> {
    let keep = i64::try_from(keep?.as_micros()).ok()?;
    now.0.checked_sub(keep).map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_expire_when_they_are_older_than_they_are_kept() {
        let day = Duration::from_secs(86_400);
        assert_eq!(horizon(Time(86_400_000_001), Some(day)), Some(Time(1)));
        assert_eq!(horizon(Time(0), Some(day)), Some(Time(-86_400_000_000)));
        assert_eq!(horizon(Time(0), None), None);
        assert_eq!(horizon(Time(i64::MIN), Some(day)), None);
        assert_eq!(horizon(Time(0), Some(Duration::MAX)), None);
    }
}
