//! Registration of functions, sleeping and waking. A queued job wakes one sleeping worker that can
//! do it, not all; if that one goes away, is busy with something else or is not heard of within
//! [`WAKE_PATIENCE_US`], another is woken. A worker that asks for the next job right after it has ended one may wait for
//! it: up to [`GRAB_PATIENCE_US`] a job that comes is its answer, and neither sleep nor wake-up is spent.

use super::conn::{Ability, Rest};
use super::function::FunctionId;
use super::machine::Broker;
use super::settings::{
    FUNCTION_NAME_MAX_BYTES, GRAB_PATIENCE_US, JOB_TIMEOUT_MIN_MS, WAKE_PATIENCE_US,
};
use super::vocabulary::{ConnId, GrabStyle, Message, Now, Outbox};
use crate::time::Time;
use std::time::Duration;

/// Not in any list of sleepers.
const NO_PLACE: u32 = u32::MAX;

/// What is wrong with the name of a function.
pub(super) fn bad_function_name(name: &[u8]) -> Option<Message<'static>> {
    if name.is_empty() {
        let text = "The function name is empty";
        Some(Message::Error { code: "INVALID_FUNCTION_NAME", text })
    } else if name.len() > FUNCTION_NAME_MAX_BYTES {
        let text = "The function name is longer than 1024 bytes";
        Some(Message::Error { code: "ARGUMENT_TOO_LARGE", text })
    } else if name.iter().any(u8::is_ascii_control) {
        // It would forge lines and columns of `status`.
        let text = "The function name has control characters";
        Some(Message::Error { code: "INVALID_FUNCTION_NAME", text })
    } else {
        None
    }
}

/// The table of functions is full.
pub(super) const TOO_MANY_FUNCTIONS: Message<'static> =
    Message::Error { code: "QUEUE_FULL", text: "The server knows too many functions already" };

impl Broker {
    /// `CAN_DO`. What the ACL denies is ignored without an answer, as geard does: workers take an
    /// `ERROR` for the answer to something else.
    pub(super) fn register(
        &mut self,
        now: Now,
        from: ConnId,
        name: &[u8],
        timeout_ms: u64,
        out: &mut impl Outbox,
    ) {
        if let Some(error) = bad_function_name(name) {
            return out.send(from, error);
        }
        if !self.may(from, |acl, subject| acl.may_register(subject, name)) {
            return;
        }
        let limits = self.settings.limits;
        let Some(function) = self.functions.get_or_add(name, limits.functions) else {
            return out.send(from, TOO_MANY_FUNCTIONS);
        };
        let inside = self.is_inside(from);
        let Some(conn) = self.conns.get_mut(from) else { return };
        let timeout =
            (timeout_ms > 0).then(|| Duration::from_millis(timeout_ms.max(JOB_TIMEOUT_MIN_MS)));
        if let Some(ability) = conn.abilities.get_mut(&function) {
            ability.timeout = timeout;
            return;
        }
        if conn.abilities.len() >= limits.functions_per_connection {
            let text = "This connection registered too many functions already";
            return out.send(from, Message::Error { code: "QUEUE_FULL", text });
        }
        let registered = self.next_registration;
        self.next_registration += 1;
        if conn.abilities.is_empty() {
            self.workers += 1;
        }
        conn.abilities.insert(function, Ability { timeout, registered, sleeper: NO_PLACE });
        self.functions[function].workers += 1;
        if inside {
            self.functions[function].inside.push(from);
            if self.functions[function].queued() > 0 {
                out.send(from, Message::Noop);
            }
        } else if self.rest(from) == Rest::Asleep {
            self.add_sleeper(from, function);
            self.balance(now, function, out);
        }
    }

