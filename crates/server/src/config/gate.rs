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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "lowercase")]
pub(super) enum SourceFile {
    Gerrit(GerritFile),
    Github(GithubFile),
    Git {
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
    },
}

pub(super) fn filled_in(
    state: &Path,
    layout: Option<LayoutFile>,
    sources: Vec<SourceFile>,
    merger: MergerFile,
) -> Result<Option<GateConfig>, String> {
    let Some(layout) = layout else {
        return if sources.is_empty() {
            Ok(None)
        } else {
            Err("there is a [[source]] but no [layout]: name its `file`".to_owned())
        };
    };
    if sources.is_empty() {
        return Err("[layout] needs a [[source]]: where changes come from".to_owned());
    }
    let sources = sources.into_iter().map(source).collect::<Result<Vec<_>, _>>()?;
    let mut names: Vec<&SourceName> = sources.iter().map(SourceConfig::name).collect();
    names.sort();
    if let Some(pair) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!("two sources are named `{}`", pair[0]));
    }
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

fn source(file: SourceFile) -> Result<SourceConfig, String> {
    match file {
        SourceFile::Gerrit(file) => source_gerrit::filled_in(file).map(SourceConfig::Gerrit),
        SourceFile::Github(file) => source_github::filled_in(file).map(SourceConfig::Github),
        SourceFile::Git {
            name,
            root,
            url,
            projects,
            look_every_s,
            user,
            email,
            ssh_key_file,
            known_hosts_file,
        } => {
            let name = source_name(name)?;
            let place = match (root, url) {
                (Some(root), None) if root.is_absolute() => Place::Root(root),
                (Some(root), None) => {
                    return Err(format!(
                        "source {name}: root `{}` is not absolute",
                        root.display()
                    ));
                }
                (None, Some(url)) => {
                    let projects = projects.into_iter().map(ProjectName::new);
                    let projects = projects.collect::<Result<Vec<_>, _>>();
                    Place::Url {
                        url,
                        projects: projects.map_err(|e| format!("source {name}: {e}"))?,
                    }
                }
                (None, None) | (Some(_), Some(_)) => {
                    return Err(format!("source {name}: give `root` or `url`, one of them"));
                }
            };
            let every = look_every_s.unwrap_or(LOOK_EVERY_S);
            if every == 0 {
                return Err(format!("source {name}: look_every_s is 0: use at least 1"));
            }
            Ok(SourceConfig::Git(GitConfig {
                name,
                place,
                every: Duration::from_secs(every),
                user: user.unwrap_or_else(|| IDENTITY.0.to_owned()),
                email: email.unwrap_or_else(|| IDENTITY.1.to_owned()),
                environment: ssh_environment(ssh_key_file.as_deref(), known_hosts_file.as_deref()),
            }))
        }
    }
}

pub(super) fn source_name(name: String) -> Result<SourceName, String> {
    SourceName::new(name).map_err(|e| format!("source: {e}"))
}

/// git's way to OpenSSH; who gives neither has it as the server's user has it.
fn ssh_environment(key: Option<&Path>, known_hosts: Option<&Path>) -> Vec<(String, String)> {
    if key.is_none() && known_hosts.is_none() {
        return Vec::new();
    }
    toci_edge::ssh::git_environment(key, known_hosts)
}
