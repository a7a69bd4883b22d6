//! What is explained is what happens: before every event that any test puts into a gate, and by chance with every filter.

use super::build::layout;
use super::world::World;
use crate::event::{
    Approval, ChangeState, EventKind, LabelStatus, Person, RecordStatus, SubmitRecord, TriggerEvent,
};
use crate::layout::{ApprovalRule, Layout, Pattern, Pipeline, SkipIf, Trigger, TriggerFilter};
use crate::pipeline::{Answer, Entry, Gate, Input, PipelineExplained, Policy, Subject};
use crate::time::Time;
use core::time::Duration;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What was said before an event happened.
pub(super) struct Foretold {
    event: TriggerEvent,
    said: Result<Vec<PipelineExplained>, String>,
}

impl Foretold {
    pub(super) fn of(gate: &Gate, input: &Input, now: Time) -> Option<Foretold> {
        let Input::Event { event, changes } = input else { return None };
        let said = gate.explain(event, changes.clone(), &[], now);
        Some(Foretold { event: TriggerEvent::clone(event), said })
    }

    /// Every pipeline was entered that was said to be, and no other; with the jobs that were said. Pipelines that listen
    /// to the gate's own events may be entered by one of these.
    pub(super) fn check(&self, gate: &Gate, answer: &Answer) {
        let about = |subject: &Subject| match (subject, &self.event.change) {
            (Subject::Change(key), Some(own)) => key == own,
            (Subject::Change(_), None) | (Subject::Ref(_) | Subject::Branch { .. }, Some(_)) => {
                false
            }
            (Subject::Ref(_) | Subject::Branch { .. }, None) => true,
        };
        let place = |id| match gate.items.get(id) {
            Some(item) => (item.pipeline.clone(), item.subject.clone(), item.live),
            None => {
                let left = answer.left.iter().find(|left| left.item == *id).expect("it left");
                (left.pipeline.clone(), left.subject.clone(), true)
            }
        };
        let entered: BTreeSet<_> = answer
            .entered
            .iter()
            .map(place)
            .filter(|(_, subject, live)| *live && about(subject))
            .map(|(pipeline, ..)| pipeline)
            .collect();
        let Ok(said) = &self.said else {
            assert!(entered.is_empty(), "{:?}: {:?}", self.said, self.event);
            return;
        };
        for one in said {
            let own_events = gate.layout.pipelines.iter().any(|p| {
                p.name == one.pipeline && p.triggers.iter().any(|t| t.trigger == Trigger::Zuul)
            });
            let enters = matches!(one.entry, Entry::Enters { .. });
            if !own_events {
                assert_eq!(enters, entered.contains(&one.pipeline), "{one:?}: {:?}", self.event);
            }
            self.check_jobs(gate, answer, one);
        }
    }

    fn check_jobs(&self, gate: &Gate, answer: &Answer, said: &PipelineExplained) {
        let Ok(jobs) = &said.jobs else { return };
        for item in answer.entered.iter().filter_map(|id| gate.items.get(id)) {
            let own = matches!((&item.subject, &self.event.change), (Subject::Change(key), Some(own)) if key == own);
            if item.pipeline != said.pipeline || !own || !item.set.files.is_empty() {
                continue;
            }
            let frozen: Vec<_> = item.set.frozen.jobs.iter().map(|j| &j.job.name).collect();
            let told: Vec<_> = jobs.iter().filter(|j| j.runs).map(|j| &j.job).collect();
            assert_eq!(frozen, told);
            assert!(jobs.iter().all(|job| job.runs == job.why.is_empty()), "{jobs:?}");
        }
    }
}

fn some_patterns(texts: Vec<&'static str>) -> impl Strategy<Value = Vec<Pattern>> {
    let most = texts.len().min(2);
    let some = subsequence(texts, 0..=most);
    let patterns =
        some.prop_map(|texts| texts.into_iter().map(|t| Pattern::new(t).unwrap()).collect());
    prop_oneof![2 => Just(Vec::new()), 1 => patterns]
}

fn a_vote() -> impl Strategy<Value = (String, i32)> {
    (select(vec!["verified", "workflow"]), -1..=2).prop_map(|(l, v)| (l.to_owned(), v))
}

fn a_rule() -> impl Strategy<Value = ApprovalRule> {
    (a_vote(), some_patterns(vec!["jenkins", "ann"]), any::<[bool; 2]>()).prop_map(
        |((label, value), users, [old, young])| ApprovalRule {
            username: users.into_iter().next(),
            email: None,
            older_than: old.then_some(Duration::from_secs(100)),
            newer_than: young.then_some(Duration::from_secs(200)),
            labels: vec![(label, vec![value, 1])],
        },
    )
}

fn rules() -> impl Strategy<Value = Vec<ApprovalRule>> {
    prop_oneof![3 => Just(Vec::new()), 1 => proptest::collection::vec(a_rule(), 1..=2)]
}

