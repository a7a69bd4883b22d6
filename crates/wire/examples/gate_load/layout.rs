//! Layout and changes of the loads.

use std::fmt::Write as _;
use std::sync::Arc;
use toci_core::event::{
    Approval, Branch, Change, ChangeKey, ChangeState, EventKind, Person, ProjectKey, ProjectName,
    RefName, Revision, SourceName, TriggerEvent,
};
use toci_core::layout::Layout;
use toci_core::time::Time;

/// Jobs of a change in each pipeline.
pub(crate) const JOBS: usize = 5;

pub(crate) fn source() -> SourceName {
    name(SourceName::new("gerrit"))
}

fn name<T, E: std::fmt::Debug>(made: Result<T, E>) -> T {
    made.unwrap_or_else(|e| panic!("{e:?}"))
}

pub(crate) fn project(number: u64) -> ProjectKey {
    ProjectKey { source: source(), name: name(ProjectName::new(format!("org/p{number}"))) }
}

/// Every project has the same jobs, so all of them share one queue of the gate.
pub(crate) fn layout(projects: u64, window: u32) -> Arc<Layout> {
    let jobs: Vec<String> = (0..JOBS).map(|n| format!("job{n}")).collect();
    let jobs = jobs.join(", ");
    let mut text = format!(
        "pipelines:
  - name: check
    manager: independent
    trigger: {{gerrit: [{{event: patchset-created}}]}}
    success: {{gerrit: {{verified: 1}}}}
    failure: {{gerrit: {{verified: -1}}}}
  - name: gate
    manager: dependent
    precedence: high
    window: {window}
    trigger: {{gerrit: [{{event: comment-added, approval: [{{approved: 1}}]}}]}}
    success: {{gerrit: {{verified: 2, submit: true}}}}
    failure: {{gerrit: {{verified: -2}}}}
projects:
"
    );
    for n in 0..projects {
        let name = project(n).name;
        let _ = writeln!(text, "  - {{name: {name}, check: [{jobs}], gate: [{jobs}]}}");
    }
    let read = toci_wire::layout::read("load", &text, &source());
    Arc::new(read.layout.unwrap_or_else(|| panic!("{:?}", read.errors)))
}

pub(crate) fn change(number: u64, projects: u64) -> Change {
    let revision = name(Revision::new(format!("{number:040x}")));
    let key = ChangeKey { source: source(), number, patchset: "1".into() };
    let by = Person { username: "core".into(), ..Person::default() };
    Change {
        project: project(number % projects),
        branch: name(Branch::new("master")),
        reference: name(RefName::new(format!("refs/changes/{:02}/{number}/1", number % 100))),
        revision,
        change_id: format!("I{number:040x}"),
        state: ChangeState::Open,
        current: true,
        wip: false,
        title: format!("Change {number} of the load"),
        message: format!("Change {number} of the load\n\nChange-Id: I{number:040x}\n"),
        owner: by.clone(),
        url: format!("https://review.example.org/{number}"),
        topic: String::new(),
        hashtags: Vec::new(),
        files: Some(vec![format!("file{number}")]),
        approvals: vec![Approval { label: "approved".into(), value: 1, by, at: Time(0) }],
        submit: Vec::new(),
        needs: Vec::new(),
        needed_by: Vec::new(),
        key,
    }
}

pub(crate) fn event(kind: EventKind, change: &Change, at: Time) -> Box<TriggerEvent> {
    let approvals = match kind {
        EventKind::CommentAdded => vec![("approved".to_owned(), 1)],
        _ => Vec::new(),
    };
    Box::new(TriggerEvent {
        kind,
        project: change.project.clone(),
        branch: Some(change.branch.clone()),
        change: Some(change.key.clone()),
        reference: None,
        old: None,
        new: None,
        by: Person::default(),
        comment: String::new(),
        approvals,
        origin: String::new(),
        at,
    })
}
