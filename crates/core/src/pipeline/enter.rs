//! What enters a pipeline, and what goes in with it.

use super::answer::End;
use super::gate::{Gate, Turn};
use super::input::Subject;
use super::item::{BuildSet, Item, Phase};
use super::matching::{self, Deaf};
use super::needs::Because;
use super::wanted::ReportAction;
use crate::event::{Change, ChangeKey, ChangeState, EventKind, Person, RefUpdate, TriggerEvent};
use crate::id::{BuildSetId, ItemId};
use crate::layout::{Manager, Pipeline, PipelineName, Trigger, TriggerFilter};
use crate::refused::Refused;
use crate::time::Time;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

impl Gate {
    /// An event of a source, a clock, or one of the gate's own.
    pub(super) fn happened(&mut self, event: &TriggerEvent, turn: &mut Turn<'_>) {
        let Some(subject) = self.heed(event, turn) else { return };
        for lane in 0..self.lanes.len() {
            if self.hears(lane, event, &subject, turn.now).is_ok() {
                // What stands in the way is noted.
                let _ = self.enter(lane, &subject, false, turn);
            }
        }
    }

    /// Whether the pipeline listens to this event.
    pub(super) fn hears(
        &self,
        lane: usize,
        event: &TriggerEvent,
        subject: &Subject,
        now: Time,
    ) -> Result<&TriggerFilter, Vec<Deaf<'_>>> {
        let change = self.view(subject).map(AsRef::as_ref);
        matching::heard(self.pipeline(lane), event, change, now)
    }

    /// What an event is about, if that can enter anything. What the event ends leaves.
    pub(super) fn heed(&mut self, event: &TriggerEvent, turn: &mut Turn<'_>) -> Option<Subject> {
        if !self.layout.projects.contains_key(&event.project) {
            let text = format!(
                "{} of {}: the layout does not have this project",
                event.kind.word(),
                event.project
            );
            turn.note("unknown-project", None, None, text);
            return None;
        }
        match (event.kind, &event.change) {
            (EventKind::PatchsetCreated, Some(key)) => self.supersede(key, turn),
            (EventKind::ChangeAbandoned, Some(key)) => self.abandon(key, turn),
            (
                EventKind::PatchsetCreated
                | EventKind::ChangeAbandoned
                | EventKind::DraftPublished
                | EventKind::ChangeRestored
                | EventKind::ChangeMerged
                | EventKind::CommentAdded
                | EventKind::RefUpdated
                | EventKind::Timer
                | EventKind::ParentChangeEnqueued
                | EventKind::ProjectChangeMerged,
                _,
            ) => {}
        }
        match subject_of(event) {
            Ok(subject) => Some(subject),
            Err(why) => {
                let text = format!("{}: {why}", event.kind.word());
                turn.note("event-without-subject", None, None, text);
                None
            }
        }
    }

    /// Older patchsets leave the pipelines that want it so.
    fn supersede(&mut self, newest: &ChangeKey, turn: &mut Turn<'_>) {
        self.forget_patchsets(&newest.source, newest.number, Some(newest));
        for lane in 0..self.lanes.len() {
            if !self.pipeline(lane).dequeue_on_new_patchset {
                continue;
            }
            let same = self.lanes[lane].patchsets(&newest.source, newest.number);
            let older: Vec<ItemId> =
                same.filter(|(key, _)| *key != newest).map(|(_, id)| id).collect();
            older.into_iter().for_each(|id| self.remove(id, End::Superseded, turn));
        }
    }

    fn abandon(&mut self, key: &ChangeKey, turn: &mut Turn<'_>) {
        self.forget_patchsets(&key.source, key.number, None);
        for lane in 0..self.lanes.len() {
            let all: Vec<ItemId> =
                self.lanes[lane].patchsets(&key.source, key.number).map(|(_, id)| id).collect();
            all.into_iter().for_each(|id| self.remove(id, End::Abandoned, turn));
        }
    }

    /// Also when the event itself was lost.
    pub(super) fn leave_if_abandoned(&mut self, key: &ChangeKey, turn: &mut Turn<'_>) {
        if self.views.get(key).is_some_and(|c| c.state == ChangeState::Abandoned) {
            self.abandon(key, turn);
        }
    }

    /// By hand: triggers and requirements do not count.
    pub(super) fn enqueue_by_hand(
        &mut self,
        pipeline: &PipelineName,
        subject: Subject,
        turn: &mut Turn<'_>,
    ) -> Result<(), Refused> {
        let lane = self.lane_named(pipeline)?;
        self.enter(lane, &subject, true, turn).map_err(|why| {
            Refused::new(
                why.code(),
                format!("{} cannot enter {pipeline}: {why}", name(&subject)),
                "",
            )
        })
    }

    /// Puts it in, with what it needs before it and, in dependent pipelines, with what needs it behind it. `forced`:
    /// whatever the pipeline requires.
    pub(super) fn enter(
        &mut self,
        lane: usize,
        subject: &Subject,
        forced: bool,
        turn: &mut Turn<'_>,
    ) -> Result<(), Because> {
        let mut todo = VecDeque::from([subject.clone()]);
        let mut first = true;
        while let Some(next) = todo.pop_front() {
            // Nobody asked for what comes behind: it has to meet the requirements.
            match self.enter_one(lane, &next, forced && first, turn) {
                Ok(entered) => {
                    for id in entered {
                        self.greet(lane, id, turn);
                        todo.extend(self.behind(lane, id));
                    }
                }
                // Who asked by hand gets it as the answer.
                Err(why) if first && forced => return Err(why),
                Err(why) => {
                    if let Subject::Change(key) = &next {
                        self.kept_out(lane, key, &why, turn);
                    }
                    // That a change which needs this one is not ready itself is no news.
                    if first {
                        self.note_refusal(lane, &next, &why, turn);
                        return Err(why);
                    }
                }
            }
            first = false;
        }
        Ok(())
    }

    /// Live items that came in, in order.
    fn enter_one(
        &mut self,
        lane: usize,
        subject: &Subject,
        forced: bool,
        turn: &mut Turn<'_>,
    ) -> Result<Vec<ItemId>, Because> {
        let groups = self.entry(lane, subject, forced, turn.now)?;
        let Subject::Change(key) = subject else {
            let group = self.next_order;
            return Ok(vec![self.push(lane, subject.clone(), true, group, None, turn)]);
        };
        let dependent = self.pipeline(lane).manager == Manager::Dependent;
        let group = self.next_order;
        let mut live = Vec::new();
        for changes in groups {
            let bundle = (changes.len() > 1 && dependent).then_some(self.next_order);
            for change in changes {
                let is_live = dependent || change == *key;
                let id = self.push(lane, Subject::Change(change), is_live, group, bundle, turn);
                live.extend(is_live.then_some(id));
            }
        }
        Ok(live)
    }

    /// Whether it may enter, and the changes that enter with it, in order, itself included.
    pub(super) fn entry(
        &self,
        lane: usize,
        subject: &Subject,
        forced: bool,
        now: Time,
    ) -> Result<Vec<Vec<ChangeKey>>, Because> {
        match subject {
            Subject::Change(key) => self.plan_entry(lane, key, forced, now),
            Subject::Ref(_) | Subject::Branch { .. } => {
                self.may_enter(lane, subject).map(|()| Vec::new())
            }
        }
    }

    /// Refs and branches have no requirements.
    fn may_enter(&self, lane: usize, subject: &Subject) -> Result<(), Because> {
        let pipeline = self.pipeline(lane);
        if self.lanes[lane].live.contains_key(subject) {
            return Err(Because::Already);
        }
        match pipeline.manager {
            Manager::Dependent => return Err(Because::NotAChange),
            Manager::Independent => {}
        }
        if let Subject::Ref(update) = subject
            && update.new.is_none()
        {
            return Err(Because::RefDeleted);
        }
        match subject {
            Subject::Change(_) => Ok(()),
            Subject::Ref(RefUpdate { project, .. }) | Subject::Branch { project, .. } => {
                if self.takes_part(lane, project) { Ok(()) } else { Err(Because::NoJobs) }
            }
        }
    }

    fn push(
        &mut self,
        lane: usize,
        subject: Subject,
        live: bool,
        group: u64,
        bundle: Option<u64>,
        turn: &mut Turn<'_>,
    ) -> ItemId {
        let id = ItemId((turn.ids)());
        let order = self.next_order;
        self.next_order += 1;
        self.changes.state = true;
        let project = match &subject {
            Subject::Change(key) => self.views[key].project.clone(),
            Subject::Ref(RefUpdate { project, .. }) | Subject::Branch { project, .. } => {
                project.clone()
            }
        };
        let mut item = Item {
            id,
            pipeline: self.pipeline(lane).name.clone(),
            order,
            group,
            bundle,
            subject: subject.clone(),
            project,
            live,
            enqueued: turn.now,
            base: None,
            phase: Phase::Testing,
            set: BuildSet::new(BuildSetId((turn.ids)()), Arc::default()),
            failing: BTreeSet::new(),
            active: false,
            launchable: false,
        };
        item.set.freeze(self.freeze(&self.layout, &item));
        self.sets.insert(item.set.id, id);
        let number = self.queue_of(lane, &item).unwrap_or(group);
        self.items.insert(id, item);
        if let Subject::Change(key) = &subject {
            self.stop_waiting(&self.waiting_id(lane, key));
        }
        let lane = &mut self.lanes[lane];
        lane.queues.entry(number).or_default().items.push(id);
        if live {
            lane.live.insert(subject, id);
        }
        self.touch(id);
        id
    }

    /// It is in: that is told, to people and to pipelines that listen.
    fn greet(&mut self, lane: usize, id: ItemId, turn: &mut Turn<'_>) {
        turn.answer.entered.push(id);
        let reporters = self.pipeline(lane).actions.start.clone();
        if !reporters.is_empty() {
            self.tell(id, ReportAction::Start, reporters, turn);
        }
        if self.somebody_hears(EventKind::ParentChangeEnqueued)
            && let Some(change) = self.items.get(&id).and_then(|i| self.view(&i.subject))
        {
            let origin = self.pipeline(lane).name.0.clone();
            for key in &change.needed_by {
                if let Some(child) = self.views.get(key) {
                    turn.events.push_back(own_event(child, &origin, turn.now));
                }
            }
        }
    }

    /// Whether some pipeline listens to this event of the gate's own.
    pub(super) fn somebody_hears(&self, kind: EventKind) -> bool {
        self.layout.pipelines.iter().flat_map(|p| &p.triggers).any(|filter| {
            filter.trigger == Trigger::Zuul
                && (filter.events.is_empty() || filter.events.contains(&kind))
        })
    }

    /// Changes that need this item's, of a dependent pipeline: they enter behind it when they are ready.
    fn behind(&self, lane: usize, id: ItemId) -> Vec<Subject> {
        match self.pipeline(lane).manager {
            Manager::Independent => Vec::new(),
            Manager::Dependent => {
                let change = self.items.get(&id).and_then(|item| self.view(&item.subject));
                let known = |key: &&ChangeKey| self.views.contains_key(*key);
                let keys = change.into_iter().flat_map(|c| &c.needed_by);
                keys.filter(known).map(|key| Subject::Change(key.clone())).collect()
            }
        }
    }

    /// Says why it did not enter. A cycle is told to the change's owner, who alone can undo it.
    fn note_refusal(&mut self, lane: usize, subject: &Subject, why: &Because, turn: &mut Turn<'_>) {
        let layout = Arc::clone(&self.layout);
        let pipeline: &Pipeline = &layout.pipelines[lane];
        match why {
            // The latter is noted when it is remembered.
            Because::Already | Because::OtherQueue(_) => {}
            Because::Cycle(_) => {
                turn.note(why.code(), Some(pipeline), Some(subject), why.to_string());
                self.tell_refusal(lane, subject, why.to_string(), turn);
            }
            Because::NoJobs
            | Because::NotAChange
            | Because::RefDeleted
            | Because::Unknown(_)
            | Because::Merged
            | Because::NotMergeable(..)
            | Because::Required(..)
            | Because::TooMany => {
                turn.note(why.code(), Some(pipeline), Some(subject), why.to_string());
            }
        }
    }

    /// The place of a pipeline.
    pub(super) fn lane_named(&self, pipeline: &PipelineName) -> Result<usize, Refused> {
        let place = self.layout.pipelines.iter().position(|p| p.name == *pipeline);
        place.ok_or_else(|| {
            let names: Vec<&str> =
                self.layout.pipelines.iter().map(|p| p.name.0.as_str()).collect();
            Refused::new(
                "unknown_pipeline",
                format!("there is no pipeline `{pipeline}`"),
                format!("there are {}", names.join(", ")),
            )
        })
    }

    /// Whether the project has jobs in the pipeline, or may bring some with its own configuration.
    pub(super) fn takes_part(&self, lane: usize, project: &crate::event::ProjectKey) -> bool {
        let name = &self.pipeline(lane).name;
        let known = self.layout.projects.get(project);
        known.is_some_and(|p| p.in_repository || p.pipelines.contains_key(name))
    }
}