fn a_filter() -> impl Strategy<Value = TriggerFilter> {
    let kinds = subsequence(EventKind::ALL.to_vec(), 0..=EventKind::ALL.len());
    let texts = (
        some_patterns(vec!["^master$", "^stable/", "mast"]),
        some_patterns(vec!["(?i)recheck", "^check"]),
        some_patterns(vec!["ann", "jenkins"]),
        some_patterns(vec!["^gate$", "^check$"]),
    );
    let votes = (proptest::collection::vec(a_vote(), 0..=1), rules(), rules());
    let trigger = prop_oneof![6 => Just(Trigger::Source), 1 => Just(Trigger::Timer), 1 => Just(Trigger::Zuul)];
    (trigger, kinds, texts, votes).prop_map(
        |(
            trigger,
            events,
            (branches, comments, usernames, pipelines),
            (given, require, reject),
        )| {
            TriggerFilter {
                trigger,
                events,
                branches,
                refs: Vec::new(),
                comments,
                emails: Vec::new(),
                usernames,
                approvals: given.into_iter().map(|(l, v)| (l, vec![v])).collect(),
                require_approvals: require,
                reject_approvals: reject,
                timespecs: Vec::new(),
                pipelines,
            }
        },
    )
}

fn edit(
    pipeline: &mut Pipeline,
    edited: (Vec<TriggerFilter>, Vec<ApprovalRule>, Vec<ApprovalRule>, Option<bool>),
) {
    let (triggers, required, rejected, open) = edited;
    pipeline.triggers = triggers;
    pipeline.require.approvals = required;
    pipeline.reject.approvals = rejected;
    pipeline.require.open = open;
}

fn a_layout() -> impl Strategy<Value = Arc<Layout>> {
    let edits = (
        proptest::collection::vec(a_filter(), 0..=3),
        rules(),
        rules(),
        prop_oneof![2 => Just(None), 1 => any::<bool>().prop_map(Some)],
    );
    let text = select(vec![
        "pipeline check independent
        pipeline gate dependent
        project a check=u>v,w gate=u
        project b check=u
        job u branch=^master$
        job w files=^src/",
        "pipeline check independent cycles
        pipeline gate dependent cycles
        pipeline other independent alone
        project a check=u gate=u other=w
        project b own gate=u other=v
        job v nonvoting after=u",
    ]);
    (text, proptest::collection::vec(edits, 3)).prop_map(|(text, edits)| {
        let mut layout = Layout::clone(&layout(text));
        let skip = SkipIf {
            all_files_match_any: vec![Pattern::new("^doc/").unwrap()],
            ..SkipIf::default()
        };
        layout
            .jobs
            .iter_mut()
            .filter(|job| job.name.0 == "u")
            .for_each(|job| job.skip_if = vec![skip.clone()]);
        for (pipeline, edited) in layout.pipelines.iter_mut().zip(edits) {
            edit(pipeline, edited);
        }
        Arc::new(layout)
    })
}

/// A change, what stands on it, and what it needs.
#[derive(Clone, Debug)]
struct Proposed {
    project: &'static str,
    branch: &'static str,
    file: &'static str,
    state: ChangeState,
    flags: [bool; 2],
    votes: Vec<((String, i32), bool, i64)>,
    submit: Option<(RecordStatus, LabelStatus)>,
    needs: Vec<u64>,
}

fn a_change() -> impl Strategy<Value = Proposed> {
    let state = prop_oneof![6 => Just(ChangeState::Open), 1 => Just(ChangeState::Merged), 1 => Just(ChangeState::Abandoned)];
    let submit = prop_oneof![
        4 => Just(None),
        1 => Just(Some((RecordStatus::Ok, LabelStatus::Ok))),
        1 => Just(Some((RecordStatus::NotReady, LabelStatus::Need))),
        1 => Just(Some((RecordStatus::RuleError, LabelStatus::May))),
    ];
    let place = (
        select(vec!["a", "b", "c"]),
        select(vec!["master", "stable/x"]),
        select(vec!["src/x", "doc/y", "README"]),
    );
    let vote = (a_vote(), any::<bool>(), 0i64..300);
    (
        place,
        state,
        any::<[bool; 2]>(),
        proptest::collection::vec(vote, 0..3),
        submit,
        proptest::collection::vec(1u64..=3, 0..2),
    )
        .prop_map(|((project, branch, file), state, flags, votes, submit, needs)| Proposed {
            project,
            branch,
            file,
            state,
            flags,
            votes,
            submit,
            needs,
        })
}

