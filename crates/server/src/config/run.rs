//! `[run]` and `[[secret]]`.

use crate::tasks::run::HEAD_MAX_BYTES;
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_core::layout::Pattern;
use toci_wire::settings::Wrong;

/// Settings of the run stage.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// A folder for each run.
    pub folder: PathBuf,
    /// Where repositories are checked out on a node.
    pub base: String,
    /// WORKSPACE on a node.
    pub workspace: String,
    /// Below it lie copies of repositories on a node, by their projects' names.
    pub git_cache: String,
    /// The branch that every repository has.
    pub default_branch: String,
    /// Between TERM and KILL.
    pub grace: Duration,
    /// How long the console of a run that is over stays at hand.
    pub keep: Duration,
    /// Where people reach the API, without a slash at the end.
    pub url: String,
    /// Bytes that are kept from the start of a console; usually [`crate::tasks::run::HEAD_MAX_BYTES`].
    pub console_head_bytes: u64,
    /// Secrets that jobs may have.
    pub secrets: Vec<SecretConfig>,
}

/// A secret.
#[derive(Clone, Debug)]
pub struct SecretConfig {
    /// What jobs call it.
    pub name: String,
    /// Its value lies there; a line feed at the end does not count.
    pub file: PathBuf,
    /// Projects whose jobs may have it.
    pub projects: Vec<Pattern>,
}

/// `[run]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RunFile {
    base: Option<String>,
    workspace: Option<String>,
    git_cache: Option<String>,
    default_branch: Option<String>,
    grace_s: Option<u64>,
    keep_hours: Option<u64>,
    url: Option<String>,
}

/// `[[secret]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretFile {
    name: String,
    file: PathBuf,
    projects: Vec<String>,
}

/// Fills in what is not said. `url` is where the API listens.
pub(super) fn filled_in(
    state: &Path,
    url: &str,
    file: RunFile,
    secrets: Vec<SecretFile>,
) -> Result<RunConfig, Wrong> {
    let absolute = |name: &str, given: Option<String>, usual: &str| {
        let path = given.unwrap_or_else(|| usual.to_owned());
        let path = path.trim_end_matches('/').to_owned();
        if path.starts_with('/') {
            Ok(path)
        } else {
            let why = format!("`{path}` must be a folder that begins with a slash");
            Err(Wrong::at(name, why).below("run"))
        }
    };
    let mut known: Vec<SecretConfig> = Vec::new();
    for (number, secret) in secrets.into_iter().enumerate() {
        let wrong = |key: &str, why: &str| Wrong::at(key, why).entry("secret", number);
        if known.iter().any(|k| k.name == secret.name) {
            return Err(wrong("name", "another secret has this name"));
        }
        if secret.projects.is_empty() {
            return Err(wrong("projects", "it is empty, so no job could have it"));
        }
        let patterns = secret.projects.iter().map(Pattern::new);
        let projects = patterns.collect::<Result<_, _>>();
        let projects = projects.map_err(|e| wrong("projects", &e.to_string()))?;
        let path = if secret.file.is_absolute() { secret.file } else { state.join(secret.file) };
        known.push(SecretConfig { name: secret.name, file: path, projects });
    }
    Ok(RunConfig {
        folder: state.join("runs"),
        base: absolute("base", file.base, "/opt/stack/new")?,
        workspace: absolute("workspace", file.workspace, "/home/toci/workspace")?,
        git_cache: absolute("git_cache", file.git_cache, "/opt/git")?,
        default_branch: file.default_branch.unwrap_or_else(|| "master".to_owned()),
        grace: Duration::from_secs(file.grace_s.unwrap_or(10)),
        keep: Duration::from_secs(3600 * file.keep_hours.unwrap_or(24)),
        url: file.url.unwrap_or_else(|| url.to_owned()).trim_end_matches('/').to_owned(),
        console_head_bytes: HEAD_MAX_BYTES,
        secrets: known,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(text: &str) -> Result<RunConfig, String> {
        #[derive(Deserialize)]
        struct File {
            #[serde(default)]
            run: RunFile,
            #[serde(default)]
            secret: Vec<SecretFile>,
        }
        let file: File = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        let filled = filled_in(Path::new("/s"), "http://h:1/", file.run, file.secret);
        filled.map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn defaults_and_secrets() {
        let config = fill("[[secret]]\nname=\"k\"\nfile=\"k\"\nprojects=[\"^org/\"]").unwrap();
        assert_eq!((config.url.as_str(), config.base.as_str()), ("http://h:1", "/opt/stack/new"));
        assert_eq!(config.secrets[0].file, Path::new("/s/k"));
        assert!(config.secrets[0].projects[0].matches("org/x"));
    }

    #[test]
    fn what_cannot_be_is_told() {
        for (text, expected) in [
            ("[run]\nbase = \"x\"", "run.base: `x` must be"),
            ("[[secret]]\nname=\"k\"\nfile=\"k\"\nprojects=[]", "secret[0].projects: it is empty"),
            ("[[secret]]\nname=\"k\"\nfile=\"k\"\nprojects=[\"(\"]", "secret[0].projects: "),
            ("[run]\nbas = 1", "unknown field `bas`"),
        ] {
            let error = fill(text).expect_err(text);
            assert!(error.starts_with(expected), "{text:?} gave {error:?}");
        }
    }
}