    /// `CANT_DO`; a function that was not registered is none of it already.
    pub(super) fn unregister(
        &mut self,
        now: Now,
        from: ConnId,
        name: &[u8],
        out: &mut impl Outbox,
    ) {
        let Some(function) = self.functions.find(name) else { return };
        if self.conns.get(from).is_none_or(|c| !c.abilities.contains_key(&function)) {
            return;
        }
        if let Rest::Woken { function: woken_for, .. } = self.rest(from)
            && woken_for == function
        {
            self.functions[function].woken -= 1;
            self.set_rest(from, Rest::Overdue);
        }
        self.forget_ability(from, function);
        self.balance(now, function, out);
    }

    /// `RESET_ABILITIES`; jobs that run go on.
    pub(super) fn reset_abilities(&mut self, now: Now, from: ConnId, out: &mut impl Outbox) {
        let was = self.rest(from);
        let woken_for = self.leave_rest(from);
        self.forget_abilities(from);
        match was {
            // It still listens for a NOOP, should it register something.
            Rest::Asleep => self.set_rest(from, Rest::Asleep),
            Rest::Woken { .. } | Rest::Overdue => self.set_rest(from, Rest::Overdue),
            Rest::Awake | Rest::Waiting { .. } => {}
        }
        if let Some(function) = woken_for {
            self.balance(now, function, out);
        }
    }

    pub(super) fn forget_abilities(&mut self, id: ConnId) {
        let functions: Vec<FunctionId> =
            self.conns.get(id).map(|c| c.abilities.keys().copied().collect()).unwrap_or_default();
        for function in functions {
            self.forget_ability(id, function);
        }
    }

    fn forget_ability(&mut self, id: ConnId, function: FunctionId) {
        self.remove_sleeper(id, function);
        let Some(conn) = self.conns.get_mut(id) else { return };
        if conn.abilities.remove(&function).is_none() {
            return;
        }
        if conn.abilities.is_empty() {
            self.workers -= 1;
        }
        self.functions[function].workers -= 1;
        self.functions[function].inside.retain(|c| *c != id);
    }

    fn set_rest(&mut self, id: ConnId, rest: Rest) {
        if let Some(conn) = self.conns.get_mut(id) {
            conn.rest = rest;
        }
    }

    fn add_sleeper(&mut self, id: ConnId, function: FunctionId) {
        let sleepers = &mut self.functions[function].sleepers;
        let place = u32::try_from(sleepers.len()).unwrap_or(NO_PLACE);
        sleepers.push(id);
        if let Some(ability) = self.conns.get_mut(id).and_then(|c| c.abilities.get_mut(&function)) {
            ability.sleeper = place;
        }
    }

    /// The last sleeper takes the place of the one that leaves.
    fn remove_sleeper(&mut self, id: ConnId, function: FunctionId) {
        let Some(ability) = self.conns.get_mut(id).and_then(|c| c.abilities.get_mut(&function))
        else {
            return;
        };
        let place = std::mem::replace(&mut ability.sleeper, NO_PLACE);
        if place == NO_PLACE {
            return;
        }
        let sleepers = &mut self.functions[function].sleepers;
        debug_assert_eq!(sleepers.get(place as usize), Some(&id), "a sleeper knows its place");
        sleepers.swap_remove(place as usize);
        if sleepers.is_empty() && sleepers.capacity() > 64 {
            sleepers.shrink_to(16);
        }
        if let Some(moved) = self.functions[function].sleepers.get(place as usize).copied()
            && let Some(ability) =
                self.conns.get_mut(moved).and_then(|c| c.abilities.get_mut(&function))
        {
            ability.sleeper = place;
        }
    }

    /// End sleep or wait after a wake-up; says for which function the worker had been woken, as
    /// that function may now want another one.
    pub(super) fn leave_rest(&mut self, id: ConnId) -> Option<FunctionId> {
        let was = self.rest(id);
        self.set_rest(id, Rest::Awake);
        match was {
            Rest::Awake | Rest::Overdue => None,
            Rest::Woken { function, .. } => {
                self.functions[function].woken -= 1;
                Some(function)
            }
            Rest::Asleep | Rest::Waiting { .. } => {
                // Most workers have one function; only others need the list.
                match self.conns.get(id).map(|c| &c.abilities) {
                    Some(abilities) if abilities.len() == 1 => {
                        let only = abilities.keys().next().copied();
                        only.into_iter().for_each(|function| self.remove_sleeper(id, function));
                    }
                    Some(abilities) => {
                        let all: Vec<FunctionId> = abilities.keys().copied().collect();
                        all.into_iter().for_each(|function| self.remove_sleeper(id, function));
                    }
                    None => {}
                }
                None
            }
        }
    }