fn propose(world: &mut World, number: u64, proposed: &Proposed) {
    world.change(number, proposed.project, proposed.branch, vec![proposed.file.to_owned()]);
    let now = world.now;
    let change = world.changes.get_mut(&number).unwrap();
    change.state = proposed.state;
    [change.current, change.wip] = [!proposed.flags[0], proposed.flags[1] && proposed.flags[0]];
    let by = |ann: bool| Person {
        username: if ann { "ann" } else { "jenkins" }.to_owned(),
        ..Person::default()
    };
    let vote = |((label, value), ann, ago): &((String, i32), bool, i64)| Approval {
        label: label.clone(),
        value: *value,
        by: by(*ann),
        at: Time(now.0 - ago * 1_000_000),
    };
    change.approvals = proposed.votes.iter().map(vote).collect();
    let record =
        |(status, label)| SubmitRecord { status, labels: vec![("review".to_owned(), label)] };
    change.submit = proposed.submit.into_iter().map(record).collect();
    let needs = proposed.needs.iter().filter(|need| **need != number);
    change.needs = needs.map(|need| super::world::first_patchset(*need)).collect();
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    /// The [`World`] compares at every event.
    #[test]
    fn what_is_explained_is_what_happens(
        layout in a_layout(),
        changes in proptest::collection::vec(a_change(), 3),
        events in proptest::collection::vec(
            (select(EventKind::ALL.to_vec()), 1u64..=3, select(vec!["", "recheck", "check"]), any::<bool>(), proptest::collection::vec(a_vote(), 0..2)),
            1..6,
        ),
    ) {
        let mut world = World::new(layout);
        for (number, proposed) in (1..).zip(&changes) {
            propose(&mut world, number, proposed);
        }
        world.relate();
        for (kind, number, comment, ann, votes) in events {
            world.event(kind, number, |event| {
                event.comment = comment.to_owned();
                event.by.username = if ann { "ann" } else { "jenkins" }.to_owned();
                event.approvals = votes;
                event.origin = "gate".to_owned();
            });
        }
    }
}

fn explained(text: &str, event: impl FnOnce(&mut TriggerEvent)) -> Vec<PipelineExplained> {
    let mut world = World::new(layout(text));
    world.change(1, "a", "master", vec!["README".to_owned()]);
    let mut happened = world.about(EventKind::PatchsetCreated, 1);
    event(&mut happened);
    world.gate.explain(&happened, world.views(), &[], world.now).unwrap()
}

#[test]
fn each_pipeline_says_why() {
    let said = explained(
        "pipeline check independent
        pipeline gate dependent
        pipeline post independent
        pipeline review independent voted
        project a check=u>v,w,x review=u
        job w branch=^stable/
        job x files=^src/",
        |_| (),
    );
    let entries: Vec<String> =
        said.iter().map(|p| format!("{} {:?}", p.pipeline, p.entry)).collect();
    assert_eq!(
        entries,
        [
            "check Enters { trigger: \"patchset-created or change-restored\", with: [] }",
            "gate Unheard([(\"comment-added\", \"the event is patchset-created\")])",
            "post Unheard([(\"ref-updated\", \"the event is patchset-created\")])",
            "review Refused { trigger: \"patchset-created or change-restored\", code: \"requirements\", why: \"gerrit:1,1 does not meet the pipeline's requirements: no vote is workflow 1\" }",
        ]
    );
    let jobs: Vec<String> = said[0]
        .jobs
        .as_ref()
        .unwrap()
        .iter()
        .map(|j| format!("{} {} {:?} {}", j.job, j.runs, j.after, j.why))
        .collect();
    assert_eq!(
        jobs,
        [
            "u true [] ",
            "v true [JobName(\"u\")] ",
            "w false [] the branch master is not `^stable/`",
            "x false [] no file of the change is `^src/`",
        ]
    );
}

#[test]
fn what_no_pipeline_could_take_says_why() {
    let mut world = World::new(layout("pipeline check independent\nproject a check=u"));
    world.change(1, "z", "master", Vec::new());
    let event = world.about(EventKind::PatchsetCreated, 1);
    let why = world.gate.explain(&event, world.views(), &[], world.now).unwrap_err();
    assert_eq!(why, "patchset-created of gerrit:z: the layout does not have this project");
}

#[test]
fn a_projects_own_jobs_are_explained_too() {
    let mut world = World::new(layout("pipeline check independent\nproject a own check=u"));
    world.policy = Policy {
        read: |base, _, files| match files[0].1.as_str() {
            "bad" => Err("1:1 no".to_owned()),
            _ => {
                let mut own = base.clone();
                own.projects = layout("pipeline check independent\nproject a own check=u>mine")
                    .projects
                    .clone();
                own.jobs = layout("project a own check=u>mine").jobs.clone();
                Ok(own)
            }
        },
        ..world.policy
    };
    let gate = Gate::new(Arc::clone(&world.gate.layout), world.policy.clone());
    world.change(1, "a", "master", Vec::new());
    let event = world.about(EventKind::PatchsetCreated, 1);
    let jobs = |text: &str| {
        let files = [(".toci.yaml".to_owned(), text.to_owned())];
        gate.explain(&event, world.views(), &files, world.now).unwrap()[0].jobs.clone()
    };
    assert_eq!(jobs("good").unwrap().len(), 2);
    assert_eq!(jobs("bad").unwrap_err(), "1:1 no");
}
