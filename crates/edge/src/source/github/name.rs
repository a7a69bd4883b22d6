//! Names: what a change's number means, and what stands after `Depends-On:`.

use super::config::GithubConfig;
use toci_core::event::ProjectName;

/// Pull requests of one repository at most. With several repositories a change's number is this times the
/// repository's id at GitHub, and the pull request's number.
pub(super) const PULLS_MAX: u64 = 1_000_000;

/// A pull request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Pull {
    pub(super) project: ProjectName,
    pub(super) number: u64,
}

/// A pull request that a footer names: `https://github.com/owner/name/pull/5`, `owner/name#5`, or `#5` and `5` of the
/// repository it stands in.
pub(super) fn named(
    config: &GithubConfig,
    footer: &str,
    here: Option<&ProjectName>,
) -> Option<Pull> {
    let footer = footer.trim();
    if let Some(rest) = footer.strip_prefix(config.web.join("/").to_string().as_str()) {
        let mut parts = rest.split(['/', '?', '#']);
        let (owner, name) = (parts.next()?, parts.next()?);
        if parts.next()? != "pull" {
            return None;
        }
        return pull(config, &format!("{owner}/{name}"), parts.next()?);
    }
    match footer.split_once('#') {
        Some(("", number)) => pull(config, here?.as_str(), number),
        Some((project, number)) => pull(config, project, number),
        None => pull(config, here?.as_str(), footer),
    }
}

fn pull(config: &GithubConfig, project: &str, number: &str) -> Option<Pull> {
    let number = number.parse().ok().filter(|n| (1..PULLS_MAX).contains(n))?;
    // GitHub does not tell upper and lower case apart.
    let known = config.projects.iter().find(|p| p.as_str().eq_ignore_ascii_case(project))?;
    Some(Pull { project: known.clone(), number })
}
