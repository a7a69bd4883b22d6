//! One TE: its fence, its record on disk, its reset, and the task that drives them.

mod clock;
mod gate;
mod json;
mod keys;
mod record;
mod reset;
mod worker;

pub use clock::{boot_now, incarnation, wall_now};
pub use gate::{CutOff, Gate, Pass, Rule};
pub use json::te_json;
pub use keys::LeaseKey;
pub(crate) use keys::generate as generate_key;
pub use record::Record;
pub use reset::{ResetError, power_off, reset};
pub use worker::{GatewayPort, TeStatus, TeTaskHandle, Wish, start_te};
