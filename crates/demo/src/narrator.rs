//! Tells what the gate does, from what its pipelines look like: pure, so that it can be tested.

use std::collections::BTreeMap;
use toci_wire::api::{EndedItem, Pipeline, PipelineItem};

/// What was told so far.
#[derive(Debug, Default)]
pub struct Narrator {
    items: BTreeMap<String, Told>,
    ended: usize,
}

#[derive(Debug, Default, PartialEq)]
struct Told {
    ahead: Option<String>,
    failing: Vec<String>,
    /// Of each job: its run, whether it began, how it went.
    jobs: BTreeMap<String, (Option<String>, bool, Option<String>)>,
}

impl Narrator {
    /// Lines for what is new; `ended`: the newest first, as the API lists them.
    pub fn tell(&mut self, pipelines: &[Pipeline], ended: &[EndedItem]) -> Vec<String> {
        let mut lines = Vec::new();
        let items: Vec<&PipelineItem> =
            pipelines.iter().flat_map(|p| &p.queues).flat_map(|q| &q.items).collect();
        let names: BTreeMap<&str, &str> =
            items.iter().map(|i| (i.id.as_str(), short(&i.subject))).collect();
        for item in &items {
            self.tell_item(item, &names, &mut lines);
        }
        let new = ended.len().saturating_sub(self.ended);
        for end in ended.iter().take(new).rev() {
            self.items.remove(&end.id);
            let how = end.end.replace('_', " ");
            lines.push(format!("{} left {}: {how}", short(&end.subject), end.pipeline));
            let told = end.message.lines().filter(|line| !line.trim().is_empty());
            lines.extend(told.map(|line| format!("    | {line}")));
        }
        self.ended = ended.len();
        lines
    }

    fn tell_item(
        &mut self,
        item: &PipelineItem,
        names: &BTreeMap<&str, &str>,
        lines: &mut Vec<String>,
    ) {
        let name = short(&item.subject);
        let place = item.ahead.as_deref().and_then(|id| names.get(id));
        let on = place.map_or_else(|| "master".to_owned(), |ahead| format!("master + {ahead}"));
        let is_new = !self.items.contains_key(&item.id);
        let told = self.items.entry(item.id.clone()).or_default();
        if is_new {
            lines.push(format!(
                "{name} ({}: {}) enters {}, tested on {on}",
                item.project, item.title, item.pipeline
            ));
        } else if told.ahead != item.ahead {
            lines.push(format!("{name} is tested anew, on {on}"));
        }
        told.ahead.clone_from(&item.ahead);
        for job in &item.jobs {
            let now = (job.run.clone(), job.started_us.is_some(), job.result.clone());
            let before = told.jobs.insert(job.name.clone(), now.clone());
            let before = before.filter(|b| b.0 == now.0).unwrap_or_default();
            if now.1 && !before.1 {
                lines.push(format!("  {} of {name} runs: {}", job.name, job.url));
            }
            if let (Some(result), None) = (&now.2, &before.2) {
                let note =
                    if job.note.is_empty() { String::new() } else { format!(" ({})", job.note) };
                lines.push(format!("  {} of {name}: {result}{note}", job.name));
            }
        }
        if told.failing != item.failing && !item.failing.is_empty() {
            lines.push(format!("{name} will not succeed: {}", item.failing.join("; ")));
        }
        told.failing.clone_from(&item.failing);
    }
}

/// `change 1` of `local:1,1`.
fn short(subject: &str) -> &str {
    subject.split_once(':').map_or(subject, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use toci_wire::api::{PipelineJob, PipelineQueue};

    fn item(number: u32, ahead: Option<u32>, run: &str, started: bool) -> PipelineItem {
        PipelineItem {
            id: number.to_string(),
            pipeline: "gate".into(),
            project: "demo/app".into(),
            subject: format!("local:{number},1"),
            title: "T".into(),
            url: String::new(),
            live: true,
            active: true,
            position: number,
            ahead: ahead.map(|n| n.to_string()),
            failing: vec![],
            enqueued_us: 0,
            waits_for: String::new(),
            jobs: vec![PipelineJob {
                name: "devtest".into(),
                voting: true,
                run: Some(run.into()),
                attempt: 1,
                started_us: started.then_some(1),
                ended_us: None,
                result: None,
                url: "http://x".into(),
                note: String::new(),
                waits_for: String::new(),
            }],
        }
    }

    fn gate(items: Vec<PipelineItem>) -> Vec<Pipeline> {
        let queue = PipelineQueue { name: "q".into(), window: 20, items };
        vec![Pipeline {
            name: "gate".into(),
            description: String::new(),
            dependent: true,
            failures: 0,
            disabled: false,
            queues: vec![queue],
            waiting: Vec::new(),
        }]
    }

    #[test]
    fn each_thing_is_told_once() {
        let mut narrator = Narrator::default();
        let both = gate(vec![item(1, None, "a", true), item(2, Some(1), "b", true)]);
        let lines = narrator.tell(&both, &[]);
        assert_eq!(lines[0], "1,1 (demo/app: T) enters gate, tested on master");
        assert_eq!(lines[2], "2,1 (demo/app: T) enters gate, tested on master + 1,1");
        assert_eq!(lines.len(), 4, "{lines:?}");
        assert!(narrator.tell(&both, &[]).is_empty());
        let end = EndedItem {
            id: "1".into(),
            pipeline: "gate".into(),
            project: "demo/app".into(),
            subject: "local:1,1".into(),
            title: "T".into(),
            url: String::new(),
            end: "failed".into(),
            enqueued_us: 0,
            ended_us: 0,
            jobs: Vec::new(),
            message: "Build failed.\n\n- devtest http://logs : FAILURE".into(),
        };
        let alone = gate(vec![item(2, None, "c", true)]);
        let lines = narrator.tell(&alone, std::slice::from_ref(&end));
        let expected = [
            "2,1 is tested anew, on master",
            "  devtest of 2,1 runs: http://x",
            "1,1 left gate: failed",
            "    | Build failed.",
            "    | - devtest http://logs : FAILURE",
        ];
        assert_eq!(lines, expected);
        assert!(narrator.tell(&alone, &[end]).is_empty());
    }
}
