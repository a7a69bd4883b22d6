//! What the script of `toci host deploy` says of a machine: lines of a key and its value; texts are in hexadecimal.

use super::difference::differences;
use std::collections::BTreeMap;
use toci_core::deploy::{ConfigState, Found, Services, Standing, Version};

/// Longest text that a machine may say of itself.
pub const FACTS_MAX_BYTES: usize = 1 << 20;

/// Why a machine's words cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFacts {
    /// Too long.
    #[error("it says more than {FACTS_MAX_BYTES} bytes of itself")]
    TooLong,
    /// A fact is not there or not what it should be.
    #[error("it does not say its {0}")]
    Missing(&'static str),
}

/// Reads what a machine says of itself, compared with the configuration that it should have (`None`: its own).
///
/// # Errors
/// What is missing.
pub fn found(text: &str, config: Option<&str>) -> Result<Found, BadFacts> {
    if text.len() > FACTS_MAX_BYTES {
        return Err(BadFacts::TooLong);
    }
    let mut facts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in text.lines() {
        let (key, value) = line.split_once(' ').unwrap_or((line, ""));
        facts.entry(key).or_default().push(value.trim());
    }
    let word = |key: &'static str| {
        let value = facts.get(key).and_then(|values| values.first());
        value.copied().ok_or(BadFacts::Missing(key))
    };
    let version = |key: &str| facts.get(key).and_then(|v| Version::named(v.first()?));
    let text = |key: &str| facts.get(key).and_then(|values| text_of(values.first()?));
    let number = |key| word(key)?.parse().map_err(|_| BadFacts::Missing(key));
    Ok(Found {
        distribution: word("distribution")?.to_owned(),
        release: word("release")?.to_owned(),
        arch: word("arch")?.to_owned(),
        is_root: word("uid")? == "0",
        memory_mib: number("memory_mib")?,
        cpus: word("cpus")?.parse().map_err(|_| BadFacts::Missing("cpus"))?,
        state: word("state")?.to_owned(),
        disk_free_mib: number("disk_free_mib")?,
        services: match word("services")? {
            "systemd" => Services::Systemd,
            _ => Services::None,
        },
        missing_packages: list(&facts, "missing").map(str::to_owned).collect(),
        installed: list(&facts, "installed").filter_map(Version::named).collect(),
        current: version("current"),
        previous: version("previous"),
        config: config_state(text("config").as_deref(), config),
        service: text("service"),
        has_credential: word("credential")? == "yes",
        standing: match (word("standing")?, version("well")) {
            ("foreign", _) => Standing::Foreign,
            ("running", Some(version)) => Standing::Well(version),
            ("running", None) => Standing::Unwell,
            _ => Standing::Stopped,
        },
    })
}

fn list<'a>(facts: &BTreeMap<&str, Vec<&'a str>>, key: &str) -> impl Iterator<Item = &'a str> {
    facts.get(key).cloned().unwrap_or_default().into_iter()
}

fn config_state(is: Option<&str>, should: Option<&str>) -> ConfigState {
    match (is, should) {
        (None, _) => ConfigState::Missing,
        (Some(_), None) => ConfigState::Same,
        (Some(is), Some(should)) if is == should => ConfigState::Same,
        (Some(is), Some(should)) => {
            // What is there and no TOML is replaced as if it were not there.
            differences(is, should).map_or(ConfigState::Missing, ConfigState::Differs)
        }
    }
}

/// Text from its bytes in hexadecimal.
fn text_of(hex: &str) -> Option<String> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some((digit(*high)? << 4) | digit(*low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(byte).collect();
    String::from_utf8(bytes?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "distribution debian\nrelease 12\narch x86_64\nuid 0\nmemory_mib 24000\ncpus 2\n\
        state /var/lib/toci-host\ndisk_free_mib 5000\nservices none\nmissing ethtool\nmissing procps\ninstalled 1.0.0-aa\n\
        current 1.0.0-aa\nprevious ..\ncredential yes\nstanding running\nwell 1.0.0-aa\nconfig 613d310a\n";

    #[test]
    fn what_a_machine_says_is_read() {
        let f = found(SAID, Some("a=2\n")).unwrap();
        assert_eq!(f.missing_packages, ["ethtool", "procps"]);
        assert_eq!(f.current, Version::named("1.0.0-aa"));
        assert_eq!(f.previous, None);
        assert_eq!(f.standing, Standing::Well(Version::named("1.0.0-aa").unwrap()));
        let ConfigState::Differs(d) = &f.config else { panic!("{f:?}") };
        assert_eq!(d[0].key, "a");
        assert_eq!(found(SAID, Some("a=1\n")).unwrap().config, ConfigState::Same);
        assert_eq!(found(SAID, None).unwrap().config, ConfigState::Same);
        assert_eq!(f.service, None);
    }

    #[test]
    fn what_is_not_said_is_named() {
        assert_eq!(found("", None), Err(BadFacts::Missing("distribution")));
        let odd = SAID.replace("cpus 2", "cpus two");
        assert_eq!(found(&odd, None), Err(BadFacts::Missing("cpus")));
        assert_eq!(found(&"x".repeat(FACTS_MAX_BYTES + 1), None), Err(BadFacts::TooLong));
    }
}
