//! The book's time; see the parent module.

use crate::clock::{Clock, wall};
use std::time::Duration;
use toci_core::time::Time;
use toci_store::ClockMark;

/// The wall clock is followed forwards only when it is ahead by more than this.
const AHEAD_MIN: Duration = Duration::from_secs(1);

/// A clock that never goes back.
#[derive(Clone, Debug)]
pub(super) struct BookClock {
    clock: Clock,
    boot: String,
    boot_at_start: Duration,
}

impl BookClock {
    /// Goes on where the last commit left off.
    pub(super) fn resume(mark: &ClockMark) -> BookClock {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let boot = boot.map(|s| s.trim().to_owned()).unwrap_or_default();
        let boot_at_start = since_boot();
        let base = mark.resume(wall(), &boot, boot_at_start);
        BookClock { clock: Clock::start_at(base), boot, boot_at_start }
    }

    /// Now.
    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    /// What to note beside a commit.
    pub(super) fn mark(&self) -> ClockMark {
        let since_boot = self.boot_at_start + self.clock.elapsed();
        ClockMark {
            boot: self.boot.clone(),
            boot_us: i64::try_from(since_boot.as_micros()).unwrap_or(i64::MAX),
            book: self.clock.now(),
        }
    }

    /// Follows the wall clock if it is ahead. Only called while no lease would be hurt by it.
    pub(super) fn catch_up(&mut self) {
        let ahead = wall().since(self.now());
        if ahead > AHEAD_MIN {
            self.clock.advance(ahead);
        }
    }
}

/// Time since the boot, suspends included; zero where the system does not say.
fn since_boot() -> Duration {
    std::fs::read_to_string("/proc/uptime")
        .ok()
        .and_then(|s| s.split_whitespace().next()?.parse().ok())
        .and_then(|s: f64| Duration::try_from_secs_f64(s).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restart_is_not_fooled_by_the_wall_clock() {
        let secs = Duration::from_secs;
        let hour = 3_600_000_000;
        let mark = ClockMark { boot: "b".into(), boot_us: 100_000_000, book: Time(10 * hour) };
        let base = |wall, boot: &str, up| mark.resume(Time(wall), boot, secs(up));
        // Same boot, 5 s later: whatever the wall clock says.
        for wall in [0, 10 * hour, 90 * hour] {
            assert_eq!(base(wall, "b", 105), Time(10 * hour).after(secs(5)));
        }
        // Another boot: the wall clock, but never back.
        assert_eq!(base(12 * hour, "c", 5), Time(12 * hour));
        assert_eq!(base(9 * hour, "c", 5), Time(10 * hour));
    }

    #[test]
    fn marks_go_forward() {
        let clock = BookClock::resume(&ClockMark::default());
        let (a, b) = (clock.mark(), clock.mark());
        assert!(a.book <= b.book && a.boot_us <= b.boot_us);
        assert!(clock.now() >= b.book);
    }
}
