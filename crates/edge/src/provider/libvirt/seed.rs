//! The disk with a machine's keys. It is both a NoCloud seed for cloud-init and plain files in `toci/` for images that
//! have a few lines of shell instead (docs/nodes.md tells what they have to do).

use crate::program::Call;
use crate::provider::ProviderError;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time for one of the small programs here.
const SMALL_LIMIT: Duration = Duration::from_secs(60);
/// Where a machine leaves its marker when it has come up.
pub(super) const MARKER_FILE: &str = "/run/toci/boot-marker";

/// A key pair of SSH, as text.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct KeyPair {
    pub(super) private: String,
    /// Algorithm and key, without a comment.
    pub(super) public: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

/// What a machine is told.
#[derive(Clone, Debug)]
pub(super) struct Seed<'a> {
    pub(super) node: &'a str,
    /// Who commands run as.
    pub(super) user: &'a str,
    /// Who may do so.
    pub(super) authorized_key: &'a str,
    pub(super) host_key: &'a KeyPair,
    /// What it leaves in [`MARKER_FILE`] once it has come up.
    pub(super) marker: &'a str,
}

/// The files of the disk.
pub(super) fn files(seed: &Seed<'_>) -> Vec<(&'static str, String)> {
    let line = |text: &str| format!("{text}\n");
    let meta = serde_json::json!({"instance-id": seed.marker, "local-hostname": seed.node});
    vec![
        ("meta-data", line(&meta.to_string())),
        ("user-data", user_data(seed)),
        ("toci/hostname", line(seed.node)),
        ("toci/user", line(seed.user)),
        ("toci/authorized_keys", line(seed.authorized_key)),
        ("toci/host_key", seed.host_key.private.clone()),
        ("toci/host_key.pub", line(&seed.host_key.public)),
        ("toci/marker", line(seed.marker)),
    ]
}

/// For cloud-init. JSON is YAML, and needs no thoughts about quotes.
fn user_data(seed: &Seed<'_>) -> String {
    let told = format!(
        "mkdir -p /run/toci && echo {} >{MARKER_FILE} && echo toci-node: address $(hostname -I | cut -d' ' -f1) >/dev/console",
        seed.marker
    );
    let keys = [seed.authorized_key];
    let config = serde_json::json!({
        "ssh_deletekeys": true,
        "ssh_keys": {"ed25519_private": seed.host_key.private, "ed25519_public": seed.host_key.public},
        "disable_root": seed.user != "root",
        "users": [{
            "name": seed.user,
            "shell": "/bin/bash",
            "sudo": "ALL=(ALL) NOPASSWD:ALL",
            "ssh_authorized_keys": keys,
        }],
        "runcmd": [["sh", "-c", told]],
    });
    format!("#cloud-config\n{config}\n")
}

/// Writes the disk: a floppy's file system, by mtools, without mounting anything.
pub(super) async fn write(
    files: &[(&'static str, String)],
    folder: &Path,
) -> Result<PathBuf, ProviderError> {
    let (content, image) = (folder.join("seed"), folder.join("seed.img"));
    let here = |e: std::io::Error| ProviderError::new("write a machine's seed", &e);
    // What an attempt before left.
    for old in [&content, &image] {
        let _ = std::fs::remove_dir_all(old).or_else(|_| std::fs::remove_file(old));
    }
    std::fs::create_dir_all(content.join("toci")).map_err(here)?;
    for (name, text) in files {
        std::fs::write(content.join(name), text).map_err(here)?;
    }
    let disk = image.display().to_string();
    small("mformat", &["-C", "-f", "1440", "-v", "CIDATA", "-i", &disk, "::"]).await?;
    let path = |name: &str| content.join(name).display().to_string();
    let (meta, user, ours) = (path("meta-data"), path("user-data"), path("toci"));
    small("mcopy", &["-s", "-i", &disk, &meta, &user, &ours, "::"]).await?;
    std::fs::remove_dir_all(&content).map_err(here)?;
    Ok(image)
}

/// Makes a key pair.
pub(super) async fn key_pair(folder: &Path) -> Result<KeyPair, ProviderError> {
    let file = folder.join("new_key");
    let public = file.with_extension("pub");
    for old in [&file, &public] {
        // Mostly there is none.
        let _ = std::fs::remove_file(old);
    }
    let name = file.display().to_string();
    small("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", &name]).await?;
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|e| ProviderError::new(format!("read {}", path.display()), &e))
    };
    let pair = KeyPair { private: read(&file)?, public: read(&public)?.trim().to_owned() };
    for done in [&file, &public] {
        std::fs::remove_file(done).map_err(|e| ProviderError::new("remove a key", &e))?;
    }
    Ok(pair)
}

/// The public key of a private one.
pub(super) async fn public_of(key: &Path) -> Result<String, ProviderError> {
    let name = key.display().to_string();
    let said = small("ssh-keygen", &["-y", "-f", &name]).await?;
    Ok(said.trim().to_owned())
}

async fn small(program: &str, arguments: &[&str]) -> Result<String, ProviderError> {
    let ended = Call::new(program, SMALL_LIMIT)
        .args(arguments)
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("MTOOLSRC", "/dev/null")
        .run(b"")
        .await
        .map_err(|e| ProviderError::new(format!("run {program}"), &e))?;
    if ended.is_well() {
        return Ok(ended.text());
    }
    Err(ProviderError::said(format!("{program} {}", arguments.join(" ")), ended.complaint))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_say_who_may_come_in_and_who_the_machine_is() {
        let host_key = KeyPair { private: "PRIVATE\n".into(), public: "ssh-ed25519 HOST".into() };
        let seed = Seed {
            node: "debian-vms-1",
            user: "ci",
            authorized_key: "ssh-ed25519 USER",
            host_key: &host_key,
            marker: "0123",
        };
        let files = files(&seed);
        let file = |name: &str| &files.iter().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(file("toci/marker"), "0123\n");
        assert_eq!(file("toci/host_key"), "PRIVATE\n");
        let user_data = file("user-data").strip_prefix("#cloud-config\n").unwrap();
        let config: serde_json::Value = serde_json::from_str(user_data).unwrap();
        assert_eq!(config["ssh_keys"]["ed25519_private"], "PRIVATE\n");
        assert_eq!(config["users"][0]["ssh_authorized_keys"][0], "ssh-ed25519 USER");
        assert_eq!(config["disable_root"], true);
        let meta: serde_json::Value = serde_json::from_str(file("meta-data")).unwrap();
        assert_eq!(meta["local-hostname"], "debian-vms-1");
        assert!(!format!("{seed:?}").contains("PRIVATE"), "{seed:?}");
    }

    #[tokio::test]
    async fn the_disk_has_them_and_only_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let pair = key_pair(folder.path()).await.unwrap();
        assert!(pair.public.starts_with("ssh-ed25519 ") && pair.private.contains("PRIVATE KEY"));
        let image = write(
            &[("meta-data", "m".into()), ("user-data", "u".into()), ("toci/x", "y".into())],
            folder.path(),
        )
        .await
        .unwrap();
        let disk = image.display().to_string();
        let said = small("mcopy", &["-i", &disk, "::toci/x", "-"]).await.unwrap();
        assert_eq!(said, "y");
        let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }
}
