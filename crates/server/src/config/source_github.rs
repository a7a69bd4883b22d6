//! `[[source]]` of kind `github`.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::event::ProjectName;
use toci_edge::http::{Trust, Url, secret_in};
use toci_edge::source::github::{Auth, GithubConfig, MergeMethod};
use toci_wire::settings::Wrong;

/// GitHub itself; a GitHub Enterprise Server has `https://HOST/api/v3` and `https://HOST`.
const API: &str = "https://api.github.com";
const WEB: &str = "https://github.com";
/// How often updated pull requests are looked for: rarely when webhooks tell of them, else more often. A look costs a few
/// of the 5,000 requests an hour that GitHub grants.
const LOOK_EVERY_S: [u64; 2] = [600, 60];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GithubFile {
    pub(super) name: String,
    projects: Vec<String>,
    api: Option<String>,
    web: Option<String>,
    ca: Option<PathBuf>,
    token_file: Option<PathBuf>,
    app_id: Option<String>,
    app_key_file: Option<PathBuf>,
    installation: Option<u64>,
    webhook_secret_file: Option<PathBuf>,
    look_every_s: Option<u64>,
    merge: Option<Method>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Merge,
    Squash,
    Rebase,
}

pub(super) fn filled_in(file: GithubFile) -> Result<GithubConfig, Wrong> {
    let name = super::gate::source_name(file.name)?;
    let secret = |what: &str, path: &Path| {
        secret_in(path).map_err(|e| Wrong::at(what, Chain(&e).to_string()))
    };
    let url = |what: &str, given: Option<String>, usual: &str| {
        Url::parse(given.as_deref().unwrap_or(usual)).map_err(|e| Wrong::at(what, e.to_string()))
    };
    let project = |project: String| match project.split_once('/') {
        Some((_, rest)) if !rest.contains('/') => {
            ProjectName::new(project).map_err(|e| Wrong::from(e.to_string()))
        }
        Some(_) | None => Err(Wrong::from(format!("`{project}` is not `owner/name`"))),
    };
    let projects = file
        .projects
        .into_iter()
        .enumerate()
        .map(|(number, text)| project(text).map_err(|wrong| wrong.entry("projects", number)));
    let projects = projects.collect::<Result<Vec<_>, _>>()?;
    if projects.is_empty() {
        return Err(Wrong::at("projects", "it is empty: name the repositories, `owner/name`"));
    }
    let auth = match (file.token_file, file.app_id, file.app_key_file, file.installation) {
        (Some(token), None, None, None) => Auth::Token(secret("token_file", &token)?),
        (None, Some(id), Some(key), Some(installation)) => {
            Auth::App { id, key: secret("app_key_file", &key)?, installation }
        }
        _ => {
            return Err("give token_file, or app_id, app_key_file and installation".into());
        }
    };
    let webhook_secret = file.webhook_secret_file.map(|f| secret("webhook_secret_file", &f));
    let webhook_secret = webhook_secret.transpose()?;
    let usual = if webhook_secret.is_some() { LOOK_EVERY_S[0] } else { LOOK_EVERY_S[1] };
    let every = file.look_every_s.unwrap_or(usual);
    if every == 0 {
        return Err(Wrong::at("look_every_s", "it is 0: use at least 1"));
    }
    Ok(GithubConfig {
        api: url("api", file.api, API)?,
        web: url("web", file.web, WEB)?,
        trust: file.ca.map_or(Trust::System, Trust::File),
        projects,
        auth,
        webhook_secret,
        every: Duration::from_secs(every),
        merge: match file.merge {
            None | Some(Method::Merge) => MergeMethod::Merge,
            Some(Method::Squash) => MergeMethod::Squash,
            Some(Method::Rebase) => MergeMethod::Rebase,
        },
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<GithubConfig, String> {
        let file: GithubFile = toml::from_str(text).map_err(|e| e.message().to_owned())?;
        filled_in(file).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn settings_become_a_source_or_say_what_is_wrong() {
        let folder = tempfile::tempdir().unwrap();
        let token = folder.path().join("token");
        std::fs::write(&token, "hush\n").unwrap();
        let name = "name = \"github\"\nprojects = [\"octo/hello\"]\n";
        let whole = format!("{name}token_file = \"{}\"\n", token.display());
        let config = read(&whole).unwrap();
        assert_eq!(config.api.to_string(), "https://api.github.com/");
        assert_eq!((config.every, config.merge), (Duration::from_secs(60), MergeMethod::Merge));
        assert!(!format!("{config:?}").contains("hush"));
        let hooked = format!("{whole}webhook_secret_file = \"{}\"\n", token.display());
        assert_eq!(read(&hooked).unwrap().every, Duration::from_secs(600));
        for (text, expected) in [
            (name.to_owned(), "give token_file, or app_id"),
            (format!("{whole}app_id = \"1\"\n"), "give token_file, or app_id"),
            (whole.replace("octo/hello", "hello"), "projects[0]: `hello` is not"),
            (whole.replace("octo/hello", "a/b/c"), "projects[0]: `a/b/c` is not"),
            (whole.replace("\"octo/hello\"", ""), "projects: it is empty"),
            (format!("{whole}look_every_s = 0\n"), "look_every_s: it is 0"),
            (format!("{whole}api = \"x\"\n"), "api: `x` is not an address"),
            (format!("{whole}merge = \"x\"\n"), "unknown variant `x`, expected one of"),
            (whole.replace("token\"", "none\""), "token_file: read secret file"),
        ] {
            let error = read(&text).expect_err(&text);
            assert!(error.starts_with(expected), "{text} gave {error}");
        }
    }

    #[test]
    fn the_documented_settings_can_be_used() {
        #[derive(Deserialize)]
        struct Page {
            source: Vec<toml::Table>,
        }
        let page = include_str!("../../../../docs/github.md");
        let text = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
        let page: Page = toml::from_str(text).unwrap();
        for mut table in page.source {
            assert_eq!(table.remove("kind").unwrap().as_str(), Some("github"));
            let file: GithubFile = table.try_into().unwrap();
            assert!(filled_in(file).unwrap_err().to_string().contains("read secret file"));
        }
    }
}
