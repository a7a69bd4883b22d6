//! How a Gerrit is reached.

use crate::git::Remote;
use crate::http::{Http, Secret, Url};
use crate::program::Call;
use crate::ssh;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::path::PathBuf;
use std::time::Duration;
use toci_core::event::SourceName;
use toci_core::shell::quoted;

/// Longest time that one call of Gerrit over SSH may take.
pub const CALL_LIMIT: Duration = Duration::from_secs(120);

/// One Gerrit, as it is configured.
#[derive(Clone, Debug)]
pub struct GerritConfig {
    /// What layouts call it.
    pub name: SourceName,
    /// How it is talked to.
    pub transport: Transport,
    /// For Gerrits before 2.8: votes as `--verified 2` instead of `--label Verified=+2`. A label must be known to
    /// All-Projects then.
    pub votes_as_flags: bool,
}

/// How a Gerrit is talked to.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Over SSH; what is fetched comes over HTTP if there is a password for it.
    Ssh(GerritSsh, Option<GerritHttp>),
    /// Over HTTP only. Nothing streams there: it is looked at so often.
    Rest(GerritHttp, Duration),
}

/// Gerrit's SSH side.
#[derive(Clone, Debug)]
pub struct GerritSsh {
    /// Who we are there.
    pub user: String,
    /// Where it is.
    pub host: String,
    /// TCP port, 29418 as a rule.
    pub port: u16,
    /// Private key.
    pub key: PathBuf,
    /// Its host key is in this file; no other one is trusted.
    pub known_hosts: PathBuf,
}

/// Gerrit's HTTP side.
#[derive(Clone, Debug)]
pub struct GerritHttp {
    /// E.g. `https://review.example.org`.
    pub url: Url,
    /// What requests are sent with.
    pub client: Http,
    /// User and HTTP password; without them only what everybody may see is seen.
    pub credentials: Option<(String, Secret)>,
}

impl GerritSsh {
    /// `user@host:port`, as `toci.toml` has it; the port may be left out.
    pub fn parse(text: &str, key: PathBuf, known_hosts: PathBuf) -> Result<GerritSsh, String> {
        let wrong = || format!("`{text}` is not user@host:port");
        let (user, rest) = text.split_once('@').ok_or_else(wrong)?;
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            Some(_) | None => (rest, 29418),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let plain = |s: &str, more: &str| {
            !s.is_empty()
                && !s.starts_with('-')
                && s.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if !plain(user, "._-+") || !plain(host, ".-_:") || port == 0 {
            return Err(wrong());
        }
        Ok(GerritSsh { user: user.to_owned(), host: host.to_owned(), port, key, known_hosts })
    }

    /// The call of a command of Gerrit, whose words are quoted here.
    #[must_use]
    pub fn call(&self, words: &[&str]) -> Call {
        let words: Vec<String> = words.iter().map(|w| quoted(w)).collect();
        Call::new("ssh", CALL_LIMIT)
            .args(ssh::options(Some(&self.key), Some(&self.known_hosts)))
            .args(["-p", &self.port.to_string(), "-l", &self.user, "--", &self.host])
            .args([format!("gerrit {}", words.join(" "))])
    }

    fn remote(&self) -> Remote {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        Remote {
            prefix: format!("ssh://{}@{host}:{}/", self.user, self.port),
            suffix: String::new(),
            environment: ssh::git_environment(Some(&self.key), Some(&self.known_hosts)),
        }
    }
}

impl GerritConfig {
    /// Where its repositories are.
    #[must_use]
    pub fn remote(&self) -> Remote {
        match &self.transport {
            Transport::Rest(http, _) => http.remote(),
            Transport::Ssh(_, Some(http)) if http.credentials.is_some() => http.remote(),
            Transport::Ssh(ssh, _) => ssh.remote(),
        }
    }

    /// Its HTTP side, if it is configured.
    pub(super) fn http(&self) -> Option<&GerritHttp> {
        match &self.transport {
            Transport::Rest(http, _) => Some(http),
            Transport::Ssh(_, http) => http.as_ref(),
        }
    }
}

impl GerritHttp {
    fn remote(&self) -> Remote {
        let base = self.url.to_string();
        let base = base.trim_end_matches('/');
        let Some((user, password)) = &self.credentials else {
            let prefix = format!("{base}/");
            return Remote { prefix, suffix: String::new(), environment: Vec::new() };
        };
        Remote {
            prefix: format!("{base}/a/"),
            suffix: String::new(),
            // In the environment, not in the arguments, which everybody on the machine can read.
            environment: [
                ("GIT_CONFIG_COUNT", "1".to_owned()),
                ("GIT_CONFIG_KEY_0", format!("http.{base}/.extraHeader")),
                ("GIT_CONFIG_VALUE_0", authorization(user, password)),
            ]
            .map(|(k, v)| (k.to_owned(), v))
            .into(),
        }
    }
}

fn authorization(user: &str, password: &Secret) -> String {
    let pair = format!("{user}:{}", password.reveal());
    format!("Authorization: Basic {}", STANDARD.encode(pair))
}
