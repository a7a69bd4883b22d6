//! How often is asked: what services said about when, and how many calls there were.

use super::session::Service;
use crate::http::Method;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many calls of one kind there were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallCount {
    /// Of which service.
    pub service: Service,
    /// `GET`, ...
    pub method: Method,
    /// The answer's status; none: there was no answer.
    pub status: Option<u16>,
    /// So many, repeated ones counted each time.
    pub count: u64,
}

type Key = (Service, String, Option<u16>);

/// Of one cloud.
#[derive(Debug, Default)]
pub(super) struct Pace {
    counts: Mutex<BTreeMap<Key, u64>>,
    /// Before this a service wants nothing.
    quiet: Mutex<BTreeMap<Service, Instant>>,
}

impl Pace {
    pub(super) fn count(&self, service: Service, method: &Method, status: Option<u16>) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((service, method.to_string(), status)).or_default() += 1;
    }

    pub(super) fn counts(&self) -> Vec<CallCount> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |((service, method, status), count): (&Key, &u64)| CallCount {
            service: *service,
            method: method.parse().unwrap_or_default(),
            status: *status,
            count: *count,
        };
        counts.iter().map(count).collect()
    }

    /// A service has said when it wants to be asked again: that holds for every call.
    pub(super) fn quiet_for(&self, service: Service, wait: Duration) {
        let until = Instant::now() + wait;
        let mut quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = quiet.entry(service).or_insert(until);
        *entry = (*entry).max(until);
    }

    /// When a service may be asked again.
    pub(super) fn quiet_until(&self, service: Service) -> Option<Instant> {
        let quiet = self.quiet.lock().unwrap_or_else(PoisonError::into_inner);
        quiet.get(&service).copied().filter(|until| *until > Instant::now())
    }
}
