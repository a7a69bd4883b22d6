//! What a TE host that is booted from an image gets from its cloud: its settings and the way in, as user data; keys of its
//! operators, as OpenStack's meta data.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// User data of a server that is to be a TE host, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserData {
    /// Under a name of ours, so that nothing else takes it for its own.
    pub toci_host: HostData,
}

/// What makes the server a TE host.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostData {
    /// Text of its `toci-host.toml`.
    pub config: String,
    /// The one-time token that it introduces itself with.
    pub token: String,
    /// Private SSH host key, in OpenSSH's form: of a server that has no console to tell its own one on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_host_key: Option<String>,
}

impl fmt::Debug for HostData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostData").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Public keys of OpenStack's `meta_data.json`, one a line; empty when there are none.
///
/// # Errors
/// It is no JSON of that form.
pub fn public_keys(meta_data: &str) -> Result<String, serde_json::Error> {
    #[derive(Deserialize)]
    struct MetaData {
        #[serde(default)]
        public_keys: Option<BTreeMap<String, String>>,
    }
    let meta: MetaData = serde_json::from_str(meta_data)?;
    let keys = meta.public_keys.unwrap_or_default();
    Ok(keys.values().map(|key| format!("{}\n", key.trim())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_data_comes_through_and_does_not_show_its_token() {
        let (config, token) = ("name = \"t\"\n".to_owned(), "secret".to_owned());
        let mut data = UserData { toci_host: HostData { config, token, ssh_host_key: None } };
        let text = serde_json::to_string(&data).unwrap();
        // Images of before know no key.
        assert!(!text.contains("ssh_host_key"));
        assert_eq!(serde_json::from_str::<UserData>(&text).unwrap(), data);
        data.toci_host.ssh_host_key = Some("secret\n".into());
        let text = serde_json::to_string(&data).unwrap();
        assert_eq!(serde_json::from_str::<UserData>(&text).unwrap(), data);
        assert!(!format!("{data:?}").contains("secret"));
        assert!(serde_json::from_str::<UserData>("#cloud-config").is_err());
    }

    #[test]
    fn keys_of_a_cloud_are_read() {
        let meta =
            r#"{"uuid": "x", "public_keys": {"a": "ssh-ed25519 AA a\n", "b": "ssh-rsa BB"}}"#;
        assert_eq!(public_keys(meta).unwrap(), "ssh-ed25519 AA a\nssh-rsa BB\n");
        assert_eq!(public_keys(r#"{"public_keys": null}"#).unwrap(), "");
        assert_eq!(public_keys("{}").unwrap(), "");
        assert!(public_keys("<html>").is_err());
    }
}
