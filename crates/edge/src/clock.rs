//! What time it is, for what people and other machines compare with their clocks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since 1970, as the machine says. It may go back when somebody sets it.
pub(crate) fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
