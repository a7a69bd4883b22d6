//! The configuration of one host, from a text for many.

use crate::error::{CliError, Result};
use std::path::{Path, PathBuf};

/// Where a host keeps its state when its configuration says nothing.
pub(super) const STATE: &str = "/var/lib/toci-host";

/// A configuration as it goes to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostConfig {
    pub(super) text: String,
    pub(super) state: String,
    /// Its address on the test network, with its prefix.
    pub(super) address: Option<String>,
}

/// A text for many hosts.
#[derive(Clone, Debug)]
pub(super) struct Template {
    path: PathBuf,
    text: String,
    /// `KEY=VALUE`.
    set: Vec<String>,
}

impl Template {
    /// Reads the file.
    pub(super) fn read(path: &Path, set: &[String]) -> Result<Template> {
        let text = std::fs::read_to_string(path).map_err(|e| {
            CliError::usage(
                format!("read {}: {e}", path.display()),
                "--config wants the host's toci-host.toml; docs/te-host.md shows one",
            )
        })?;
        Ok(Template { path: path.to_owned(), text, set: set.to_vec() })
    }

    /// Whether the cloud's address has to be put into it.
    pub(super) fn wants_address(&self) -> bool {
        let is_said = self.set.iter().any(|pair| pair.starts_with("ADDRESS="));
        self.text.contains("@ADDRESS@") && !is_said
    }

    /// The configuration of one host, with the address that the cloud has given it, if one is wanted.
    pub(super) fn fill_in(&self, host: &str, address: Option<&str>) -> Result<HostConfig> {
        let mut set = self.set.clone();
        set.extend(address.filter(|_| self.wants_address()).map(|a| format!("ADDRESS={a}")));
        fill_in(&self.text, host, &set).map_err(|why| self.wrong(&why))
    }

    /// What is wrong with it, as an error.
    pub(super) fn wrong(&self, why: &str) -> CliError {
        CliError::usage(format!("{}: {why}", self.path.display()), "")
    }
}

fn fill_in(template: &str, host: &str, set: &[String]) -> Result<HostConfig, String> {
    let mut text = template.replace("@NAME@", host);
    for pair in set {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| format!("`{pair}` is not of the form KEY=VALUE"))?;
        let place = format!("@{key}@");
        if !text.contains(&place) {
            return Err(format!("there is no {place} in it"));
        }
        text = text.replace(&place, value);
    }
    let begin = host.trim_end_matches(|c: char| c.is_ascii_digit());
    match &host[begin.len()..] {
        "" => {}
        number => text = text.replace("@NUMBER@", number),
    }
    if let Some(place) = left_over(&text) {
        return Err(format!("nothing says what @{place}@ is: give it with --set {place}=…"));
    }
    let table: toml::Table = toml::from_str(&text).map_err(|e| e.message().to_owned())?;
    let word = |key: &str| table.get(key).and_then(toml::Value::as_str);
    if word("name") != Some(host) {
        let name = word("name").unwrap_or("nothing");
        return Err(format!("its `name` is {name}, not {host}; write name = \"@NAME@\""));
    }
    if table.get("server").and_then(|s| s.get("url")).is_none() {
        return Err("it has no [server] with a url, as the host reaches it".to_owned());
    }
    let address = table.get("network").and_then(|n| n.get("address")?.as_str()).map(str::to_owned);
    Ok(HostConfig { state: word("state").unwrap_or(STATE).to_owned(), text, address })
}

/// A place that nothing was put into: capital letters, digits and `_` between two `@`.
fn left_over(text: &str) -> Option<&str> {
    let is_key = |word: &&str| {
        let fits = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        !word.is_empty() && word.chars().all(fits)
    };
    text.lines()
        .filter(|l| !l.trim_start().starts_with('#'))
        .find_map(|l| l.split('@').skip(1).find(is_key))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name = \"@NAME@\"\n# @LATER@\n[server]\nurl = \"@SERVER@\"\n";

    #[test]
    fn a_text_for_many_becomes_the_one_of_a_host() {
        let set = ["SERVER=http://s:8080".to_owned()];
        let config = fill_in(TEXT, "t1", &set).unwrap();
        assert_eq!(config.text, "name = \"t1\"\n# @LATER@\n[server]\nurl = \"http://s:8080\"\n");
        assert_eq!(config.state, "/var/lib/toci-host");
        let elsewhere = fill_in(&format!("state = \"/srv/t\"\n{TEXT}"), "t1", &set).unwrap();
        assert_eq!(elsewhere.state, "/srv/t");
    }

    #[test]
    fn hosts_of_one_text_are_told_apart_by_their_numbers() {
        let text = format!(
            "{TEXT}[network]\naddress = \"@ADDRESS@\"\nseed_addresses = \"198.18.@NUMBER@.1-198.18.@NUMBER@.9\"\n"
        );
        let mut template =
            Template { path: "te.toml".into(), text, set: vec!["SERVER=http://s".into()] };
        assert!(template.wants_address());
        let config = template.fill_in("te12", Some("198.18.0.7/16")).unwrap();
        assert_eq!(config.address.as_deref(), Some("198.18.0.7/16"));
        assert!(config.text.contains("198.18.12.1-198.18.12.9"), "{}", config.text);
        let error = template.fill_in("te", Some("198.18.0.7/16")).unwrap_err();
        assert!(error.message.contains("what @NUMBER@ is"), "{error:?}");
        assert!(template.fill_in("te12", None).unwrap_err().message.contains("@ADDRESS@"));
        // What was said counts.
        template.set.push("ADDRESS=198.18.0.8/16".into());
        assert!(!template.wants_address());
        let config = template.fill_in("te12", Some("198.18.0.7/16")).unwrap();
        assert_eq!(config.address.as_deref(), Some("198.18.0.8/16"));
    }

    #[test]
    fn what_is_not_filled_in_or_does_not_fit_is_named() {
        let no = |text: &str, set: &[&str]| {
            let set: Vec<String> = set.iter().map(ToString::to_string).collect();
            fill_in(text, "t1", &set).unwrap_err()
        };
        assert!(no(TEXT, &[]).contains("what @SERVER@ is"));
        assert!(no(TEXT, &["SERVER"]).contains("not of the form"));
        assert!(no(TEXT, &["OTHER=1"]).contains("there is no @OTHER@"));
        assert!(no("name = \"t2\"", &[]).contains("its `name` is t2, not t1"));
        assert!(no("name = \"t1\"", &[]).contains("no [server]"));
        assert!(
            no("name = ", &[]).contains("string values must be quoted"),
            "{}",
            no("name = ", &[])
        );
    }
}
