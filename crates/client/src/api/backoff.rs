//! Waiting between attempts: doubling, bounded, with jitter, so that many clients do not come back at once.

use super::error::ClientError;
use std::time::{Duration, Instant};

/// The first wait is at most this long.
pub const BACKOFF_MIN: Duration = Duration::from_millis(100);

/// No wait is longer than this.
pub const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How long to wait before the next attempt.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// Starts with a short wait.
    #[must_use]
    pub fn new() -> Backoff {
        Backoff::default()
    }

    /// It worked: the next wait is short again.
    pub fn reset(&mut self) {
        self.attempts = 0;
    }

    /// The next wait: between half and all of the doubled time. `random` spreads it.
    pub fn next_wait(&mut self, random: u32) -> Duration {
        let full = BACKOFF_MIN.saturating_mul(1 << self.attempts.min(16)).min(BACKOFF_MAX);
        self.attempts = self.attempts.saturating_add(1);
        full.div_f64(2.0) + full.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
    }

    /// Waits.
    pub async fn wait(&mut self) {
        let wait = self.next_wait(random());
        tokio::time::sleep(wait).await;
    }

    /// Calls `attempt` until it works, fails for good (see [`ClientError::is_transient`]), or `until` has passed;
    /// then the last error is the answer. A call that may have been carried out already is repeated too, so
    /// `attempt` must be safe to repeat (an idempotency key makes `POST /leases` so).
    pub async fn retry<T, F>(
        &mut self,
        until: Instant,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, ClientError>
    where
        F: Future<Output = Result<T, ClientError>>,
    {
        loop {
            match attempt().await {
                Ok(value) => {
                    self.reset();
                    return Ok(value);
                }
                Err(error) => {
                    let wait = self.next_wait(random());
                    if !error.is_transient() || Instant::now() + wait > until {
                        return Err(error);
                    }
                    tracing::debug!(error = %error, ?wait, "call failed, trying again");
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }
}

/// Spreads clients over time; nothing secret depends on it, so no better source is needed.
fn random() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    let bits = RandomState::new().hash_one(Instant::now());
    u32::try_from(bits >> 32).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_reset() {
        let mut backoff = Backoff::new();
        assert_eq!(backoff.next_wait(0), BACKOFF_MIN / 2);
        assert_eq!(backoff.next_wait(u32::MAX), BACKOFF_MIN * 2);
        for _ in 0..100 {
            assert!(backoff.next_wait(u32::MAX) <= BACKOFF_MAX);
        }
        assert_eq!(backoff.next_wait(u32::MAX), BACKOFF_MAX);
        backoff.reset();
        assert_eq!(backoff.next_wait(u32::MAX), BACKOFF_MIN);
    }
}
