//! The port's methods, over SSH.

use super::config::{GerritConfig, GerritSsh, Transport};
use super::event::project;
use super::footer::{Asked, asked};
use super::json::ChangeJson;
use super::query::{NoAnswer, Rows, change_of, read_rows};
use super::{listen, report, rest};
use crate::git::Remote;
use crate::http::HttpError;
use crate::program::Ended;
use crate::source::{
    CHANGES_MAX, Cursors, Heard, Source, SourceError, SourceReport, Work, depends_on,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use toci_core::event::{Change, ChangeState, ProjectName, SourceName, normal_label};
use tokio::sync::{Notify, mpsc, watch};

/// What ssh itself ends with when there is no connection (any more).
const SSH_BROKEN: i32 = 255;
/// What Gerrit ends a command with when it failed, and not the one who gave it.
const GERRIT_BROKEN: i32 = 128;

/// How often Gerrit is asked at the most for what its index does not show, and may in a moment ...
pub(super) const INDEX_ASKED_MAX: u32 = 4;
/// ... and the pause between two such questions.
pub(super) const INDEX_PAUSE: Duration = Duration::from_millis(250);

/// What a query shows of each change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// Everything that anybody here wants to know.
    Whole,
    /// The message of the current patchset.
    Message,
    /// Patchsets and comments.
    History,
}

impl Show {
    fn options(self) -> &'static [&'static str] {
        match self {
            Show::Whole => &[
                "--current-patch-set",
                "--patch-sets",
                "--dependencies",
                "--files",
                "--commit-message",
                "--submit-records",
                "--all-approvals",
            ],
            Show::Message => &["--current-patch-set", "--commit-message"],
            Show::History => &["--current-patch-set", "--patch-sets", "--comments"],
        }
    }
}

/// A Gerrit.
#[derive(Debug)]
pub struct GerritSource {
    config: GerritConfig,
    /// Labels as they are spelt there, by their normal spelling: learnt from answers.
    labels: Mutex<BTreeMap<String, String>>,
    /// Where its changes are shown, learnt from answers; with what is configured, what `Depends-On` may begin with.
    addresses: Mutex<BTreeSet<String>>,
    poke: Notify,
    /// The projects that pipelines know.
    watched: watch::Sender<BTreeSet<ProjectName>>,
}

impl GerritSource {
    /// A Gerrit; nothing is connected yet.
    #[must_use]
    pub fn new(config: GerritConfig) -> GerritSource {
        GerritSource {
            config,
            labels: Mutex::default(),
            addresses: Mutex::default(),
            poke: Notify::new(),
            watched: watch::Sender::default(),
        }
    }

    pub(super) fn config(&self) -> &GerritConfig {
        &self.config
    }

    /// Waits until somebody says that there is news.
    pub(super) async fn poked(&self) {
        self.poke.notified().await;
    }

    /// The projects whose branches and tags matter.
    pub(super) fn watched(&self) -> watch::Receiver<BTreeSet<ProjectName>> {
        self.watched.subscribe()
    }

    pub(super) fn unreachable(&self, why: impl Into<String>) -> SourceError {
        SourceError::Unreachable { source_name: self.config.name.to_string(), why: why.into() }
    }

    pub(super) fn refused(&self, why: impl Into<String>) -> SourceError {
        SourceError::Refused { source_name: self.config.name.to_string(), why: why.into() }
    }

