//! Telling a plain git source: a note on the patchset's commit, votes as refs, and the merge as a push. Telling the same
//! report again changes nothing.

use super::refs::{Meaning, meaning};
use super::source::GitSource;
use crate::git::{GitError, Mirror, Pushed};
use crate::source::{SourceError, SourceReport};
use toci_core::event::{Change, normal_label};
use toci_core::layout::GerritVote;

/// Where reports are kept: `git log --notes=toci` shows them.
const NOTES: &str = "refs/notes/toci";
/// Somebody else may push notes at the same time.
const NOTE_ATTEMPTS: usize = 5;

impl GitSource {
    pub(super) async fn tell(&self, report: &SourceReport) -> Result<bool, SourceError> {
        let change = &report.change;
        let known = self.look(&change.project.name).await.map_err(|e| self.failed(&e))?;
        let mirror = self.mirrors.open(&change.project).await.map_err(|e| self.failed(&e))?;
        let mut specs = self.vote_specs(report, &known.refs);
        if report.merge {
            let Some(commit) = &report.commit else {
                return Err(self.refused("there is no tested commit to merge"));
            };
            let key = &change.key;
            specs.push(format!("{commit}:refs/heads/{}", change.branch));
            specs.push(format!("{}:refs/merged/{}/{}", change.revision, key.number, key.patchset));
        }
        if !specs.is_empty() {
            match mirror.push(&specs).await.map_err(|e| self.failed(&e))? {
                Pushed::Done => {}
                Pushed::Refused(why) => return Err(self.refused(why)),
            }
        }
        self.note(&mirror, report).await?;
        drop(mirror);
        // Our own push is news: others are not made to wait for the next look.
        self.poked.notify_one();
        Ok(report.merge)
    }

    /// A vote takes the place of ours on the same label.
    fn vote_specs(&self, report: &SourceReport, refs: &super::refs::Snapshot) -> Vec<String> {
        let Change { key, revision, .. } = &report.change;
        let mut specs = Vec::new();
        for vote in &report.votes {
            let GerritVote::Label(label, value) = vote else { continue };
            let label = normal_label(label);
            let new = format!(
                "refs/approvals/{}/{}/{label}/{}/{value}",
                key.number, key.patchset, self.config.user
            );
            for name in refs.keys().filter(|name| **name != new) {
                let Meaning::Vote { number, patchset, label: l, user, .. } = meaning(name) else {
                    continue;
                };
                let ours = number == key.number && patchset.to_string() == key.patchset;
                if ours && l == label && user == self.config.user {
                    specs.push(format!(":{name}"));
                }
            }
            specs.push(format!("+{revision}:{new}"));
        }
        specs
    }

    async fn note(&self, mirror: &Mirror, report: &SourceReport) -> Result<(), SourceError> {
        let mut why = String::new();
        for _ in 0..NOTE_ATTEMPTS {
            match self.try_note(mirror, report).await.map_err(|e| self.failed(&e))? {
                Pushed::Done => return Ok(()),
                Pushed::Refused(reason) => why = reason,
            }
        }
        Err(self.refused(format!("{NOTES}: {why}")))
    }

    /// Notes as they are there, and this one: what an attempt that was cut short has left in the mirror does not count.
    async fn try_note(&self, mirror: &Mirror, report: &SourceReport) -> Result<Pushed, GitError> {
        let there = mirror.remote_refs().await?.refs.contains_key(NOTES);
        if there {
            mirror.fetch_refs(&["+refs/notes/toci:refs/notes/toci"]).await?;
        } else {
            mirror.git.local(&["update-ref", "-d", NOTES]).await?;
        }
        let revision = report.change.revision.as_str();
        let id = format!("Report: {}", report.report);
        if there && self.is_noted(mirror, revision, &id).await? {
            return Ok(Pushed::Done);
        }
        let (pipeline, message) = (&report.pipeline, report.message.trim_end());
        let text = format!("Pipeline: {pipeline}\n{id}\n\n{message}\n");
        let arguments = ["notes", "--ref", NOTES, "append", "--file=-", revision];
        let mut call = mirror.git.call(&arguments, crate::git::LOCAL_LIMIT);
        for who in ["GIT_AUTHOR", "GIT_COMMITTER"] {
            call = call
                .env(format!("{who}_NAME"), &self.config.user)
                .env(format!("{who}_EMAIL"), &self.config.email);
        }
        let ended = call.run(text.as_bytes()).await.map_err(|source| GitError::Call {
            what: "notes append".to_owned(),
            repository: mirror.git.repository().to_owned(),
            source,
        })?;
        if !ended.is_well() {
            return Err(mirror.git.failed(&arguments, &ended));
        }
        mirror.push(&[format!("{NOTES}:{NOTES}")]).await
    }

    /// Whether a line stands in the note of a commit. An attempt whose confirmation got lost, or whose server was killed,
    /// may have arrived.
    async fn is_noted(
        &self,
        mirror: &Mirror,
        revision: &str,
        line: &str,
    ) -> Result<bool, GitError> {
        let arguments = ["notes", "--ref", NOTES, "show", revision];
        let ended = mirror.git.ask(&arguments, b"", crate::git::LOCAL_LIMIT).await?;
        match ended.code {
            Some(0) => Ok(ended.text().lines().any(|noted| noted == line)),
            // There is none.
            Some(1) => Ok(false),
            _ => Err(mirror.git.failed(&arguments, &ended)),
        }
    }
}
