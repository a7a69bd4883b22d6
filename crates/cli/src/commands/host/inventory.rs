//! Machines by name: what `deploy` was told is remembered for `upgrade`, `rollback` and `remove`. No secrets are in it.

use crate::args::SshArgs;
use crate::error::{CliError, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toci_wire::te_host::Destination;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Inventory {
    #[serde(default)]
    host: BTreeMap<String, Entry>,
}

/// How one machine is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    ssh: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_hosts: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_key: Option<String>,
}

/// How a machine is reached: all that was said, and what is remembered.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) destination: Destination,
    pub(super) key: Option<PathBuf>,
    pub(super) known_hosts: Option<PathBuf>,
    pub(super) host_key: Option<String>,
}

fn place(named: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = named {
        return Ok(path.to_owned());
    }
    let home = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let folder = home("XDG_CONFIG_HOME").or_else(|| Some(home("HOME")?.join(".config")));
    let folder = folder.ok_or_else(|| {
        CliError::usage("neither HOME nor XDG_CONFIG_HOME is set", "name a file with --inventory")
    })?;
    Ok(folder.join("toci/te-hosts.toml"))
}

fn read(path: &Path) -> Result<Inventory> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Inventory::default()),
        Err(e) => return Err(CliError::failed(format!("read {}", path.display()), &e)),
    };
    toml::from_str(&text).map_err(|e| {
        CliError::usage(format!("{}: {}", path.display(), e.message()), "mend it, or move it away")
    })
}

fn write(path: &Path, inventory: &Inventory) -> Result<()> {
    let failed =
        |e: &dyn std::error::Error| CliError::failed(format!("write {}", path.display()), e);
    let text = toml::to_string(inventory).map_err(|e| failed(&e))?;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|e| failed(&e))?;
    }
    let part = path.with_extension("part");
    std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, path)).map_err(|e| failed(&e))
}

/// How this host's machine is reached.
pub(super) fn way(host: &str, args: &SshArgs) -> Result<Way> {
    let path = place(args.inventory.as_deref())?;
    let kept = read(&path)?.host.remove(host);
    let destination = match (&args.ssh, &kept) {
        (Some(destination), _) => destination.clone(),
        (None, Some(entry)) => entry.ssh.parse().map_err(|e: String| {
            CliError::usage(format!("{}: host.{host}.ssh: {e}", path.display()), "")
        })?,
        (None, None) => {
            return Err(CliError::usage(
                format!("{} does not know where {host} is", path.display()),
                "say so with --ssh root@ADDRESS",
            ));
        }
    };
    // What is remembered holds for that machine only.
    let kept = kept.filter(|entry| entry.ssh == destination.to_string());
    let said = args.known_hosts.is_some() || args.host_key.is_some();
    let (known_hosts, host_key) = match &kept {
        Some(entry) if !said => (entry.known_hosts.clone(), entry.host_key.clone()),
        Some(_) | None => (args.known_hosts.clone(), args.host_key.clone()),
    };
    let key = args.ssh_key.clone().or_else(|| kept.and_then(|entry| entry.ssh_key));
    Ok(Way { destination, key, known_hosts, host_key })
}

/// Remembers it.
pub(super) fn remember(host: &str, args: &SshArgs, way: &Way) -> Result<()> {
    let absolute = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone());
    let entry = Entry {
        ssh: way.destination.to_string(),
        ssh_key: way.key.as_ref().map(absolute),
        known_hosts: way.known_hosts.as_ref().map(absolute),
        host_key: way.host_key.clone(),
    };
    let path = place(args.inventory.as_deref())?;
    let mut inventory = read(&path)?;
    if inventory.host.get(host) == Some(&entry) {
        return Ok(());
    }
    inventory.host.insert(host.to_owned(), entry);
    write(&path, &inventory)
}

/// Forgets it.
pub(super) fn forget(host: &str, args: &SshArgs) -> Result<()> {
    let path = place(args.inventory.as_deref())?;
    let mut inventory = read(&path)?;
    match inventory.host.remove(host) {
        Some(_) => write(&path, &inventory),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_remembered_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("toci/hosts.toml");
        let bare = SshArgs {
            ssh: None,
            ssh_key: None,
            known_hosts: None,
            host_key: None,
            inventory: Some(path.clone()),
        };
        assert!(way("t1", &bare).unwrap_err().message.contains("does not know where t1 is"));
        let said = SshArgs {
            ssh: Some("root@192.0.2.7:2222".parse().unwrap()),
            ssh_key: Some("/k".into()),
            host_key: Some("ssh-ed25519 AAAA".into()),
            ..bare.clone()
        };
        remember("t1", &said, &way("t1", &said).unwrap()).unwrap();
        let kept = way("t1", &bare).unwrap();
        assert_eq!(kept.destination.to_string(), "root@192.0.2.7:2222");
        assert_eq!(kept.key, Some("/k".into()));
        assert_eq!(kept.host_key.as_deref(), Some("ssh-ed25519 AAAA"));
        // The key of one machine is not that of another.
        let moved = SshArgs { ssh: Some("root@192.0.2.8".parse().unwrap()), ..bare.clone() };
        assert_eq!(way("t1", &moved).unwrap().host_key, None);
        forget("t1", &bare).unwrap();
        assert!(way("t1", &bare).is_err());
    }
}
