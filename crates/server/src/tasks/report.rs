//! The report stage: tells sources, mailboxes and web hooks what the gate wants told.

use super::event::Sources;
use super::pipeline::GateHandle;
use crate::clock::now;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use toci_core::event::SourceName;
use toci_core::id::ReportId;
use toci_core::layout::{GerritVote, Reporter};
use toci_core::pipeline::{Input, ReportOutcome, ReportWish, mail_subject};
use toci_edge::http::Http;
use toci_edge::source::{SourceError, SourceReport};
use toci_edge::tell::smtp::{self, Mail, SmtpConfig};
use toci_edge::tell::webhook::{self, Hook, WebhookConfig};
use tokio::task::JoinSet;

/// Reports at a time.
const REPORTS_MAX: usize = 8;

/// How others than sources are told.
#[derive(Debug)]
pub(crate) struct Tellers {
    /// Mail.
    pub(crate) smtp: SmtpConfig,
    /// Web hooks.
    pub(crate) webhook: WebhookConfig,
    /// What posts to them.
    pub(crate) http: Http,
}

/// Tells one reporter of a report; says whether the change is merged now.
enum Told {
    Well { merged: bool },
    Later(String),
    Refused(String),
}

/// How far a report got, so that one whose other half failed is not told twice. Kept in memory only: after a crash a
/// comment may come twice, as after any lost answer, where neither the source nor the receiver of a web hook looks at
/// the report's id.
#[derive(Debug, Default)]
struct Progress {
    /// Places of the reporters that were told, or refused it.
    told: BTreeSet<usize>,
    /// A source said that the change is merged.
    merged: bool,
}

/// A report that was tried.
struct Tried {
    report: ReportId,
    progress: Progress,
    outcome: ReportOutcome,
}

/// Tells until the gate stops.
pub(crate) async fn run(gate: GateHandle, sources: Sources, tellers: Tellers) {
    let desk = Arc::new(Desk { gate: gate.clone(), sources, tellers });
    let mut wanted = gate.wanted();
    let mut busy: BTreeSet<ReportId> = BTreeSet::new();
    let mut halves: BTreeMap<ReportId, Progress> = BTreeMap::new();
    let mut reports: JoinSet<Tried> = JoinSet::new();
    loop {
        let now = now();
        let all = Arc::clone(&wanted.borrow_and_update());
        halves.retain(|report, _| all.reports.iter().any(|wish| wish.report == *report));
        let fresh = || all.reports.iter().filter(|wish| !busy.contains(&wish.report));
        let pause = fresh().filter(|w| w.not_before > now).map(|w| w.not_before.since(now)).min();
        let free = REPORTS_MAX.saturating_sub(reports.len());
        let due: Vec<ReportWish> =
            fresh().filter(|w| w.not_before <= now).take(free).cloned().collect();
        for wish in due {
            busy.insert(wish.report);
            let progress = halves.remove(&wish.report).unwrap_or_default();
            let desk = Arc::clone(&desk);
            reports.spawn(async move { desk.tell(&wish, progress).await });
        }
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            Some(tried) = reports.join_next() => {
                let Ok(Tried { report, progress, outcome }) = tried else { continue };
                if let ReportOutcome::Later { why } = &outcome {
                    tracing::warn!(%report, why, "a report is told later");
                    halves.insert(report, progress);
                }
                if gate.deliver(Input::Report { report, outcome }, None).await.is_none() {
                    return;
                }
                busy.remove(&report);
            }
            () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => {}
        }
    }
}

/// What each report needs.
struct Desk {
    gate: GateHandle,
    sources: Sources,
    tellers: Tellers,
}

impl Desk {
    /// Those that merge come first: what is told to the others must be true.
    async fn tell(&self, wish: &ReportWish, mut progress: Progress) -> Tried {
        let merges = |r: &Reporter| matches!(r, Reporter::Source { merge: true, .. });
        let (first, rest): (Vec<_>, Vec<_>) =
            wish.reporters.iter().enumerate().partition(|(_, r)| merges(r));
        let mut later = None;
        let mut refused = None;
        for (number, reporter) in first.into_iter().chain(rest) {
            if progress.told.contains(&number) {
                continue;
            }
            match self.tell_one(wish, reporter).await {
                Told::Well { merged: now } => {
                    progress.told.insert(number);
                    progress.merged |= now;
                }
                Told::Later(why) => later = Some(why),
                Told::Refused(why) => {
                    tracing::warn!(report = %wish.report, why, "a report is refused");
                    progress.told.insert(number);
                    refused = Some(why);
                }
            }
        }
        let outcome = match (later, refused) {
            (Some(why), _) => ReportOutcome::Later { why },
            (None, Some(why)) if !progress.merged => ReportOutcome::Refused { why },
            (None, _) => ReportOutcome::Done { merged: progress.merged },
        };
        Tried { report: wish.report, progress, outcome }
    }

    async fn tell_one(&self, wish: &ReportWish, reporter: &Reporter) -> Told {
        let failed = |error: &dyn std::error::Error, may_pass: bool| {
            if may_pass { Told::Later(error.to_string()) } else { Told::Refused(error.to_string()) }
        };
        match reporter {
            Reporter::Source { source, votes, merge } => {
                self.tell_source(wish, source, votes, *merge).await
            }
            Reporter::Smtp { from, to, subject } => {
                let mail = Mail {
                    id: wish.report.to_string(),
                    from: from.clone(),
                    to: to.clone(),
                    subject: mail_subject(subject.as_deref(), wish),
                    body: wish.message.clone(),
                };
                match smtp::send(&self.tellers.smtp, &mail).await {
                    Ok(()) => Told::Well { merged: false },
                    Err(error) => failed(&error, error.may_pass()),
                }
            }
            Reporter::Webhook { url } => {
                let state = self.gate.item(wish.item).await.ok().flatten();
                let hook = Hook::of(wish, state.as_ref());
                let Tellers { http, webhook, .. } = &self.tellers;
                match webhook::post(http, webhook, url, &hook).await {
                    Ok(()) => Told::Well { merged: false },
                    Err(error) => failed(&error, error.may_pass()),
                }
            }
        }
    }

    async fn tell_source(
        &self,
        wish: &ReportWish,
        source: &SourceName,
        votes: &[GerritVote],
        merge: bool,
    ) -> Told {
        let Some(change) = &wish.change else { return Told::Well { merged: false } };
        // A pipeline of several sources: each is told of its own changes only.
        let own = self.sources.get(source).filter(|s| *s.name() == change.key.source);
        let Some(source) = own else { return Told::Well { merged: false } };
        let layout = self.gate.layout().await.ok();
        let project = layout.as_ref().and_then(|layout| layout.projects.get(&change.project));
        let report = SourceReport {
            report: wish.report,
            mode: project.map(|project| project.merge_mode).unwrap_or_default(),
            action: wish.action,
            pipeline: wish.pipeline.0.clone(),
            change: change.clone(),
            message: wish.message.clone(),
            votes: votes.to_vec(),
            merge,
            commit: wish.commit.clone(),
        };
        match source.report(&report).await {
            Ok(merged) => Told::Well { merged },
            Err(error @ SourceError::Unreachable { .. }) => {
                Told::Later(self.sources.complaint(source.name(), &error))
            }
            Err(error @ SourceError::Refused { .. }) => Told::Refused(error.to_string()),
        }
    }
}