    /// A label as Gerrit spells it, as far as is known. One spelt otherwise counts, but its event says that nothing
    /// was voted.
    pub(super) fn spelt(&self, label: &str) -> String {
        let labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spelt) = labels.get(&normal_label(label)) {
            return spelt.clone();
        }
        if !labels.is_empty() {
            tracing::warn!(source = %self.config.name, label, "Gerrit has shown no such label; it passes over votes on one that it does not know");
        }
        label.to_owned()
    }

    fn learn(&self, rows: &[ChangeJson]) {
        let mut labels = self.labels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows {
            for label in row.submit_records.iter().flat_map(|r| &r.labels) {
                labels.insert(normal_label(&label.label), label.label.clone());
            }
            // `https://review.example.org/c/<project>/+/<n>`, before 2.16 `https://review.example.org/<n>`.
            let ends = [
                format!("/c/{}/+/{}", row.project, row.number.0),
                format!("/#/c/{}", row.number.0),
                format!("/{}", row.number.0),
            ];
            let url = row.url.trim_end_matches('/');
            if let Some(address) = ends.iter().find_map(|end| url.strip_suffix(end.as_str())) {
                addresses.insert(address.to_owned());
            }
        }
    }

    fn addresses(&self) -> Vec<String> {
        let learnt = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<String> = learnt.iter().cloned().collect();
        all.extend(self.config.http().map(|h| h.url.to_string()));
        if let Transport::Ssh(ssh, _) = &self.config.transport {
            all.push(ssh.host.clone());
        }
        all
    }

    /// A command of Gerrit that ended by itself; how, is the caller's to judge.
    pub(super) async fn run(&self, ssh: &GerritSsh, words: &[&str]) -> Result<Ended, SourceError> {
        let ended = ssh.call(words).run(b"").await;
        let ended = ended.map_err(|e| self.unreachable(e.to_string()))?;
        match ended.code {
            Some(SSH_BROKEN | GERRIT_BROKEN) | None => Err(self.unreachable(&ended.complaint)),
            Some(_) => Ok(ended),
        }
    }

    /// What is wrong with a request: of the world, or of what was asked.
    pub(super) fn failed(&self, error: &HttpError) -> SourceError {
        let mut why = error.to_string();
        if let Some(cause) = std::error::Error::source(error) {
            why.push_str(&format!(": {cause}"));
        }
        if error.may_pass() { self.unreachable(why) } else { self.refused(why) }
    }

    /// A query, from its `start`th row on.
    pub(super) async fn query(
        &self,
        show: Show,
        query: &str,
        start: usize,
    ) -> Result<Rows, SourceError> {
        let rows = match &self.config.transport {
            Transport::Ssh(ssh, _) => self.query_by_ssh(ssh, show, query, start).await?,
            Transport::Rest(http, _) => {
                rest::query(http, show, query, start).await.map_err(|e| self.failed(&e))?
            }
        };
        for line in &rows.malformed {
            tracing::warn!(source = %self.config.name, line, "a line of an answer is no change");
        }
        self.learn(&rows.rows);
        Ok(rows)
    }

    async fn query_by_ssh(
        &self,
        ssh: &GerritSsh,
        show: Show,
        query: &str,
        start: usize,
    ) -> Result<Rows, SourceError> {
        let mut words = vec!["query", "--format", "JSON"];
        words.extend(show.options());
        let start = start.to_string();
        // Gerrits before 2.10 do not know the option.
        if start != "0" {
            words.extend(["--start", &start]);
        }
        words.extend(["--", query]);
        let ended = self.run(ssh, &words).await?;
        if !ended.is_well() {
            return Err(self.refused(&ended.complaint));
        }
        read_rows(&ended.text()).map_err(|e| match e {
            NoAnswer::Refused(why) => self.refused(format!("query `{query}`: {why}")),
            NoAnswer::Cut => self.unreachable(format!("query `{query}`: the answer was cut")),
        })
    }

    fn changes_of(&self, rows: &Rows) -> Vec<Change> {
        let mut changes = Vec::new();
        for row in rows.rows.iter().take(CHANGES_MAX) {
            match change_of(&self.config.name, row, None) {
                Ok(change) => changes.extend(change),
                Err(e) => {
                    tracing::warn!(source = %self.config.name, change = row.number.0, error = %e, "a change is passed over");
                }
            }
        }
        changes
    }

    /// The changes that a footer names, as they are now.
    async fn resolve(&self, footer: &str) -> Result<Vec<Change>, SourceError> {
        let query = match asked(footer, &self.addresses()) {
            None => return Ok(Vec::new()),
            Some(Asked::Id(id)) => format!("change:{id}"),
            Some(Asked::Number(number)) => format!("change:{number}"),
        };
        Ok(self.changes_of(&self.query(Show::Whole, &query, 0).await?))
    }

    /// Adds what the footers of its message need; of what is merged nothing.
    async fn fill_needs(&self, change: &mut Change) -> Result<(), SourceError> {
        if change.state == ChangeState::Merged {
            return Ok(());
        }
        for footer in depends_on(&change.message) {
            let found = self.resolve(&footer).await?;
            for needed in found.into_iter().filter(|c| c.state != ChangeState::Merged) {
                let key = needed.key;
                if !key.same_change(&change.key) && !change.needs.contains(&key) {
                    change.needs.push(key);
                }
            }
        }
        Ok(())
    }

    /// Adds the open changes whose footers name this one.
    async fn fill_needed_by(&self, change: &mut Change) -> Result<(), SourceError> {
        let mut words = Vec::new();
        for word in [&change.change_id, &change.url] {
            if !word.is_empty() && !word.contains(['"', '\\']) {
                words.push(format!("message:\"{word}\""));
            }
        }
        if words.is_empty() {
            return Ok(());
        }
        let query = format!("status:open ({})", words.join(" OR "));
        let found = self.query(Show::Message, &query, 0).await?;
        let addresses = self.addresses();
        for other in self.changes_of(&found) {
            let names =
                depends_on(&other.message).iter().any(|footer| match asked(footer, &addresses) {
                    Some(Asked::Id(id)) => id == change.change_id,
                    Some(Asked::Number(number)) => number == change.key.number,
                    None => false,
                });
            let had = change.needed_by.iter().any(|k| k.same_change(&other.key));
            if names && !had && !other.key.same_change(&change.key) {
                change.needed_by.push(other.key);
            }
        }
        Ok(())
    }

    /// A change, if Gerrit finds it now.
    async fn look_up(&self, number: u64) -> Result<Option<ChangeJson>, SourceError> {
        let rows = self.query(Show::Whole, &format!("change:{number}"), 0).await?;
        let found = rows.rows.into_iter().find(|r| r.number.0 == number);
        let Some(mut row) = found else { return Ok(None) };
        let is_there = match &self.config.transport {
            Transport::Ssh(..) => true,
            Transport::Rest(http, _) => {
                rest::add_related(http, &mut row).await.map_err(|e| self.failed(&e))?
            }
        };
        Ok(is_there.then_some(row))
    }

    /// One change as Gerrit shows it, without footers.
    ///
    /// Gerrit's index has one part for open changes and one for all others, and puts a change that is merged, abandoned
    /// or restored from one into the other: for a moment it is in neither. That a change is nowhere is believed only when
    /// it is told several times.
    pub(super) async fn bare(
        &self,
        number: u64,
        patchset: Option<&str>,
    ) -> Result<Option<Change>, SourceError> {
        let mut asked = 1;
        let mut found = self.look_up(number).await?;
        while found.is_none() && asked < INDEX_ASKED_MAX {
            tokio::time::sleep(INDEX_PAUSE).await;
            found = self.look_up(number).await?;
            asked += 1;
        }
        let Some(row) = found else { return Ok(None) };
        change_of(&self.config.name, &row, patchset).map_err(|e| self.refused(e.to_string()))
    }

    async fn whole(
        &self,
        number: u64,
        patchset: Option<&str>,
    ) -> Result<Option<Change>, SourceError> {
        let Some(mut change) = self.bare(number, patchset).await? else { return Ok(None) };
        self.fill_needs(&mut change).await?;
        self.fill_needed_by(&mut change).await?;
        Ok(Some(change))
    }

    async fn open(&self, name: &ProjectName) -> Result<Vec<Change>, SourceError> {
        let query = format!("status:open project:{{{name}}} limit:{CHANGES_MAX}");
        let mut rows = self.query(Show::Whole, &query, 0).await?;
        while rows.more && rows.rows.len() < CHANGES_MAX {
            let next = self.query(Show::Whole, &query, rows.rows.len()).await?;
            rows.more = next.more && !next.rows.is_empty();
            rows.rows.extend(next.rows);
        }
        if rows.more {
            let project = project(&self.config.name, name.as_str()).map(|p| p.to_string());
            tracing::warn!(?project, "more than {CHANGES_MAX} open changes; the rest is left out");
        }
        Ok(self.changes_of(&rows))
    }
}

