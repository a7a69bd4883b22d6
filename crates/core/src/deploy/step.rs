//! What is to be done.

use super::found::{Difference, Services};
use super::wish::Version;
use core::fmt;
use serde::Serialize;

/// One step of a set-up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum Step {
    /// Install Debian packages.
    Packages {
        /// Which.
        names: Vec<String>,
    },
    /// Bring the program; it is not used yet.
    Program {
        /// Which.
        version: Version,
        /// Its size.
        bytes: u64,
    },
    /// Write the configuration.
    Configure {
        /// There is none yet.
        is_new: bool,
        /// What changes.
        differences: Vec<Difference>,
    },
    /// Make a one-time token and trade it, on the machine, for the host's credential.
    Enrol {
        /// Why.
        because: &'static str,
    },
    /// Write what keeps the host running.
    Service {
        /// For whom.
        services: Services,
        /// There is none yet.
        is_new: bool,
    },
    /// Start the host.
    Start {
        /// With this version.
        version: Version,
    },
    /// Replace the agent; machines and leases go on.
    HandOver {
        /// From this version, if it is well.
        from: Option<Version>,
        /// To this one.
        to: Version,
    },
    /// End everything and start it anew: machines go down, leases end.
    Restart {
        /// With this version.
        version: Version,
        /// Settings that nothing less takes up.
        because: Vec<String>,
    },
}

/// A plan for people: a line each step.
#[derive(Clone, Copy, Debug)]
pub struct Describe<'a>(
    /// The steps.
    pub &'a [Step],
);

impl fmt::Display for Describe<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("nothing to do");
        }
        for (i, step) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{step}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Packages { names } => write!(f, "+ packages   {}", names.join(" ")),
            Step::Program { version, bytes } => {
                write!(f, "+ program    toci-host {version} ({} MB)", bytes.div_ceil(1_000_000))
            }
            Step::Configure { is_new: true, .. } => f.write_str("+ configure  there is none yet"),
            Step::Configure { is_new: false, differences } => {
                f.write_str("~ configure  ")?;
                if differences.is_empty() {
                    f.write_str("comments and layout only")?;
                }
                for (i, d) in differences.iter().enumerate() {
                    let shown = |v: &Option<String>| v.clone().unwrap_or_else(|| "(unset)".into());
                    let begin = if i > 0 { "\n             " } else { "" };
                    write!(f, "{begin}{}: {} -> {}", d.key, shown(&d.from), shown(&d.to))?;
                }
                Ok(())
            }
            Step::Enrol { because } => write!(f, "+ enrol      {because}"),
            Step::Service { services, is_new } => {
                let mark = if *is_new { '+' } else { '~' };
                let what = match services {
                    Services::Systemd => "a unit of systemd",
                    Services::None => {
                        "a script that keeps it running (no systemd runs there: not after a reboot)"
                    }
                };
                write!(f, "{mark} service    {what}")
            }
            Step::Start { version } => write!(f, "> start      {version}"),
            Step::HandOver { from, to } => {
                let from = from.as_ref().map_or("what runs", Version::as_str);
                write!(f, "> hand over  from {from} to {to}: machines and leases go on")
            }
            Step::Restart { version, because } => {
                write!(f, "> restart    {version}: machines go down, for {}", because.join(", "))
            }
        }
    }
}
