//! How a GitHub is reached.

use crate::git::Remote;
use crate::http::{Secret, Trust, Url};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::time::Duration;
use toci_core::event::{ProjectName, SourceName};

/// One GitHub, or a GitHub Enterprise Server, as it is configured.
#[derive(Clone, Debug)]
pub struct GithubConfig {
    /// What layouts call it.
    pub name: SourceName,
    /// REST, e.g. `https://api.github.com`.
    pub api: Url,
    /// Pages and fetches, e.g. `https://github.com`.
    pub web: Url,
    /// Whose certificates are believed.
    pub trust: Trust,
    /// Repositories, `owner/name`. With one of them a change's number is the pull request's.
    pub projects: Vec<ProjectName>,
    /// Who we are there.
    pub auth: Auth,
    /// Signs webhooks; without it none is taken.
    pub webhook_secret: Option<Secret>,
    /// How often updated pull requests are looked for.
    pub every: Duration,
    /// How changes are merged unless a reporter says otherwise.
    pub merge: MergeMethod,
}

/// Who we are at GitHub.
#[derive(Clone, Debug)]
pub enum Auth {
    /// A personal or machine token. Results become commit statuses.
    Token(Secret),
    /// An installed GitHub App. Results become check runs.
    App {
        /// The App's id or client id.
        id: String,
        /// Its private key, PEM.
        key: Secret,
        /// Which installation.
        installation: u64,
    },
}

/// GitHub's ways to merge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MergeMethod {
    /// A merge commit.
    Merge,
    /// One commit of all.
    Squash,
    /// The commits anew on top of the branch.
    Rebase,
}

impl MergeMethod {
    /// GitHub's word for it, which is also the flag of a reporter.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            MergeMethod::Merge => "merge",
            MergeMethod::Squash => "squash",
            MergeMethod::Rebase => "rebase",
        }
    }

    /// By its word.
    #[must_use]
    pub fn named(word: &str) -> Option<MergeMethod> {
        [MergeMethod::Merge, MergeMethod::Squash, MergeMethod::Rebase]
            .into_iter()
            .find(|method| method.word() == word)
    }
}

impl GithubConfig {
    /// Where its repositories are. A token goes along in git's environment; an App's lives too short for that, so its
    /// repositories have to be public.
    #[must_use]
    pub fn remote(&self) -> Remote {
        let environment = match &self.auth {
            Auth::Token(token) => {
                let pair = STANDARD.encode(format!("x-access-token:{}", token.reveal()));
                [
                    ("GIT_CONFIG_COUNT", "1".to_owned()),
                    ("GIT_CONFIG_KEY_0", format!("http.{}/.extraHeader", self.web.server())),
                    ("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {pair}")),
                ]
                .map(|(name, value)| (name.to_owned(), value))
                .into()
            }
            Auth::App { .. } => Vec::new(),
        };
        let prefix = self.web.join("/").to_string();
        Remote { prefix, suffix: ".git".to_owned(), environment }
    }
}
