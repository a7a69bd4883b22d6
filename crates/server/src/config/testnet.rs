//! `[testnet]`: the cloud's network that TE hosts and seeds hang on.

use crate::testnet::{TESTNET_LOOK_PERIOD, TestnetConfig};
use serde::Deserialize;
use std::time::Duration;
use toci_wire::settings::Wrong;

/// Whose ports are, unless configured otherwise.
const OWNER_DEFAULT: &str = "toci";

/// `[testnet]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestnetFile {
    cloud: Option<String>,
    region: Option<String>,
    network: String,
    owner: Option<String>,
    security_groups: Option<Vec<String>>,
    look_every_s: Option<u64>,
}

pub(super) fn filled_in(file: TestnetFile) -> Result<TestnetConfig, Wrong> {
    let owner = file.owner.unwrap_or_else(|| OWNER_DEFAULT.to_owned());
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if owner.is_empty() || owner.len() > 64 || !owner.chars().all(word) {
        return Err(Wrong::at(
            "owner",
            "it becomes part of a mark: use 1 to 64 of a-z A-Z 0-9 . _ -",
        ));
    }
    if file.network.is_empty() {
        return Err(Wrong::at("network", "it is empty: name the test network"));
    }
    let period = file.look_every_s.map_or(TESTNET_LOOK_PERIOD, Duration::from_secs);
    if period.is_zero() {
        return Err(Wrong::at("look_every_s", "it is 0: use at least 1"));
    }
    let (cloud, region, network) = (file.cloud, file.region, file.network);
    let security_groups = file.security_groups;
    Ok(TestnetConfig { cloud, region, network, owner, security_groups, period })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<TestnetConfig, String> {
        let file = toml::from_str(text).map_err(|e| e.to_string())?;
        filled_in(file).map_err(|wrong| wrong.to_string())
    }

    #[test]
    fn what_is_left_out_is_filled_in_and_what_is_wrong_refused() {
        let config = read("cloud = 'hp1'\nnetwork = 'test'").unwrap();
        assert_eq!((config.owner.as_str(), config.period), ("toci", TESTNET_LOOK_PERIOD));
        for (bad, why) in [
            ("cloud = 'x'", "missing field `network`"),
            ("network = ''", "network: it is empty"),
            ("network = 'n'\nowner = 'a:b'", "owner: it becomes part of a mark"),
            ("network = 'n'\nlook_every_s = 0", "look_every_s: it is 0"),
        ] {
            let error = read(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
