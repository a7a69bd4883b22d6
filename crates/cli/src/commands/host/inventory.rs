//! Machines by name: what `deploy` was told is remembered for `upgrade`, `rollback` and `remove`. No secrets are in it.

use crate::args::{CloudArgs, SshArgs};
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Absent while a server of a cloud has not told its host key.
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_key: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_hosts: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_key: Option<String>,
    /// It is a server of a cloud.
    #[serde(skip_serializing_if = "Option::is_none")]
    cloud: Option<CloudPlace>,
}

/// In which cloud a host is a server, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CloudPlace {
    /// Name in clouds.yaml.
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) region: Option<String>,
    pub(super) owner: String,
}

impl CloudPlace {
    /// As it was said, if it was.
    pub(super) fn said(args: &CloudArgs) -> Option<CloudPlace> {
        let CloudArgs { cloud, region, owner } = args;
        let name = cloud.clone()?;
        Some(CloudPlace { name, region: region.clone(), owner: owner.clone() })
    }
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

/// Several hosts are not on one machine.
pub(super) fn one_machine_for(hosts: &[String], args: &SshArgs) -> Result<()> {
    if hosts.len() > 1 && args.ssh.is_some() {
        let hint = "leave it out: the inventory knows where each is";
        return Err(CliError::usage("--ssh names one machine, for several hosts", hint));
    }
    Ok(())
}

/// How this host's machine is reached.
pub(super) fn way(host: &str, args: &SshArgs) -> Result<Way> {
    let path = place(args.inventory.as_deref())?;
    let kept = read(&path)?.host.remove(host);
    let remembered = kept.as_ref().and_then(|entry| entry.ssh.as_deref());
    let destination = match (&args.ssh, remembered) {
        (Some(destination), _) => destination.clone(),
        (None, Some(text)) => text.parse().map_err(|e: String| {
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
    let kept = kept.filter(|entry| entry.ssh == Some(destination.to_string()));
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
    enter(host, args, |entry| Entry {
        ssh: Some(way.destination.to_string()),
        ssh_key: way.key.as_ref().map(absolute),
        known_hosts: way.known_hosts.as_ref().map(absolute),
        host_key: way.host_key.clone(),
        cloud: entry.cloud,
    })
}

/// Remembers that it is a server there.
pub(super) fn remember_server(host: &str, args: &SshArgs, cloud: &CloudPlace) -> Result<()> {
    enter(host, args, |entry| Entry { cloud: Some(cloud.clone()), ..entry })
}

fn enter(host: &str, args: &SshArgs, change: impl FnOnce(Entry) -> Entry) -> Result<()> {
    let path = place(args.inventory.as_deref())?;
    let mut inventory = read(&path)?;
    let before = inventory.host.get(host).cloned();
    let entry = change(before.clone().unwrap_or_default());
    if before.as_ref() == Some(&entry) {
        return Ok(());
    }
    inventory.host.insert(host.to_owned(), entry);
    write(&path, &inventory)
}

/// Where it is a server, if it is one: as it was said, or as it is remembered.
pub(super) fn server_of(
    host: &str,
    args: &SshArgs,
    cloud: &CloudArgs,
) -> Result<Option<CloudPlace>> {
    if let Some(said) = CloudPlace::said(cloud) {
        return Ok(Some(said));
    }
    // Whoever says which machine does not mean a server.
    if args.ssh.is_some() {
        return Ok(None);
    }
    let path = place(args.inventory.as_deref())?;
    Ok(read(&path)?.host.remove(host).and_then(|entry| entry.cloud))
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
        // That it is a server of a cloud is remembered beside.
        let unsaid = CloudArgs { cloud: None, region: None, owner: "toci".into() };
        let cloud = CloudPlace { name: "hp1".into(), region: None, owner: "toci".into() };
        assert_eq!(server_of("t1", &bare, &unsaid).unwrap(), None);
        remember_server("t1", &bare, &cloud).unwrap();
        remember_server("t2", &bare, &cloud).unwrap();
        assert_eq!(server_of("t1", &bare, &unsaid).unwrap(), Some(cloud.clone()));
        assert_eq!(way("t1", &bare).unwrap().key, Some("/k".into()));
        assert!(way("t2", &bare).is_err(), "nobody knows yet how it is reached");
        let other = CloudArgs { cloud: Some("rh1".into()), ..unsaid };
        assert_eq!(server_of("t1", &bare, &other).unwrap().unwrap().name, "rh1");
        // The key of one machine is not that of another.
        let moved = SshArgs { ssh: Some("root@192.0.2.8".parse().unwrap()), ..bare.clone() };
        assert_eq!(way("t1", &moved).unwrap().host_key, None);
        forget("t1", &bare).unwrap();
        assert!(way("t1", &bare).is_err());
    }
}