    /// `PRE_SLEEP`: woken at once when a job waits for which nobody else is on the way.
    pub(super) fn sleep(&mut self, now: Now, from: ConnId, out: &mut impl Outbox) {
        if self.is_inside(from) || self.rest(from) == Rest::Asleep {
            return;
        }
        let woken_for = self.leave_rest(from);
        let Some(conn) = self.conns.get(from) else { return };
        let wanted = conn.abilities.keys().copied().find(|f| self.functions[*f].wants_a_worker());
        if let Some(function) = wanted {
            self.wake(now, from, function, out);
        } else {
            self.lie_down(from, Rest::Asleep);
        }
        if let Some(function) = woken_for {
            self.balance(now, function, out);
        }
    }

    /// Into the lists of those that a job may call.
    fn lie_down(&mut self, id: ConnId, rest: Rest) {
        let Some(conn) = self.conns.get_mut(id) else { return };
        conn.rest = rest;
        let all: Vec<FunctionId> = conn.abilities.keys().copied().collect();
        for function in all {
            self.add_sleeper(id, function);
        }
    }

    /// There is no job for a worker that has just ended one; one may come at once.
    pub(super) fn wait_for_job(&mut self, now: Now, from: ConnId, style: GrabStyle) {
        let until = Time(now.steady.0.saturating_add(GRAB_PATIENCE_US));
        self.lie_down(from, Rest::Waiting { style, until });
        self.waiting.push_back((until, from));
    }

    /// No job came in time.
    pub(super) fn waited(&mut self, id: ConnId, time: Time, out: &mut impl Outbox) {
        match self.rest(id) {
            Rest::Waiting { until, .. } if until == time => self.answer_open_grab(id, out),
            _ => {}
        }
    }

    /// Answers are in the order of what was asked: before anything else is said to a worker that waits for a job, it hears
    /// that there is none.
    pub fn answer_open_grab(&mut self, from: ConnId, out: &mut impl Outbox) {
        if let Rest::Waiting { .. } = self.rest(from) {
            self.leave_rest(from);
            out.send(from, Message::NoJob);
        }
    }

    fn wake(&mut self, now: Now, id: ConnId, function: FunctionId, out: &mut impl Outbox) {
        let until = Time(now.steady.0.saturating_add(WAKE_PATIENCE_US));
        self.set_rest(id, Rest::Woken { function, until });
        self.functions[function].woken += 1;
        self.woken.push_back((until, id));
        out.send(id, Message::Noop);
    }

    /// Give queued jobs of `function` to workers that wait, and wake sleeping ones until each has one coming.
    pub(super) fn balance(&mut self, now: Now, function: FunctionId, out: &mut impl Outbox) {
        while self.functions[function].wants_a_worker() {
            let Some(sleeper) = self.functions[function].sleepers.last().copied() else { break };
            if let Rest::Waiting { style, .. } = self.rest(sleeper) {
                self.serve(now, sleeper, style, out);
            } else {
                self.leave_rest(sleeper);
                self.wake(now, sleeper, function, out);
            }
        }
    }

    /// The time of a woken worker is up. If it has not asked for a job, nobody counts on it.
    pub(super) fn overdue(&mut self, now: Now, id: ConnId, time: Time, out: &mut impl Outbox) {
        if let Rest::Woken { function, until } = self.rest(id)
            && until == time
        {
            self.functions[function].woken -= 1;
            self.set_rest(id, Rest::Overdue);
            self.balance(now, function, out);
        }
    }
}
