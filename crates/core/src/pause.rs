//! Pauses between attempts: each twice as long as the one before, up to a limit.

use core::time::Duration;

/// How long to wait before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    first: Duration,
    most: Duration,
    now: Duration,
}

impl Pause {
    /// From `first` up to `most`.
    #[must_use]
    pub const fn new(first: Duration, most: Duration) -> Pause {
        Pause { first, most, now: first }
    }

    /// The pause that is due; the next one is twice as long, and never longer than the limit.
    #[must_use]
    pub fn longer(&mut self) -> Duration {
        let due = self.now.min(self.most);
        self.now = due.saturating_mul(2).min(self.most);
        due
    }

    /// It went well: the next pause is the first one again.
    pub fn reset(&mut self) {
        self.now = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_their_limit_and_begin_anew_after_a_success() {
        let seconds = Duration::from_secs;
        let mut pause = Pause::new(seconds(1), seconds(5));
        let due: Vec<u64> = (0..5).map(|_| pause.longer().as_secs()).collect();
        assert_eq!(due, [1, 2, 4, 5, 5]);
        pause.reset();
        assert_eq!(pause.longer(), seconds(1));
        let mut odd = Pause::new(seconds(9), seconds(5));
        assert_eq!((odd.longer(), odd.longer()), (seconds(5), seconds(5)));
    }
}
