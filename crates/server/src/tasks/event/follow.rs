//! From what sources say to the gate's inputs.

use super::gather::{Sources, gather};
use super::standing::{Link, Standing, moment};
use crate::clock::now;
use crate::tasks::pipeline::{Cursor, GateHandle, News};
use std::sync::Arc;
use std::time::Duration;
use toci_core::event::{ChangeKey, EventKind, Person, SourceName, TriggerEvent};
use toci_core::pause::Pause;
use toci_core::pipeline::Input;
use toci_edge::source::{Cursors, Heard, Source, SourceError};
use tokio::sync::{broadcast, mpsc};
use tokio::task::{JoinError, JoinSet};

/// Events of one source that wait to be handed over at most; beyond that the source waits.
const EVENTS_MAX: usize = 256;
/// Events of one source that wait for another one at most; beyond that the source waits.
const ASIDE_MAX: usize = 64;
/// First and longest pause before a source is asked again that could not be reached.
const PAUSE: Pause = Pause::new(Duration::from_secs(1), Duration::from_secs(60));

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
    let mut line = Line {
        gate,
        sources,
        name: source.name().clone(),
        aside: JoinSet::new(),
        apart: Vec::new(),
        held: Cursors::new(),
    };
    loop {
        let goes_on = tokio::select! {
            heard = heard.recv() => match heard {
                Some(heard) => line.take(heard).await,
                None => break,
            },
            Some(back) = line.aside.join_next() => line.back(back).await,
        };
        if goes_on.is_none() {
            break;
        }
    }
    listener.abort();
}

/// What a source says, on its way to the gate: in order, but for events that wait for another source which is away. Those
/// go aside, so that they hold up nothing but what is about the same change. `None`: the gate has stopped.
struct Line {
    gate: GateHandle,
    sources: Sources,
    name: SourceName,
    aside: JoinSet<(ChangeKey, Input)>,
    /// What the events aside are about.
    apart: Vec<ChangeKey>,
    /// How far the source was heard meanwhile: it counts when nothing is aside any more, so that a crash loses none.
    held: Cursors,
}

impl Line {
    async fn take(&mut self, heard: Heard) -> Option<()> {
        let name = &self.name;
        match heard {
            Heard::Event { event, cursor } => {
                tracing::info!(source = %name, kind = event.kind.word(), change = ?event.change, "event");
                self.sources.standings.event(name, now());
                self.event(*event, cursor).await
            }
            Heard::Cursor(cursor) => self.deliver(Input::Changes(Vec::new()), cursor).await,
            Heard::Link(link) => {
                note_link(&self.sources, name, link);
                Some(())
            }
            Heard::Malformed(what) => {
                self.sources.standings.malformed(name, &what, now());
                tracing::warn!(source = %name, what, "no event; passed over");
                Some(())
            }
        }
    }

    async fn event(&mut self, event: TriggerEvent, cursor: (String, String)) -> Option<()> {
        let Some(key) = event.change.clone() else {
            let input = Input::Event { event: Box::new(event), changes: Vec::new() };
            return self.deliver(input, cursor).await;
        };
        while self.aside.len() >= ASIDE_MAX || self.apart.iter().any(|k| k.same_change(&key)) {
            let back = self.aside.join_next().await?;
            self.back(back).await?;
        }
        let input = match gather(&self.sources, &key).await {
            Ok(changes) => Input::Event { event: Box::new(event), changes },
            Err(SourceError::Unreachable { source_name, why })
                if source_name != self.name.as_str() =>
            {
                tracing::warn!(source = %self.name, %key, why, "an event waits for another source");
                self.held.extend([cursor]);
                self.apart.push(key.clone());
                let sources = self.sources.clone();
                self.aside.spawn(async move { (key, input_of(&sources, event).await) });
                return Some(());
            }
            Err(_) => input_of(&self.sources, event).await,
        };
        self.deliver(input, cursor).await
    }

    async fn deliver(&mut self, input: Input, cursor: (String, String)) -> Option<()> {
        if self.aside.is_empty() {
            let cursor: Cursor = (self.name.clone(), cursor.0, cursor.1);
            return self.gate.deliver(input, Some(cursor)).await.map(drop);
        }
        self.held.extend([cursor]);
        self.gate.deliver(input, None).await.map(drop)
    }

    /// An event that was aside has its changes.
    async fn back(&mut self, back: Result<(ChangeKey, Input), JoinError>) -> Option<()> {
        match back {
            Ok((key, input)) => {
                self.apart.retain(|other| *other != key);
                self.gate.deliver(input, None).await?;
            }
            Err(error) => tracing::error!(%error, "an event was lost on its way"),
        }
        if self.aside.is_empty() {
            self.apart.clear();
            for (cursor, text) in std::mem::take(&mut self.held) {
                let cursor: Cursor = (self.name.clone(), cursor, text);
                self.gate.deliver(Input::Changes(Vec::new()), Some(cursor)).await?;
            }
        }
        Some(())
    }
}

