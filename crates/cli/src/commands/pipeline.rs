//! `toci pipeline`, `toci source`, `toci reconfigure`.

use crate::args::{HistoryArgs, PipelineCommand, SourceCommand, SubjectArgs};
use crate::error::Result;
use crate::exit::Exit;
use crate::output::{self, ago, or_dash};
use std::process::ExitCode;
use std::time::Duration;
use toci_client::api::ApiClient;
use toci_wire::api::{
    ChangeSource, EndedItem, EndedQuery, Pipeline, PipelineItem, PipelineJob, PipelineOrder,
    Promote, ReferenceOrder, WaitingChange,
};

/// Items of one page, as the server allows.
const PAGE_MAX: usize = 1000;
/// How often `--watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

pub(super) async fn dispatch(
    client: &ApiClient,
    json: bool,
    command: PipelineCommand,
) -> Result<ExitCode> {
    match command {
        PipelineCommand::List => {
            let pipelines = client.pipelines().await?;
            if json { output::json(&pipelines)? } else { output::text_line(&table(&pipelines))? }
        }
        PipelineCommand::Show { pipeline, watch } => {
            let mut last = None;
            loop {
                let pipelines = match &pipeline {
                    Some(name) => vec![client.pipeline(name).await?],
                    None => client.pipelines().await?,
                };
                if last.as_ref() != Some(&pipelines) {
                    if json {
                        output::json(&pipelines)?
                    } else {
                        output::text_line(&picture(&pipelines))?
                    }
                    last = Some(pipelines);
                }
                if !watch {
                    break;
                }
                tokio::time::sleep(WATCH_EVERY).await;
            }
        }
        PipelineCommand::History(args) => {
            let jobs = args.jobs;
            let ended = history(client, args).await?;
            if json { output::json(&ended)? } else { output::text_line(&stories(&ended, jobs))? }
        }
        PipelineCommand::Enqueue { pipeline, subject } => {
            client.enqueue(&pipeline, &order(subject)).await?;
        }
        PipelineCommand::Dequeue { pipeline, subject } => {
            client.dequeue(&pipeline, &order(subject)).await?;
        }
        PipelineCommand::Promote { pipeline, changes } => {
            client.promote(&pipeline, &Promote { changes }).await?;
        }
    }
    Ok(Exit::Ok.into())
}

/// Page by page until there are enough.
async fn history(client: &ApiClient, args: HistoryArgs) -> Result<Vec<EndedItem>> {
    let HistoryArgs { pipeline, project, change, result, limit, .. } = args;
    let mut query = EndedQuery { pipeline, project, change, result, ..EndedQuery::default() };
    let mut all: Vec<EndedItem> = Vec::new();
    while all.len() < limit {
        let wish = (limit - all.len()).min(PAGE_MAX);
        query.limit = Some(wish);
        query.before = all.last().map(|item| item.id.clone());
        let page = client.ended_items_page(&query).await?;
        let last = page.len() < wish;
        all.extend(page);
        if last {
            break;
        }
    }
    Ok(all)
}

pub(super) async fn source(
    client: &ApiClient,
    json: bool,
    command: SourceCommand,
) -> Result<ExitCode> {
    match command {
        SourceCommand::List => {
            let sources = client.sources().await?;
            let text = || source_table(&sources);
            if json { output::json(&sources)? } else { output::text_line(&text())? }
        }
        SourceCommand::Poke { source } => client.poke(&source).await?,
    }
    Ok(Exit::Ok.into())
}

pub(super) async fn reconfigure(client: &ApiClient) -> Result<ExitCode> {
    client.reconfigure().await?;
    Ok(Exit::Ok.into())
}

fn order(subject: SubjectArgs) -> PipelineOrder {
    let SubjectArgs { change, project, reference, old, new } = subject;
    let project = project.unwrap_or_default();
    let reference = reference.map(|name| ReferenceOrder { project, name, old, new });
    PipelineOrder { change, reference }
}

fn source_table(sources: &[ChangeSource]) -> String {
    let row = |source: &ChangeSource| {
        let odd = match source.malformed {
            0 => "-".to_owned(),
            count => format!("{count}, last: {}", source.last_malformed),
        };
        vec![
            source.name.clone(),
            source.kind.clone(),
            source.state.clone(),
            ago(source.since_us),
            source.event_us.map_or_else(|| "-".to_owned(), ago),
            or_dash(&source.why),
            odd,
        ]
    };
    let rows: Vec<Vec<String>> = sources.iter().map(row).collect();
    let headings = ["SOURCE", "KIND", "STATE", "SINCE", "LAST EVENT", "WHY", "PASSED OVER"];
    output::table(&headings, &rows)
}

fn table(pipelines: &[Pipeline]) -> String {
    let rows: Vec<Vec<String>> = pipelines
        .iter()
        .map(|p| {
            let items = || p.queues.iter().flat_map(|q| &q.items);
            let failing = items().filter(|i| !i.failing.is_empty()).count();
            let state = if p.disabled { "disabled" } else { "on" };
            vec![
                p.name.clone(),
                if p.dependent { "dependent" } else { "independent" }.to_owned(),
                items().count().to_string(),
                failing.to_string(),
                state.to_owned(),
                or_dash(&p.description),
            ]
        })
        .collect();
    let headings = ["PIPELINE", "MANAGER", "ITEMS", "FAILING", "STATE", "DESCRIPTION"];
    output::table(&headings, &rows)
}

