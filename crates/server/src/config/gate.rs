//! `[layout]`, `[[source]]`, `[merger]`: the gate. Without `[layout]` the server has none.

use super::source_gerrit::{self, GerritFile};
use super::source_github::{self, GithubFile};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_core::event::{ProjectName, SourceName};
use toci_edge::source::gerrit::GerritConfig;
use toci_edge::source::git::{GitConfig, Place};
use toci_edge::source::github::GithubConfig;
use toci_wire::settings::{SettingsError, SettingsText, Wrong};

/// How often a plain git source is looked at when nobody pokes it.
const LOOK_EVERY_S: u64 = 5;
/// Whose name stands in merges and notes.
const IDENTITY: (&str, &str) = ("toci", "toci@localhost");

/// Settings of the gate.
#[derive(Clone, Debug)]
pub struct GateConfig {
    /// The layout.
    pub layout: PathBuf,
    /// Where changes come from; the first one is the default.
    pub sources: Vec<SourceConfig>,
    /// Mirrors and merges.
    pub merger: MergerConfig,
    /// Where people see pipelines, for the report of a start.
    pub status_url: Option<String>,
}

/// Which layout is read, and with which sources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutSettings {
    /// The layout.
    pub file: PathBuf,
    /// What it calls where changes come from; the first one is the default. There is one at least.
    pub sources: Vec<SourceName>,
}

/// Settings of one source.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// Plain git.
    Git(GitConfig),
    /// Gerrit.
    Gerrit(GerritConfig),
    /// GitHub.
    Github(GithubConfig),
}

