//! `[[source]]` of kind `gerrit`.

use serde::Deserialize;
use std::path::PathBuf;
use toci_edge::http::{Secret, Url};
use toci_edge::source::gerrit::{GerritConfig, GerritHttp, GerritSsh};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GerritFile {
    name: String,
    ssh: String,
    ssh_key_file: PathBuf,
    known_hosts_file: PathBuf,
    http: Option<String>,
    http_user: Option<String>,
    http_password_file: Option<PathBuf>,
    #[serde(default)]
    votes_as_flags: bool,
}

pub(super) fn filled_in(file: GerritFile) -> Result<GerritConfig, String> {
    let name = super::gate::source_name(file.name)?;
    let wrong = |why: String| format!("source {name}: {why}");
    let ssh = GerritSsh::parse(&file.ssh, file.ssh_key_file, file.known_hosts_file);
    let ssh = ssh.map_err(|why| wrong(format!("ssh: {why}")))?;
    let credentials = match (file.http_user, file.http_password_file) {
        (Some(user), Some(path)) => {
            Some((user, Secret::from_file(&path).map_err(|e| wrong(e.to_string()))?))
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(wrong("give both http_user and http_password_file, or neither".into()));
        }
    };
    let http = match file.http {
        Some(url) => {
            let url = Url::parse(&url).map_err(|e| wrong(format!("http: {e}")))?;
            Some(GerritHttp { url, credentials })
        }
        None if credentials.is_some() => {
            return Err(wrong("http_user is of no use without `http`".into()));
        }
        None => None,
    };
    Ok(GerritConfig { ssh, http, votes_as_flags: file.votes_as_flags, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "name = \"gerrit\"\nssh = \"jenkins@review.example.org\"\nssh_key_file = \"/k\"\nknown_hosts_file = \"/h\"\n";

    fn read(more: &str) -> Result<GerritConfig, String> {
        let file: GerritFile =
            toml::from_str(&format!("{PLAIN}{more}")).map_err(|e| e.message().to_owned())?;
        filled_in(file)
    }

    #[test]
    fn a_gerrit_is_read() {
        let config = read("").unwrap();
        assert_eq!((config.ssh.user.as_str(), config.ssh.port), ("jenkins", 29418));
        assert!(config.http.is_none() && !config.votes_as_flags);
        assert_eq!(config.remote().prefix, "ssh://jenkins@review.example.org:29418/");
        let folder = tempfile::tempdir().unwrap();
        let password = folder.path().join("p");
        std::fs::write(&password, "hush\n").unwrap();
        let http = format!(
            "http = \"https://review.example.org/r/\"\nhttp_user = \"jenkins\"\nhttp_password_file = \"{}\"\n",
            password.display()
        );
        let config = read(&http).unwrap();
        assert_eq!(config.remote().prefix, "https://review.example.org/r/a/");
        assert!(!format!("{config:?}").contains("hush"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, expected) in [
            ("ssh_port = 1", "unknown field `ssh_port`"),
            ("http = \"review\"", "source gerrit: http: `review` is not an address"),
            ("http_user = \"jenkins\"", "give both http_user and http_password_file"),
            ("http_user = \"jenkins\"\nhttp_password_file = \"/nowhere/p\"", "/nowhere/p"),
        ] {
            let error = read(more).unwrap_err();
            assert!(error.contains(expected), "{more}: {error}");
        }
        for ssh in ["review.example.org", "-oProxyCommand=x@h", "a@-h", "a@h:x", "a@h:0", "a b@h"] {
            let error = GerritSsh::parse(ssh, "/k".into(), "/h".into()).unwrap_err();
            assert!(error.contains("is not user@host:port"), "{ssh}: {error}");
        }
    }
}