impl Source for GerritSource {
    fn name(&self) -> &SourceName {
        &self.config.name
    }

    fn remote(&self) -> Remote {
        self.config.remote()
    }

    fn listen(&self, since: Cursors, out: mpsc::Sender<Heard>) -> Work<'_, ()> {
        Box::pin(listen::listen(self, since, out))
    }

    fn poke(&self) {
        self.poke.notify_one();
    }

    fn watch(&self, projects: BTreeSet<ProjectName>) {
        self.watched.send_if_modified(|known| {
            let changed = *known != projects;
            *known = projects;
            changed
        });
    }

    fn change<'a>(
        &'a self,
        number: u64,
        patchset: Option<&'a str>,
    ) -> Work<'a, Result<Option<Change>, SourceError>> {
        Box::pin(self.whole(number, patchset))
    }

    fn find<'a>(&'a self, footer: &'a str) -> Work<'a, Result<Vec<Change>, SourceError>> {
        Box::pin(self.resolve(footer))
    }

    fn open_changes<'a>(
        &'a self,
        project: &'a ProjectName,
    ) -> Work<'a, Result<Vec<Change>, SourceError>> {
        Box::pin(self.open(project))
    }

    fn report<'a>(&'a self, report: &'a SourceReport) -> Work<'a, Result<bool, SourceError>> {
        Box::pin(report::report(self, report))
    }
}
