//! The subject line of a report by mail.

use super::input::Subject;
use super::message::fill;
use super::wanted::ReportWish;

/// What mails are called whose reporter names no `subject`.
const MAIL_SUBJECT: &str = "Report for change {change}";

/// A reporter's `subject` with its places filled: `{change}`, `{change.number}`, `{change.patchset}`, `{change.project}`,
/// `{change.branch}`, `{change.url}`, `{change.refspec}` or `{change.ref}`, `{change.oldrev}`, `{change.newrev}`,
/// `{pipeline.name}`. Unknown ones stay as they are; those that the item has nothing for are empty.
#[must_use]
pub fn mail_subject(template: Option<&str>, report: &ReportWish) -> String {
    fill(template.unwrap_or(MAIL_SUBJECT), |place| match place {
        "pipeline.name" | "pipeline" => Some(report.pipeline.0.clone()),
        "change" => Some(whole(&report.subject)),
        _ => part(report, place.strip_prefix("change.")?),
    })
}

fn whole(subject: &Subject) -> String {
    match subject {
        Subject::Change(key) => key.short(),
        Subject::Ref(update) => format!("{} {}", update.project.name, update.zuul_name()),
        Subject::Branch { project, branch } => format!("{} {branch}", project.name),
    }
}

fn part(report: &ReportWish, name: &str) -> Option<String> {
    let change = report.change.as_ref();
    let (project, reference, old, new) = match &report.subject {
        Subject::Change(_) => {
            (change.map(|c| &c.project), change.map(|c| c.reference.to_string()), None, None)
        }
        Subject::Ref(update) => {
            let name = update.zuul_name().to_owned();
            (Some(&update.project), Some(name), Some(&update.old), Some(&update.new))
        }
        Subject::Branch { project, branch } => {
            (Some(project), Some(branch.to_string()), None, None)
        }
    };
    let key = match &report.subject {
        Subject::Change(key) => Some(key),
        Subject::Ref(_) | Subject::Branch { .. } => None,
    };
    let branch = match &report.subject {
        Subject::Change(_) => change.map(|c| c.branch.to_string()),
        Subject::Ref(update) => update.branch().map(str::to_owned),
        Subject::Branch { branch, .. } => Some(branch.to_string()),
    };
    let text = match name {
        "number" => key.map(|k| k.number.to_string()),
        "patchset" => key.map(|k| k.patchset.clone()),
        "project" | "project.name" => project.map(|p| p.name.to_string()),
        "branch" => branch,
        "url" => change.map(|c| c.url.clone()),
        "title" => change.map(|c| c.title.clone()),
        "refspec" | "ref" => reference,
        "oldrev" => old.map(ToString::to_string),
        "newrev" => new.map(ToString::to_string),
        _ => return None,
    };
    Some(text.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{ChangeKey, ProjectKey, RefUpdate, Revision, SourceName};
    use crate::id::{ItemId, ReportId};
    use crate::layout::PipelineName;
    use crate::pipeline::ReportAction;
    use crate::time::Time;

    fn report(subject: Subject) -> ReportWish {
        ReportWish {
            report: ReportId(1),
            item: ItemId(1),
            pipeline: PipelineName("periodic".into()),
            action: ReportAction::Failure,
            reporters: Vec::new(),
            subject,
            change: None,
            message: String::new(),
            commit: None,
            not_before: Time(0),
        }
    }

    #[test]
    fn places_are_filled_and_unknown_ones_stay() {
        let source = SourceName::new("gerrit").unwrap();
        let key = ChangeKey { source: source.clone(), number: 5, patchset: "2".into() };
        let change = report(Subject::Change(key));
        assert_eq!(mail_subject(None, &change), "Report for change 5,2");
        let template =
            "{pipeline.name} {change.number}/{change.patchset} {change.x} {{}} {change.url}.";
        assert_eq!(mail_subject(Some(template), &change), "periodic 5/2 {change.x} {} .");
        let project = ProjectKey { source, name: "openstack/heat".parse().unwrap() };
        let update = RefUpdate {
            project: project.clone(),
            reference: "refs/heads/master".parse().unwrap(),
            old: Revision::none(),
            new: Revision::new("a".repeat(40)).unwrap(),
        };
        let moved = report(Subject::Ref(update));
        let template = "{change}: {change.project} {change.ref} {change.branch} {change.newrev}";
        let expected =
            format!("openstack/heat master: openstack/heat master master {}", "a".repeat(40));
        assert_eq!(mail_subject(Some(template), &moved), expected);
        let timer = report(Subject::Branch { project, branch: "stable/icehouse".parse().unwrap() });
        assert_eq!(mail_subject(None, &timer), "Report for change openstack/heat stable/icehouse");
    }
}
