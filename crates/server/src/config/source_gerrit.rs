//! `[[source]]` of kind `gerrit`.

use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;
use toci_core::chain::Chain;
use toci_edge::http::{Http, Trust, Url, secret_in};
use toci_edge::source::gerrit::{GerritConfig, GerritHttp, GerritSsh, Transport};
use toci_wire::settings::Wrong;

/// How often a Gerrit is looked at that cannot stream.
const LOOK_EVERY_S: u64 = 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GerritFile {
    pub(super) name: String,
    #[serde(default)]
    transport: Word,
    ssh: Option<String>,
    ssh_key_file: Option<PathBuf>,
    known_hosts_file: Option<PathBuf>,
    http: Option<String>,
    http_user: Option<String>,
    http_password_file: Option<PathBuf>,
    http_ca_file: Option<PathBuf>,
    look_every_s: Option<u64>,
    #[serde(default)]
    votes_as_flags: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    Ssh,
    Rest,
}

pub(super) fn filled_in(mut file: GerritFile) -> Result<GerritConfig, Wrong> {
    let name = super::gate::source_name(std::mem::take(&mut file.name))?;
    let votes_as_flags = file.votes_as_flags;
    let transport = transport(file)?;
    Ok(GerritConfig { name, transport, votes_as_flags })
}

fn transport(file: GerritFile) -> Result<Transport, Wrong> {
    let credentials = match (&file.http_user, &file.http_password_file) {
        (Some(user), Some(path)) => {
            let secret = secret_in(path);
            let wrong =
                |e: &dyn std::error::Error| Wrong::at("http_password_file", Chain(e).to_string());
            Some((user.clone(), secret.map_err(|e| wrong(&e))?))
        }
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err("give both http_user and http_password_file, or neither".into());
        }
    };
    let http = match &file.http {
        Some(url) => {
            let url = Url::parse(url).map_err(|e| Wrong::at("http", e.to_string()))?;
            let trust = file.http_ca_file.map_or(Trust::System, Trust::File);
            let client = Http::new(&trust);
            let client = client.map_err(|e| Wrong::at("http_ca_file", Chain(&e).to_string()))?;
            Some(GerritHttp { url, client, credentials })
        }
        None if credentials.is_some() => {
            return Err(Wrong::at("http_user", "it is of no use without `http`"));
        }
        None => None,
    };
    match file.transport {
        Word::Rest => {
            let http = http.ok_or("transport = \"rest\" needs `http`")?;
            if http.credentials.is_none() {
                return Err("transport = \"rest\" needs http_user and http_password_file: \
                            nobody may vote without"
                    .into());
            }
            let every = file.look_every_s.unwrap_or(LOOK_EVERY_S);
            if every == 0 {
                return Err(Wrong::at("look_every_s", "it is 0: use at least 1"));
            }
            Ok(Transport::Rest(http, Duration::from_secs(every)))
        }
        Word::Ssh if file.look_every_s.is_some() => {
            let why = "it is for transport = \"rest\": over SSH Gerrit streams";
            Err(Wrong::at("look_every_s", why))
        }
        Word::Ssh => match (file.ssh, file.ssh_key_file, file.known_hosts_file) {
            (Some(ssh), Some(key), Some(known_hosts)) => {
                let ssh = GerritSsh::parse(&ssh, key, known_hosts);
                Ok(Transport::Ssh(ssh.map_err(|why| Wrong::at("ssh", why))?, http))
            }
            _ => Err("give ssh, ssh_key_file and known_hosts_file, or transport = \"rest\"".into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "name = \"gerrit\"\nssh = \"jenkins@review.example.org\"\nssh_key_file = \"/k\"\nknown_hosts_file = \"/h\"\n";

    fn read(more: &str) -> Result<GerritConfig, String> {
        let file: GerritFile =
            toml::from_str(&format!("{PLAIN}{more}")).map_err(|e| e.message().to_owned())?;
        filled_in(file).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn a_gerrit_is_read() {
        let config = read("").unwrap();
        let Transport::Ssh(ssh, http) = &config.transport else { panic!("{config:?}") };
        assert_eq!((ssh.user.as_str(), ssh.port), ("jenkins", 29418));
        assert!(http.is_none() && !config.votes_as_flags);
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
        let config = read(&format!("{http}transport = \"rest\"\n")).unwrap();
        let Transport::Rest(_, every) = &config.transport else { panic!("{config:?}") };
        assert_eq!(every.as_secs(), LOOK_EVERY_S);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, expected) in [
            ("ssh_port = 1", "unknown field `ssh_port`"),
            ("transport = \"rest\"", "needs `http`"),
            ("transport = \"rest\"\nhttp = \"http://h\"", "needs http_user"),
            ("transport = \"post\"", "unknown variant `post`"),
            ("look_every_s = 5", "over SSH Gerrit streams"),
            ("http = \"review\"", "http: `review` is not an address"),
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
