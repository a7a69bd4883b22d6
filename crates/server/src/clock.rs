//! The server's time. Everything that asks what time it is asks here.
//!
//! Three questions have three answers: [`wall`] is what the machine says, [`now`] is that without going back, and a
//! [`Clock`] measures one piece of work and does not follow the machine's at all. The lease book has one more, which is
//! kept over restarts and boots: `tasks::lease`.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use toci_core::time::Time;

/// Since the first look at [`now`].
static PROCESS: LazyLock<Instant> = LazyLock::new(Instant::now);
/// How far the wall was ever ahead of [`PROCESS`], in microseconds.
static AHEAD_US: AtomicI64 = AtomicI64::new(i64::MIN);

/// What the machine says: for what people and other machines compare with their clocks (expiry, calendars). It may go
/// back when somebody sets it.
pub(crate) fn wall() -> Time {
    Time(0).after(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The wall's time, but never less than an answer before: when the machine's clock is set back, it goes on from where
/// it was.
pub(crate) fn now() -> Time {
    forward(&AHEAD_US, wall(), PROCESS.elapsed())
}

fn forward(ahead_us: &AtomicI64, wall: Time, elapsed: Duration) -> Time {
    let elapsed = Time(0).after(elapsed);
    let ahead = wall.0.saturating_sub(elapsed.0);
    let ahead = ahead.max(ahead_us.fetch_max(ahead, Ordering::Relaxed));
    Time(elapsed.0.saturating_add(ahead))
}

/// A clock that begins with the wall's time and then only goes on, whatever is done to the machine's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    base: Time,
    started: Instant,
}

impl Clock {
    /// From now on.
    pub(crate) fn start() -> Clock {
        Clock::start_at(wall())
    }

    /// From this moment on.
    pub(crate) fn start_at(base: Time) -> Clock {
        Clock { base, started: Instant::now() }
    }

    /// Now.
    pub(crate) fn now(&self) -> Time {
        self.base.after(self.elapsed())
    }

    /// How long it runs.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Puts it forward.
    pub(crate) fn advance(&mut self, by: Duration) {
        self.base = self.base.after(by);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_that_is_set_back_is_not_followed_and_one_that_is_ahead_is() {
        let ahead = AtomicI64::new(i64::MIN);
        let secs = Duration::from_secs;
        let hour = 3_600_000_000;
        assert_eq!(forward(&ahead, Time(10 * hour), secs(0)), Time(10 * hour));
        assert_eq!(forward(&ahead, Time(9 * hour), secs(5)), Time(10 * hour).after(secs(5)));
        assert_eq!(forward(&ahead, Time(12 * hour), secs(6)), Time(12 * hour));
        assert_eq!(forward(&ahead, Time(0), secs(8)), Time(12 * hour).after(secs(2)));
    }

    #[test]
    fn a_clock_goes_forward() {
        let mut clock = Clock::start_at(Time(7));
        let first = clock.now();
        clock.advance(Duration::from_secs(3));
        assert!(first >= Time(7) && clock.now() >= first.after(Duration::from_secs(3)));
        let (one, two) = (now(), now());
        assert!(one <= two && one >= Time(1_600_000_000_000_000), "{one:?} {two:?}");
    }
}
