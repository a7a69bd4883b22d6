//! Taking up a request: what is refused at once, and what gets a place in the queue.

use super::book::{Answer, Book, LeaseEntry};
use super::model::{Demand, Lease, LeaseState, Te, TeState};
use super::policy::{KEY_MAX_BYTES, TEXT_MAX_BYTES};
use crate::id::{LeaseId, Project};
use crate::refused::Refused;
use core::time::Duration;
use std::collections::BTreeSet;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks: the token's subject.
    pub owner: String,
    /// Who it is for.
    pub project: Project,
    /// Which TEs would do.
    pub demand: Demand,
    /// How many, all or none.
    pub count: u32,
    /// 0 to 100.
    pub priority: u8,
    /// How long, from the confirmation of the grant; none: the policy's default.
    pub timeout: Option<Duration>,
    /// How long to wait; none: without limit.
    pub wait_timeout: Option<Duration>,
    /// For people.
    pub purpose: String,
    /// A repeated request with the same key and owner gets the same lease.
    pub idempotency_key: Option<String>,
}

impl Book {
    pub(super) fn request(&mut self, request: Request) -> Result<Answer, Refused> {
        if let Some(key) = &request.idempotency_key
            && let Some(id) = self.by_key.get(&(request.owner.clone(), key.clone()))
        {
            return Ok(Answer::Lease(*id));
        }
        self.check_bounds(&request)?;
        self.check_possible(&request.demand, request.count)?;
        let id = LeaseId(self.next_lease);
        self.next_lease += 1;
        let ahead = self.waiting_of.entry(request.project.clone()).or_default();
        let micros = |d: Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX / 1_000_000);
        let rank = self
            .now
            .0
            .saturating_sub(micros(self.policy.ageing_per_point * u32::from(request.priority)))
            .saturating_add(micros(self.policy.fair_step * *ahead));
        *ahead += 1;
        if let Some(key) = &request.idempotency_key {
            self.by_key.insert((request.owner.clone(), key.clone()), id);
        }
        let queue_key = (request.demand.clone(), request.count);
        let row = Lease {
            id,
            state: LeaseState::Waiting,
            owner: request.owner,
            project: request.project,
            demand: request.demand,
            count: request.count,
            priority: request.priority,
            purpose: request.purpose,
            idempotency_key: request.idempotency_key,
            timeout: request.timeout.unwrap_or(self.policy.lease_default),
            wait_until: request.wait_timeout.map(|d| self.now.after(d)),
            rank,
            requested: self.now,
            active: None,
            tes: Vec::new(),
            reason: String::new(),
        };
        self.leases.insert(id, LeaseEntry { row, heard: None, armed: None });
        self.enqueue(queue_key, rank, id);
        self.arm_lease(id);
        self.touch_lease(id);
        Ok(Answer::Lease(id))
    }

    fn check_bounds(&self, r: &Request) -> Result<(), Refused> {
        let bad = |message: String, hint: String| Err(Refused::new("bad_request", message, hint));
        if r.count == 0 || r.count > self.policy.count_max {
            let most = self.policy.count_max;
            return bad(
                format!("{} test environments in one request", r.count),
                format!("ask for 1 to {most}"),
            );
        }
        if r.priority > 100 {
            return bad(format!("priority {}", r.priority), "use 0 to 100".into());
        }
        if r.purpose.len() > TEXT_MAX_BYTES {
            return bad(
                format!("a purpose of {} bytes", r.purpose.len()),
                format!("use at most {TEXT_MAX_BYTES}"),
            );
        }
        if r.idempotency_key.as_ref().is_some_and(|k| k.is_empty() || k.len() > KEY_MAX_BYTES) {
            return bad(
                "an idempotency key that is empty or too long".into(),
                format!("use 1 to {KEY_MAX_BYTES} bytes"),
            );
        }
        if let Some(timeout) = r.timeout
            && (timeout > self.policy.lease_max || timeout.is_zero())
        {
            return bad(
                format!("a lease of {} s", timeout.as_secs()),
                format!("ask for 1 to {} s", self.policy.lease_max.as_secs()),
            );
        }
        if self.index.waiting_count >= self.policy.queue_max {
            return Err(Refused::new(
                "queue_full",
                format!("{} requests are waiting already", self.index.waiting_count),
                "try again later",
            ));
        }
        Ok(())
    }

    /// Refuses what can never be granted, with what there is.
    pub(super) fn check_possible(&mut self, demand: &Demand, count: u32) -> Result<(), Refused> {
        let exist = self.pool_of(demand).exist();
        if exist >= count as usize {
            return Ok(());
        }
        let here: Vec<&Te> = self.tes.values().filter(|t| t.state != TeState::Gone).collect();
        if here.is_empty() {
            return Err(Refused::new(
                "never_fits",
                "there is no test environment at all yet",
                "enrol a host and start toci-host on it; see `toci host list`",
            ));
        }
        if let Some(label) = &demand.label
            && !here.iter().any(|t| t.labels.contains(label))
        {
            let known = here.iter().flat_map(|t| &t.labels).map(super::super::id::Label::as_str);
            return Err(unknown("label", label.as_str(), known.collect()));
        }
        if let Some(shape) = &demand.shape
            && !here.iter().any(|t| t.shape == *shape)
        {
            let known = here.iter().map(|t| t.shape.as_str()).collect();
            return Err(unknown("shape", shape.as_str(), known));
        }
        let have = match exist {
            0 => format!("no test environment has {demand}"),
            1 => format!("there is 1 test environment of {demand}, and {count} are asked for"),
            n => format!("there are {n} test environments of {demand}, and {count} are asked for"),
        };
        Err(Refused::new("never_fits", have, "ask for fewer, or for another label or shape"))
    }
}

/// Longest list of known names in a hint.
const NAMES_SHOWN_MAX: usize = 12;

fn unknown(what: &'static str, asked: &str, known: BTreeSet<&str>) -> Refused {
    let code = if what == "label" { "unknown_label" } else { "unknown_shape" };
    let near = known.iter().map(|k| (distance(asked, k), *k)).min().filter(|(d, _)| *d <= 2);
    let list: Vec<&str> = known.iter().copied().take(NAMES_SHOWN_MAX).collect();
    let more = if known.len() > list.len() { ", ..." } else { "" };
    let hint = match near {
        Some((_, k)) => format!("did you mean `{k}`? Known: {}{more}", list.join(", ")),
        None if list.is_empty() => format!("no {what} is known"),
        None => format!("known: {}{more}", list.join(", ")),
    };
    Refused::new(code, format!("no test environment has the {what} `{asked}`"), hint)
}

/// How many letters must be changed, added or taken away to make one word of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let changed = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
