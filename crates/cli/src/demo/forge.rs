//! Where the demo's changes are reviewed: a plain git host, or a real Gerrit.

use super::folder::Folder;
use super::gerrit_host::GerritHost;
use crate::error::Result;
use std::path::Path;
use toci_demo::{Change, GitHost, Process, Proposed};

/// One of both.
#[derive(Debug)]
pub(super) enum Forge {
    Git(GitHost),
    Gerrit(GerritHost),
}

impl Forge {
    /// Makes it, with its process if it has one.
    pub(super) fn start(
        folder: &Folder,
        examples: &Path,
        gerrit: bool,
    ) -> Result<(Forge, Option<Process>)> {
        if gerrit {
            let (host, process) = GerritHost::start(folder, examples)?;
            return Ok((Forge::Gerrit(host), Some(process)));
        }
        let host = GitHost::make(&folder.git(), &folder.work(), examples)?;
        Ok((Forge::Git(host), None))
    }

    /// What a developer does.
    pub(super) fn propose(&self, number: u64, change: &Change) -> Result<Proposed> {
        match self {
            Forge::Git(host) => Ok(host.propose(number, change)?),
            Forge::Gerrit(host) => host.propose(change),
        }
    }

    /// What a reviewer does.
    pub(super) fn approve(&self, change: &Proposed) -> Result<()> {
        match self {
            Forge::Git(host) => Ok(host.approve(change)?),
            Forge::Gerrit(host) => host.approve(change),
        }
    }

    /// Whether a change is part of its branch.
    pub(super) fn has_merged(&self, change: &Proposed) -> Result<bool> {
        match self {
            Forge::Git(host) => Ok(host.has_merged(change)?),
            Forge::Gerrit(host) => host.has_merged(change),
        }
    }

    /// The layout is written for the git host; Gerrit has a name and a label of its own.
    pub(super) fn layout(text: &str, gerrit: bool) -> String {
        if gerrit {
            text.replace("local:", "gerrit:").replace("approved:", "workflow:")
        } else {
            text.to_owned()
        }
    }

    /// The keys of `[[source]]` in the control plane's settings.
    pub(super) fn source(folder: &Folder, gerrit: bool) -> String {
        if gerrit {
            return GerritHost::source(&folder.gerrit());
        }
        let root = toml::Value::String(folder.git().display().to_string());
        format!("name = \"local\"\nkind = \"git\"\nroot = {root}\nlook_every_s = 1")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use toci_core::event::SourceName;

    #[test]
    fn the_layout_fits_both() {
        for (gerrit, name) in [(false, "local"), (true, "gerrit")] {
            let text = Forge::layout(toci_demo::LAYOUT, gerrit);
            let source = SourceName::new(name).unwrap();
            let read = toci_wire::layout::read("layout.yaml", &text, &source);
            assert!(read.errors.is_empty(), "{:?}", read.errors);
            assert!(text.contains(&format!("{name}:")));
        }
    }

    #[test]
    fn the_source_is_toml_whatever_the_folder_is_called() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = Folder::open(&scratch.path().join("a \"b\"")).unwrap();
        for (gerrit, kind) in [(false, "git"), (true, "gerrit")] {
            let parsed: toml::Table = Forge::source(&folder, gerrit).parse().unwrap();
            assert_eq!(parsed["kind"].as_str(), Some(kind));
        }
    }
}
