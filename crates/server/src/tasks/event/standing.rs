//! How it stands with each source: heard or not, since when, and why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use toci_core::event::SourceName;
use toci_core::time::Time;
use tokio::sync::Notify;

/// Of what is no event so many characters are kept.
const MALFORMED_MAX_CHARS: usize = 300;

/// Whether a source is heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nobody knows yet.
    Unknown,
    /// It is.
    Up,
    /// It is not, for this reason; it is tried again.
    Down(String),
}

/// How it stands with a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Whether it is heard.
    pub link: Link,
    /// Since when. Another reason for being down does not change it.
    pub since: Time,
    /// When it last told an event.
    pub event: Option<Time>,
    /// What came that was no event, since the server started.
    pub malformed: u64,
    /// The last of it.
    pub last_malformed: String,
}

/// Of all sources.
#[derive(Clone, Debug, Default)]
pub(super) struct Standings {
    all: Arc<Mutex<BTreeMap<SourceName, Standing>>>,
    back: Arc<Notify>,
}

impl Standings {
    fn all(&self) -> MutexGuard<'_, BTreeMap<SourceName, Standing>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, source: &SourceName, now: Time, change: impl FnOnce(&mut Standing)) {
        let mut all = self.all();
        change(all.entry(source.clone()).or_insert_with(|| Standing::unknown(now)));
    }

    pub(super) fn get(&self, source: &SourceName) -> Option<Standing> {
        self.all().get(source).cloned()
    }

    /// Nothing is known of it yet.
    pub(super) fn begin(&self, source: &SourceName, now: Time) {
        self.change(source, now, |_| {});
    }

    /// Its link came up or went down; how it stood before.
    pub(super) fn link(
        &self,
        source: &SourceName,
        link: Result<(), String>,
        now: Time,
    ) -> Option<Standing> {
        let before = self.get(source);
        self.change(source, now, |standing| {
            let link = link.map_or_else(Link::Down, |()| Link::Up);
            if core::mem::discriminant(&standing.link) != core::mem::discriminant(&link) {
                standing.since = now;
            }
            standing.link = link;
        });
        if self.get(source).is_some_and(|standing| standing.link == Link::Up) {
            self.back.notify_waiters();
        }
        before
    }

    /// Waits until some source is heard that was not.
    pub(super) async fn somebody_is_back(&self) {
        self.back.notified().await;
    }

    pub(super) fn event(&self, source: &SourceName, now: Time) {
        self.change(source, now, |standing| standing.event = Some(now));
    }

    pub(super) fn malformed(&self, source: &SourceName, what: &str, now: Time) {
        self.change(source, now, |standing| {
            standing.malformed += 1;
            let plain = what.chars().filter(|c| !c.is_control());
            standing.last_malformed = plain.take(MALFORMED_MAX_CHARS).collect();
        });
    }
}

impl Standing {
    fn unknown(now: Time) -> Standing {
        Standing {
            link: Link::Unknown,
            since: now,
            event: None,
            malformed: 0,
            last_malformed: String::new(),
        }
    }
}

/// For people: `2026-11-25T22:07:23Z`.
pub(super) fn moment(time: Time) -> String {
    let second = jiff::Timestamp::from_second(time.0.div_euclid(1_000_000));
    second.map(|stamp| stamp.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_keeps_its_beginning_whatever_the_reason() {
        let standings = Standings::default();
        let source = SourceName::new("gerrit").unwrap();
        let at = |minute: i64| Time(minute * 60_000_000);
        let link = || standings.get(&source).map(|s| (s.link, s.since));
        assert_eq!(link(), None);
        standings.begin(&source, at(0));
        assert_eq!(link(), Some((Link::Unknown, at(0))));
        standings.link(&source, Ok(()), at(1));
        standings.link(&source, Err("no route".into()), at(2));
        standings.link(&source, Err("refused".into()), at(30));
        assert_eq!(link(), Some((Link::Down("refused".into()), at(2))));
        let before = standings.link(&source, Ok(()), at(62)).unwrap();
        assert_eq!(at(62).since(before.since).as_secs(), 3_600);
        assert_eq!(link(), Some((Link::Up, at(62))));
        standings.malformed(&source, "{", at(63));
        assert_eq!(standings.get(&source).unwrap().malformed, 1);
        assert_eq!(moment(at(60)), "1970-01-01T01:00:00Z");
    }
}
