//! Two commits and where they parted, in one call of git: of three looks at a mirror the start of git is nearly all.

use super::command::{Git, GitError, LOCAL_LIMIT};
use super::mirror::Mirror;
use toci_core::event::Revision;

/// Two commits of a mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fork {
    /// What the first name stands for.
    pub(super) ours: Revision,
    /// What the second name stands for.
    pub(super) theirs: Revision,
    /// The best common ancestor, when there is one.
    pub(super) common: Option<Revision>,
}

impl Mirror {
    /// What two names stand for. `None`: one of them is not there, which is asked for by itself, so that a git that
    /// fails is never taken for that.
    pub(super) async fn fork(&self, ours: &str, theirs: &str) -> Result<Option<Fork>, GitError> {
        let range = format!("{ours}^{{commit}}...{theirs}^{{commit}}");
        let arguments = ["rev-parse", range.as_str()];
        let ended = self.git.ask(&arguments, b"", LOCAL_LIMIT).await?;
        if ended.is_well() {
            return read(&self.git, &arguments, &ended.text()).map(Some);
        }
        for name in [ours, theirs] {
            if self.resolve(name).await?.is_none() {
                return Ok(None);
            }
        }
        Err(self.git.failed(&arguments, &ended))
    }
}

/// The second commit, the first one, and the ancestors, each behind a `^`, the best one first.
fn read(git: &Git, arguments: &[&str], text: &str) -> Result<Fork, GitError> {
    let odd = || git.answer(arguments, text);
    let mut lines = text.lines();
    let mut next = || {
        let line = lines.next()?;
        Some(Revision::new(line.strip_prefix('^').unwrap_or(line)).map_err(|_| odd()))
    };
    let theirs = next().ok_or_else(odd)??;
    let ours = next().ok_or_else(odd)??;
    let common = next().transpose()?;
    Ok(Fork { ours, theirs, common })
}
