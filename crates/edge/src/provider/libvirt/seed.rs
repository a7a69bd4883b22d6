//! The disk with a machine's keys. It is both a NoCloud seed for cloud-init and plain files in `toci/` for images that
//! have a few lines of shell instead (docs/nodes.md tells what they have to do).

use crate::provider::ProviderError;
use crate::provider::boot::{Given, user_data};
use crate::provider::keys::small;
use std::path::{Path, PathBuf};

/// The files of the disk.
pub(super) fn files(seed: &Given<'_>) -> Vec<(&'static str, String)> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::keys::{KeyPair, key_pair};

    #[test]
    fn the_files_say_who_may_come_in_and_who_the_machine_is() {
        let host_key = KeyPair { private: "PRIVATE\n".into(), public: "ssh-ed25519 HOST".into() };
        let seed = Given {
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
