//! The settings by name, for configuration files and command lines.

use super::settings::{
    Cancel, ClientLoss, Coalescing, Exceptions, Expiry, ForeignWork, GEARMAND_UNIQUE_MAX_BYTES,
    GrabOrder, HandleHost, LineEnd, Settings, ShutdownBy, UNIQUE_MAX_BYTES, WorkerLoss,
};
use crate::refused::Refused;

/// Every name that [`Settings::choose`] knows, with what may be chosen. The first of each is
/// geard's behaviour.
pub const CHOICES: &[(&str, &str)] = &[
    ("coalescing", "never, by-unique"),
    ("worker-loss", "fail, requeue, requeue:ATTEMPTS"),
    ("client-loss", "forget, run-on"),
    ("exceptions", "always, when-asked"),
    ("foreign-work", "ignore, error"),
    ("expiry", "fail, requeue"),
    ("cancel", "queued, any"),
    ("handles", "client-address, NAME"),
    ("grab-order", "arrival, last-registered"),
    ("line-end", "lf, crlf"),
    ("unique-max", "4096, 64, or another number of bytes"),
    ("shutdown", "local, nobody, anyone"),
    ("jobs-max", "number of jobs"),
    ("payload-max", "bytes of payload in all jobs"),
    ("functions-max", "number of functions"),
];

fn number<T: std::str::FromStr>(key: &str, value: &str) -> Result<T, Refused> {
    value.parse().map_err(|_| {
        Refused::new("bad_setting", format!("{key}={value} is not a number"), "give a whole number")
    })
}

impl Settings {
    /// Choose one behaviour by name: see [`CHOICES`].
    pub fn choose(&mut self, key: &str, value: &str) -> Result<(), Refused> {
        let wrong = || {
            let hint = match CHOICES.iter().find(|(k, _)| *k == key) {
                Some((_, values)) => format!("{key} is one of: {values}"),
                None => {
                    let keys: Vec<&str> = CHOICES.iter().map(|(k, _)| *k).collect();
                    format!("settings are: {}", keys.join(", "))
                }
            };
            Refused::new("bad_setting", format!("{key}={value} is no setting of the broker"), hint)
        };
        match (key, value) {
            ("coalescing", "never") => self.coalescing = Coalescing::Never,
            ("coalescing", "by-unique") => self.coalescing = Coalescing::ByUnique,
            ("worker-loss", "fail") => self.worker_loss = WorkerLoss::Fail,
            ("worker-loss", "requeue") => {
                self.worker_loss = WorkerLoss::Requeue { attempts: u32::MAX };
            }
            ("worker-loss", value) => {
                let attempts = value.strip_prefix("requeue:").ok_or_else(wrong)?;
                self.worker_loss = WorkerLoss::Requeue { attempts: number(key, attempts)? };
            }
            ("client-loss", "forget") => self.client_loss = ClientLoss::Forget,
            ("client-loss", "run-on") => self.client_loss = ClientLoss::RunOn,
            ("exceptions", "always") => self.exceptions = Exceptions::Always,
            ("exceptions", "when-asked") => self.exceptions = Exceptions::WhenAsked,
            ("foreign-work", "ignore") => self.foreign_work = ForeignWork::Ignore,
            ("foreign-work", "error") => self.foreign_work = ForeignWork::Error,
            ("expiry", "fail") => self.expiry = Expiry::Fail,
            ("expiry", "requeue") => self.expiry = Expiry::Requeue,
            ("cancel", "queued") => self.cancel = Cancel::QueuedSilently,
            ("cancel", "any") => self.cancel = Cancel::AnyWithFail,
            ("handles", "client-address") => self.handle_host = HandleHost::ClientAddress,
            ("handles", name) if !name.is_empty() => {
                self.handle_host = HandleHost::Fixed(name.to_owned());
            }
            ("grab-order", "arrival") => self.grab_order = GrabOrder::Arrival,
            ("grab-order", "last-registered") => self.grab_order = GrabOrder::LastRegistered,
            ("line-end", "lf") => self.line_end = LineEnd::Lf,
            ("line-end", "crlf") => self.line_end = LineEnd::CrLf,
            ("unique-max", value) => {
                let range = GEARMAND_UNIQUE_MAX_BYTES..=UNIQUE_MAX_BYTES;
                let bytes = number(key, value)?;
                self.unique_max_bytes =
                    Some(bytes).filter(|b| range.contains(b)).ok_or_else(wrong)?;
            }
            ("shutdown", "nobody") => self.shutdown_by = ShutdownBy::Nobody,
            ("shutdown", "local") => self.shutdown_by = ShutdownBy::Local,
            ("shutdown", "anyone") => self.shutdown_by = ShutdownBy::Anyone,
            ("jobs-max", value) => self.limits.jobs = number(key, value)?,
            ("payload-max", value) => self.limits.payload_bytes = number(key, value)?,
            ("functions-max", value) => self.limits.functions = number(key, value)?,
            _ => return Err(wrong()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_choice_that_is_told_is_understood() {
        for (key, values) in CHOICES {
            for value in values.split(", ") {
                if !value.contains(' ') && !value.contains(|c: char| c.is_ascii_uppercase()) {
                    assert_eq!(Settings::geard().choose(key, value), Ok(()), "{key}={value}");
                }
            }
        }
        let mut settings = Settings::gearmand("h");
        settings.choose("worker-loss", "requeue:3").unwrap();
        assert_eq!(settings.worker_loss, WorkerLoss::Requeue { attempts: 3 });
    }

    #[test]
    fn the_first_of_each_is_geards() {
        let mut settings = Settings::gearmand("h");
        for (key, values) in CHOICES.iter().take(12) {
            let first = values.split(", ").next().unwrap();
            settings.choose(key, first).unwrap();
        }
        assert_eq!(settings, Settings::geard());
    }

    #[test]
    fn a_wrong_choice_is_told_with_the_right_ones() {
        let refused = Settings::geard().choose("cancel", "all").unwrap_err().to_string();
        assert!(refused.contains("queued, any"), "{refused}");
        let refused = Settings::geard().choose("colour", "red").unwrap_err().to_string();
        assert!(refused.contains("coalescing, worker-loss"), "{refused}");
    }
}