/// Each pipeline with its queues: an item a line, its jobs under it.
fn picture(pipelines: &[Pipeline]) -> String {
    let mut lines = Vec::new();
    for pipeline in pipelines {
        lines.push(pipeline.name.clone());
        let queues = pipeline.queues.iter().filter(|q| !q.items.is_empty());
        let before = lines.len();
        for queue in queues {
            if !queue.name.is_empty() {
                lines.push(format!("  queue {} (window {})", queue.name, queue.window));
            }
            for item in &queue.items {
                lines.push(format!("  {}", item_line(item)));
                lines.extend(item.jobs.iter().map(|job| format!("      {}", job_line(job))));
            }
        }
        lines.extend(pipeline.waiting.iter().map(|change| format!("  {}", waiting_line(change))));
        if lines.len() == before {
            lines.push("  nothing".to_owned());
        }
    }
    lines.join("\n")
}

fn waiting_line(change: &WaitingChange) -> String {
    let title: String = change.title.chars().take(50).collect();
    let WaitingChange { subject, project, waits_for, since_us, .. } = change;
    format!(
        "◌ {subject}  {project}  {title}  (outside of the queues; it waits for {waits_for})  since {}",
        ago(*since_us)
    )
}

fn item_line(item: &PipelineItem) -> String {
    let mark = match (item.failing.is_empty(), item.active) {
        (false, _) => '✗',
        (true, true) => '●',
        (true, false) => '○',
    };
    let title: String = item.title.chars().take(50).collect();
    let mut line = format!("{mark} {}  {}  {title}", item.subject, item.project);
    let why =
        if item.failing.is_empty() { item.waits_for.clone() } else { item.failing.join("; ") };
    if !why.is_empty() {
        line.push_str(&format!("  ({why})"));
    }
    line.push_str(&format!("  since {}", ago(item.enqueued_us)));
    line
}

fn job_line(job: &PipelineJob) -> String {
    let state = match (&job.result, job.started_us) {
        (Some(result), _) => result.clone(),
        (None, Some(_)) => "running".to_owned(),
        (None, None) => "waiting".to_owned(),
    };
    let mut line = format!("{:<10} {}", state, job.name);
    if !job.voting {
        line.push_str(" (non-voting)");
    }
    for more in [&job.waits_for, &job.note, &job.url] {
        if !more.is_empty() {
            line.push_str(&format!("  {more}"));
        }
    }
    line
}

fn stories(ended: &[EndedItem], jobs: bool) -> String {
    let story = |e: &EndedItem| {
        let message: Vec<String> =
            e.message.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect();
        let head = format!("{}  {}  {}  {}", e.subject, e.pipeline, e.end, ago(e.ended_us));
        let jobs = e.jobs.iter().filter(|_| jobs).map(|job| format!("    {}", job_line(job)));
        let lines: Vec<String> = std::iter::once(head).chain(jobs).chain(message).collect();
        lines.join("\n")
    };
    let all: Vec<String> = ended.iter().map(story).collect();
    if all.is_empty() {
        "nothing of this kind has left a pipeline yet".to_owned()
    } else {
        all.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_a_picture() {
        let job = PipelineJob {
            name: "devtest".into(),
            voting: false,
            run: None,
            attempt: 1,
            started_us: Some(1),
            ended_us: None,
            result: None,
            url: "http://x".into(),
            note: String::new(),
            waits_for: String::new(),
        };
        let item = PipelineItem {
            id: "0".repeat(32),
            pipeline: "gate".into(),
            project: "org/a".into(),
            subject: "local:1,1".into(),
            title: "One".into(),
            url: String::new(),
            live: true,
            active: true,
            position: 1,
            ahead: None,
            failing: vec!["a job failed".into()],
            enqueued_us: 0,
            waits_for: String::new(),
            jobs: vec![job],
        };
        let queue =
            toci_wire::api::PipelineQueue { name: "org/a".into(), window: 20, items: vec![item] };
        let pipeline = Pipeline {
            name: "gate".into(),
            description: String::new(),
            dependent: true,
            failures: 0,
            disabled: false,
            queues: vec![queue],
            waiting: vec![WaitingChange {
                subject: "local:2,1".into(),
                project: "org/b".into(),
                title: "Two".into(),
                url: String::new(),
                needs: "local:1,1".into(),
                since_us: 0,
                waits_for: "local:1,1, which is gated in another queue, to be merged".into(),
            }],
        };
        let text = picture(&[pipeline]);
        assert!(
            text.contains(
                "◌ local:2,1  org/b  Two  (outside of the queues; it waits for local:1,1,"
            ),
            "{text}"
        );
        assert!(text.contains("✗ local:1,1  org/a  One  (a job failed)"), "{text}");
        assert!(text.contains("running    devtest (non-voting)  http://x"), "{text}");
    }
}
