//! The configuration of one host, from a text for many.

use crate::error::{CliError, Result};
use std::path::Path;

/// Where a host keeps its state when its configuration says nothing.
const STATE: &str = "/var/lib/toci-host";

/// A configuration as it goes to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostConfig {
    pub(super) text: String,
    pub(super) state: String,
}

/// Reads the file and fills it in.
pub(super) fn read(path: &Path, host: &str, set: &[String]) -> Result<HostConfig> {
    let text = std::fs::read_to_string(path).map_err(|e| {
        CliError::usage(
            format!("read {}: {e}", path.display()),
            "--config wants the host's toci-host.toml; docs/te-host.md shows one",
        )
    })?;
    fill_in(&text, host, set)
        .map_err(|why| CliError::usage(format!("{}: {why}", path.display()), ""))
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
    Ok(HostConfig { state: word("state").unwrap_or(STATE).to_owned(), text })
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