/// For people.
pub(super) fn name(subject: &Subject) -> String {
    match subject {
        Subject::Change(key) => key.to_string(),
        Subject::Ref(update) => {
            format!("{} {} at {}", update.project, update.zuul_name(), update.new)
        }
        Subject::Branch { project, branch } => format!("{project} {branch}"),
    }
}

fn subject_of(event: &TriggerEvent) -> Result<Subject, &'static str> {
    if let Some(key) = &event.change {
        return Ok(Subject::Change(key.clone()));
    }
    if event.kind == EventKind::Timer {
        let branch = event.branch.clone().ok_or("it has no branch")?;
        return Ok(Subject::Branch { project: event.project.clone(), branch });
    }
    match (&event.reference, &event.old, &event.new) {
        (Some(reference), Some(old), Some(new)) => Ok(Subject::Ref(RefUpdate {
            project: event.project.clone(),
            reference: reference.clone(),
            old: old.clone(),
            new: new.clone(),
        })),
        (_, _, _) => Err("it has neither a change nor a ref with its commits"),
    }
}

fn own_event(child: &Change, origin: &str, now: Time) -> TriggerEvent {
    TriggerEvent {
        kind: EventKind::ParentChangeEnqueued,
        project: child.project.clone(),
        branch: Some(child.branch.clone()),
        change: Some(child.key.clone()),
        reference: None,
        old: None,
        new: None,
        by: Person::default(),
        comment: String::new(),
        approvals: Vec::new(),
        origin: origin.to_owned(),
        at: now,
    }
}
