//! Refusals: the caller's fault, told with what to do about it. The world's faults are errors of
//! the layer that met them and never appear in core.

use core::fmt;

/// Why a request was refused, and what the caller can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// A stable word for programs, e.g. `unknown_label`.
    pub code: &'static str,
    /// What happened, for people: a lowercase fragment without a full stop.
    pub message: String,
    /// What to do next, for people; may be empty.
    pub hint: String,
}

impl Refused {
    /// A refusal with a hint.
    pub fn new(code: &'static str, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Refused { code, message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

impl core::error::Error for Refused {}