/// Settings of the merger.
#[derive(Clone, Debug)]
pub struct MergerConfig {
    /// Where the mirrors lie.
    pub folder: PathBuf,
    /// What jobs get as ZUUL_URL; the API's first address and `/p` when it is not set.
    pub url: Option<String>,
    /// Name and address of the committer.
    pub identity: (String, String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LayoutFile {
    file: PathBuf,
    status_url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct MergerFile {
    folder: Option<PathBuf>,
    url: Option<String>,
    name: Option<String>,
    email: Option<String>,
}

#[derive(Debug)]
pub(super) enum SourceFile {
    Gerrit(GerritFile),
    Github(GithubFile),
    Git(GitFile),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GitFile {
    name: String,
    root: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    projects: Vec<String>,
    look_every_s: Option<u64>,
    user: Option<String>,
    email: Option<String>,
    ssh_key_file: Option<PathBuf>,
    known_hosts_file: Option<PathBuf>,
}

/// Reads every `[[source]]` as what its `kind` says.
pub(super) fn sources(text: &SettingsText<'_>) -> Result<Vec<SourceFile>, SettingsError> {
    let read = text.entries("source").into_iter().map(|mut entry| {
        match entry.take_word("kind", &["gerrit", "git", "github"])? {
            "gerrit" => entry.read().map(SourceFile::Gerrit),
            "github" => entry.read().map(SourceFile::Github),
            _ => entry.read().map(SourceFile::Git),
        }
    });
    read.collect()
}

pub(super) fn filled_in(
    state: &Path,
    layout: Option<LayoutFile>,
    sources: Vec<SourceFile>,
    merger: MergerFile,
) -> Result<Option<GateConfig>, Wrong> {
    let Some(layout) = layout else {
        return if sources.is_empty() {
            Ok(None)
        } else {
            Err(Wrong::at("layout", "it is missing, and there is a [[source]]: name its `file`"))
        };
    };
    if sources.is_empty() {
        return Err(Wrong::at("layout", "it needs a [[source]]: where changes come from"));
    }
    names_of(&sources)?;
    let read = sources.into_iter().enumerate();
    let read = read.map(|(number, file)| source(file).map_err(|w| w.entry("source", number)));
    let sources = read.collect::<Result<Vec<_>, _>>()?;
    let (name, email) = IDENTITY;
    Ok(Some(GateConfig {
        layout: layout.file,
        sources,
        merger: MergerConfig {
            // An absolute folder replaces the state folder.
            folder: state.join(merger.folder.unwrap_or_else(|| "mirrors".into())),
            url: merger.url,
            identity: (
                merger.name.unwrap_or_else(|| name.to_owned()),
                merger.email.unwrap_or_else(|| email.to_owned()),
            ),
        },
        status_url: layout.status_url,
    }))
}

/// What a layout is read with, without what only a server has: keys and passwords.
pub(super) fn layout_settings(
    layout: Option<LayoutFile>,
    sources: &[SourceFile],
) -> Result<Option<LayoutSettings>, Wrong> {
    let Some(layout) = layout else { return Ok(None) };
    let sources = names_of(sources)?;
    if sources.is_empty() {
        return Err(Wrong::at("layout", "it needs a [[source]]: where changes come from"));
    }
    Ok(Some(LayoutSettings { file: layout.file, sources }))
}

/// The names of the sources, in their order.
fn names_of(sources: &[SourceFile]) -> Result<Vec<SourceName>, Wrong> {
    let mut names = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        let name = match source {
            SourceFile::Gerrit(file) => &file.name,
            SourceFile::Github(file) => &file.name,
            SourceFile::Git(file) => &file.name,
        };
        let name = source_name(name.clone()).and_then(|name| match names.contains(&name) {
            false => Ok(name),
            true => Err(Wrong::at("name", "another source has this name")),
        });
        names.push(name.map_err(|wrong| wrong.entry("source", number))?);
    }
    Ok(names)
}

impl SourceConfig {
    /// What layouts call it.
    #[must_use]
    pub fn name(&self) -> &SourceName {
        match self {
            SourceConfig::Git(config) => &config.name,
            SourceConfig::Gerrit(config) => &config.name,
            SourceConfig::Github(config) => &config.name,
        }
    }
}

fn source(file: SourceFile) -> Result<SourceConfig, Wrong> {
    match file {
        SourceFile::Gerrit(file) => source_gerrit::filled_in(file).map(SourceConfig::Gerrit),
        SourceFile::Github(file) => source_github::filled_in(file).map(SourceConfig::Github),
        SourceFile::Git(file) => git(file).map(SourceConfig::Git),
    }
}

fn git(file: GitFile) -> Result<GitConfig, Wrong> {
    let name = source_name(file.name)?;
    let place = match (file.root, file.url) {
        (Some(root), None) if root.is_absolute() => Place::Root(root),
        (Some(root), None) => {
            return Err(Wrong::at("root", format!("`{}` is not absolute", root.display())));
        }
        (None, Some(url)) => {
            let projects = file.projects.into_iter().map(ProjectName::new);
            let projects = projects.collect::<Result<Vec<_>, _>>();
            Place::Url {
                url,
                projects: projects.map_err(|e| Wrong::at("projects", e.to_string()))?,
            }
        }
        (None, None) | (Some(_), Some(_)) => {
            return Err("give `root` or `url`, one of them".into());
        }
    };
    let every = file.look_every_s.unwrap_or(LOOK_EVERY_S);
    if every == 0 {
        return Err(Wrong::at("look_every_s", "it is 0: use at least 1"));
    }
    let (key, known_hosts) = (file.ssh_key_file.as_deref(), file.known_hosts_file.as_deref());
    Ok(GitConfig {
        name,
        place,
        every: Duration::from_secs(every),
        user: file.user.unwrap_or_else(|| IDENTITY.0.to_owned()),
        email: file.email.unwrap_or_else(|| IDENTITY.1.to_owned()),
        environment: ssh_environment(key, known_hosts),
    })
}

pub(super) fn source_name(name: String) -> Result<SourceName, Wrong> {
    SourceName::new(name).map_err(|e| Wrong::at("name", e.to_string()))
}

/// git's way to OpenSSH; who gives neither has it as the server's user has it.
fn ssh_environment(key: Option<&Path>, known_hosts: Option<&Path>) -> Vec<(String, String)> {
    if key.is_none() && known_hosts.is_none() {
        return Vec::new();
    }
    toci_edge::ssh::git_environment(key, known_hosts)
}