fn note_link(sources: &Sources, name: &SourceName, link: Result<(), String>) {
    let now = now();
    let before = sources.standings.link(name, link.clone(), now);
    match (link, before) {
        (Ok(()), Some(Standing { link: Link::Down(_), since, .. })) => {
            let away_s = now.since(since).as_secs();
            tracing::info!(source = %name, away_s, "the source is heard again");
        }
        (Ok(()), _) => tracing::info!(source = %name, "the source is heard"),
        (Err(why), _) => {
            let since = sources.standing(name).map(|s| moment(s.since)).unwrap_or_default();
            tracing::warn!(source = %name, why, since, "the source is not heard; it is tried again");
        }
    }
}

/// An event with its changes. While a source cannot be reached it waits: events stay in order, and none is lost.
async fn input_of(sources: &Sources, event: TriggerEvent) -> Input {
    let changes = match &event.change {
        Some(key) => patiently(sources, || gather(sources, key)).await,
        None => Vec::new(),
    };
    Input::Event { event: Box::new(event), changes }
}

/// Asks again, with growing pauses, until it is answered. What a source refuses is told, and taken for nothing.
async fn patiently<T: Default, F>(sources: &Sources, ask: impl Fn() -> F) -> T
where
    F: Future<Output = Result<T, SourceError>>,
{
    waiting(sources, |due| pause(sources, due), ask).await
}

/// A source that comes back is asked at once.
async fn pause(sources: &Sources, due: Duration) {
    tokio::select! {
        () = tokio::time::sleep(due) => {}
        () = sources.standings.somebody_is_back() => {}
    }
}

/// The pauses are the caller's: tests have no time.
async fn waiting<T: Default, F, W>(
    sources: &Sources,
    wait: impl Fn(Duration) -> W,
    ask: impl Fn() -> F,
) -> T
where
    F: Future<Output = Result<T, SourceError>>,
    W: Future<Output = ()>,
{
    let mut pause = PAUSE;
    let mut away = None;
    loop {
        match ask().await {
            Ok(answer) => {
                // What it says of its link may have to wait behind this.
                away.into_iter().for_each(|name: SourceName| note_link(sources, &name, Ok(())));
                return answer;
            }
            Err(error @ SourceError::Refused { .. }) => {
                tracing::warn!(%error, "a change cannot be looked at");
                return T::default();
            }
            Err(SourceError::Unreachable { source_name, why }) => {
                away = SourceName::new(source_name).ok();
                away.iter().for_each(|name| note_link(sources, name, Err(why.clone())));
                let due = pause.longer();
                tracing::warn!(why, pause_s = due.as_secs(), "asking again");
                wait(due).await;
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
            Ok(News::Entered(_) | News::Left(_) | News::Told(_)) => continue,
            Err(broadcast::error::RecvError::Lagged(missed)) => {
                tracing::warn!(missed, "merges were passed over");
                continue;
            }
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(source) = sources.get(&project.source) else { continue };
        let open = patiently(&sources, || source.open_changes(&project.name)).await;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::ready;

    /// With a clock of the test's own: what waits for a source that is away for an hour is answered afterwards, asks it
    /// about once a minute, and says since when it is away.
    #[tokio::test]
    async fn an_hour_without_a_source_is_waited_out() {
        let sources = Sources::new(Vec::new());
        let gerrit = SourceName::new("gerrit").unwrap();
        let (clock, asked) = (Cell::new(Duration::ZERO), Cell::new(0));
        let first = Cell::new(None);
        let wait = |pause| {
            clock.set(clock.get() + pause);
            ready(())
        };
        let ask = || {
            asked.set(asked.get() + 1);
            if let Some(standing) = sources.standing(&gerrit) {
                assert!(matches!(standing.link, Link::Down(_)), "{standing:?}");
                let since = first.get().unwrap_or(standing.since);
                assert_eq!(standing.since, since, "an outage has one beginning");
                first.set(Some(since));
            }
            let why = format!("connection refused after {} s", clock.get().as_secs());
            let away = SourceError::Unreachable { source_name: "gerrit".into(), why };
            ready(if clock.get() < Duration::from_secs(3600) { Err(away) } else { Ok(vec![7]) })
        };
        let answer: Vec<u8> = waiting(&sources, wait, ask).await;
        assert_eq!(answer, [7]);
        assert!((60..80).contains(&asked.get()), "asked {} times", asked.get());
        assert!(clock.get() < Duration::from_secs(3660), "{:?}", clock.get());
        let complaint = SourceError::Unreachable { source_name: "gerrit".into(), why: "x".into() };
        assert_eq!(sources.standing(&gerrit).unwrap().link, Link::Up);
        assert!(!sources.complaint(&gerrit, &complaint).contains("not heard since"));
        note_link(&sources, &gerrit, Err("no route".into()));
        let told = sources.complaint(&gerrit, &complaint);
        assert!(told.starts_with("gerrit cannot be reached: x (not heard since 20"), "{told}");
    }
}
