//! Clocks of the host, and what tells one life of its machines from the next.

use crate::state::{self, StateError};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use toci_core::time::Time;

/// Time since the kernel booted, sleep included: nobody can set it, and it goes on over a restart
/// of the agent. The fence's limits are in it.
#[must_use]
pub fn boot_now() -> Time {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    parse_uptime(&text).unwrap_or_default()
}

fn parse_uptime(text: &str) -> Option<Time> {
    let (seconds, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    let seconds: i64 = seconds.parse().ok()?;
    let hundredths: i64 = hundredths.parse().ok()?;
    Some(Time(seconds * 1_000_000 + hundredths * 10_000))
}

/// Wall-clock time, for people.
#[must_use]
pub fn wall_now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
}

/// Lies on a tmpfs that goes with the machines: with the sandbox, or with the boot.
const INCARNATION: &str = "/run/libvirt/toci-host-incarnation";

/// A word that is the same as long as running machines have gone on running: a new sandbox or a
/// reboot makes a new one.
pub fn incarnation() -> Result<String, StateError> {
    let path = Path::new(INCARNATION);
    if let Some(word) = state::read(path)? {
        return Ok(word);
    }
    let word = state::random_hex(8)?;
    state::write_private(path, word.as_bytes())?;
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uptime_is_read() {
        assert_eq!(parse_uptime("12.34 5.6\n"), Some(Time(12_340_000)));
        assert_eq!(parse_uptime(""), None);
        assert!(boot_now() > Time(0));
    }
}
