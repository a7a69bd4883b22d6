//! From what sources say to the gate's inputs.

use super::gather::{Sources, gather};
use super::now;
use crate::tasks::pipeline::{Cursor, GateHandle, News};
use std::sync::Arc;
use std::time::Duration;
use toci_core::event::{ChangeKey, EventKind, Person, TriggerEvent};
use toci_core::pipeline::Input;
use toci_edge::source::{Cursors, Heard, Source, SourceError};
use tokio::sync::{broadcast, mpsc};

/// Events of one source that wait to be handed over at most; beyond that the source waits.
const EVENTS_MAX: usize = 256;
/// First and longest pause before a source is asked again that could not be reached.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Listens to a source until the gate stops.
pub(crate) async fn follow(
    gate: GateHandle,
    sources: Sources,
    source: Arc<dyn Source>,
    since: Cursors,
) {
    let (out, mut heard) = mpsc::channel(EVENTS_MAX);
    let listened = Arc::clone(&source);
    let listener = tokio::spawn(async move { listened.listen(since, out).await });
    let name = source.name().clone();
    while let Some(heard) = heard.recv().await {
        let (input, cursor) = match heard {
            Heard::Event { event, cursor } => {
                tracing::info!(source = %name, kind = event.kind.word(), change = ?event.change, "event");
                (input_of(&sources, *event).await, cursor)
            }
            Heard::Cursor(cursor) => (Input::Changes(Vec::new()), cursor),
            Heard::Link(Ok(())) => {
                tracing::info!(source = %name, "the source is heard");
                continue;
            }
            Heard::Link(Err(why)) => {
                tracing::warn!(source = %name, why, "the source is not heard; it is tried again");
                continue;
            }
            Heard::Malformed(what) => {
                tracing::warn!(source = %name, what, "no event; passed over");
                continue;
            }
        };
        let cursor: Cursor = (name.clone(), cursor.0, cursor.1);
        if gate.deliver(input, Some(cursor)).await.is_none() {
            break;
        }
    }
    listener.abort();
}

/// An event with its changes. While a source cannot be reached it waits: events stay in order, and none is lost.
async fn input_of(sources: &Sources, event: TriggerEvent) -> Input {
    let changes = match &event.change {
        Some(key) => patiently(|| gather(sources, key)).await,
        None => Vec::new(),
    };
    Input::Event { event: Box::new(event), changes }
}

/// Asks again, with growing pauses, until it is answered. What a source refuses is told, and taken for nothing.
async fn patiently<T: Default, F>(ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, SourceError>>,
{
    let mut pause = PAUSE.0;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(error @ SourceError::Refused { .. }) => {
                tracing::warn!(%error, "a change cannot be looked at");
                return T::default();
            }
            Err(error @ SourceError::Unreachable { .. }) => {
                tracing::warn!(%error, pause_s = pause.as_secs(), "asking again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }
}

/// Zuul's `project-change-merged`: when a change merged and a pipeline listens to that, each open change of its project
/// has an event.
pub(crate) async fn follow_merges(gate: GateHandle, sources: Sources) {
    let mut news = gate.news();
    loop {
        let (pipeline, project) = match news.recv().await {
            Ok(News::MergedIn(pipeline, project)) => (pipeline, project),
            Ok(News::Left(_)) => continue,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "merges were passed over");
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(source) = sources.get(&project.source) else { continue };
        let open = patiently(|| source.open_changes(&project.name)).await;
        for change in open {
            let event = TriggerEvent {
                kind: EventKind::ProjectChangeMerged,
                project: project.clone(),
                branch: Some(change.branch.clone()),
                change: Some(change.key.clone()),
                reference: None,
                old: None,
                new: None,
                by: Person::default(),
                comment: String::new(),
                approvals: Vec::new(),
                origin: pipeline.0.clone(),
                at: now(),
            };
            if gate.deliver(input_of(&sources, event).await, None).await.is_none() {
                return;
            }
        }
    }
}

/// What is the change called that a person means: `[SOURCE:]NUMBER[,PATCHSET]`. The first source when none is named.
pub(crate) async fn named(sources: &Sources, text: &str) -> Result<Option<ChangeKey>, SourceError> {
    let (source, rest) = match text.split_once(':') {
        Some((name, rest)) => (sources.by_word(name), rest),
        None => (sources.first(), text),
    };
    let (number, patchset) = match rest.split_once(',') {
        Some((number, patchset)) => (number, Some(patchset)),
        None => (rest, None),
    };
    let (Some(source), Ok(number)) = (source, number.parse()) else { return Ok(None) };
    Ok(source.change(number, patchset).await?.map(|change| change.key))
}
