//! Faults of the real cloud. Each is a guard: dropped, also by a failing test, the cloud is as it was.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::{Api, wait_for};

/// Longest wait until tokens that are made after a revocation are taken.
const REVOKED_LIMIT: Duration = Duration::from_secs(30);

/// A service of the cloud that a test may disturb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Identity: logging in, and checking of tokens by all others.
    Keystone,
    /// Servers: the API, and metadata for guests.
    NovaApi,
    /// What hands servers to compute nodes.
    NovaScheduler,
    /// What talks to the database for compute nodes.
    NovaConductor,
    /// The compute node: makes and ends servers.
    NovaCompute,
    /// Networks: the API.
    NeutronServer,
    /// What plugs cards into the switch.
    NeutronL2,
    /// What makes routers and floating addresses work.
    NeutronL3,
    /// What gives addresses to guests.
    NeutronDhcp,
    /// Images.
    Glance,
    /// What knows where there is room.
    Placement,
    /// Volumes: the API. There only while somebody has [`crate::Volumes`].
    CinderApi,
    /// What chooses the place of a volume.
    CinderScheduler,
    /// What makes volumes.
    CinderVolume,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Service::Keystone => "keystone",
            Service::NovaApi => "nova-api",
            Service::NovaScheduler => "nova-scheduler",
            Service::NovaConductor => "nova-conductor",
            Service::NovaCompute => "nova-compute",
            Service::NeutronServer => "neutron-server",
            Service::NeutronL2 => "neutron-l2",
            Service::NeutronL3 => "neutron-l3",
            Service::NeutronDhcp => "neutron-dhcp",
            Service::Glance => "glance-api",
            Service::Placement => "placement",
            Service::CinderApi => "cinder-api",
            Service::CinderScheduler => "cinder-scheduler",
            Service::CinderVolume => "cinder-volume",
        }
    }

    pub(crate) fn told(self, verb: &str) -> Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("stack/service.sh");
        let output = Command::new(script).args([verb, self.name()]).output()?;
        let said = [output.stdout, output.stderr].concat();
        ensure!(
            output.status.success(),
            "{verb} {}: {}",
            self.name(),
            String::from_utf8_lossy(&said).trim()
        );
        Ok(())
    }
}

/// A destructor has nobody to tell an error to, and a test that fails already may not panic again.
pub(crate) fn restored(what: Result<()>) {
    if let Err(why) = what {
        eprintln!("the cloud is not as it was: {why:#}");
    }
}

/// A service that was killed; it runs again, and does its work, when this is dropped.
#[derive(Debug)]
pub struct Stopped(Service);

/// Kills a service with all of its processes, as a crash does.
///
/// # Errors
/// It cannot be stopped.
pub fn stop(service: Service) -> Result<Stopped> {
    service.told("stop")?;
    Ok(Stopped(service))
}

impl Drop for Stopped {
    fn drop(&mut self) {
        restored(self.0.told("start").and_then(|()| self.0.told("ready")));
    }
}

/// A service that takes connections and never answers; it goes on when this is dropped.
#[derive(Debug)]
pub struct Paused(Service);

/// Halts a service.
///
/// # Errors
/// It cannot be halted.
pub fn pause(service: Service) -> Result<Paused> {
    service.told("pause")?;
    Ok(Paused(service))
}

impl Drop for Paused {
    fn drop(&mut self) {
        restored(self.0.told("resume"));
    }
}

/// A quota of the tenant `ci` that was changed; as before when this is dropped.
#[derive(Debug)]
pub struct Quota {
    service: &'static str,
    path: String,
    key: &'static str,
    resource: String,
    before: Value,
}

/// Changes a quota of the tenant `ci`: `compute` knows `instances`, `cores`, `ram` (MiB), `network` knows `port`,
/// `floatingip`, `network`, `router`, …, `volumev3` `volumes`, `gigabytes`.
///
/// # Errors
/// There is no such quota.
pub fn quota(service: &'static str, resource: &str, limit: i64) -> Result<Quota> {
    let (admin, project) = (Api::admin()?, Api::ci()?.project);
    let (path, key) = match service {
        "compute" | "volumev3" => (format!("/os-quota-sets/{project}"), "quota_set"),
        _ => (format!("/quotas/{project}"), "quota"),
    };
    let before = admin.get(service, &path)?[key][resource].clone();
    ensure!(before.is_i64(), "{service} has no quota {resource}");
    let quota = Quota { service, path, key, resource: resource.to_owned(), before };
    quota.set(&json!(limit))?;
    Ok(quota)
}

impl Quota {
    fn set(&self, limit: &Value) -> Result<()> {
        let body = json!({self.key: {&self.resource: limit}});
        Api::admin()?.put(self.service, &self.path, &body).map(drop)
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        restored(self.set(&self.before));
    }
}

/// Makes every token that the tenant `ci` has worthless, as an administrator does. A service that has seen a token shortly
/// before may go on believing it for some minutes.
///
/// # Errors
/// The identity service refuses.
pub fn revoke_tokens() -> Result<()> {
    let path = format!("/users/{}", Api::ci()?.user);
    Api::admin()?.patch("identity", &path, &json!({"user": {"password": "ci"}}))?;
    // Keystone counts in seconds: a token made in the same one is worthless as well.
    wait_for("new tokens to be taken", REVOKED_LIMIT, || {
        Api::ci()?.get("network", "/networks?fields=id").map(drop)
    })
}

/// A service that runs with other settings; with those of before when this is dropped.
#[derive(Debug)]
pub struct Resettled {
    service: Service,
    file: &'static str,
    settings: String,
}

/// Tokens that are made from now on expire after so many seconds. The identity service is restarted.
///
/// # Errors
/// It does not come up again.
pub fn token_lifetime(seconds: u32) -> Result<Resettled> {
    let line = format!("[token]\nexpiration = {seconds}");
    resettle(Service::Keystone, "/run/cloud/etc/keystone.conf", "[token]", &line)
}

/// Servers that are made from now on are Nova's word only: its fake driver says ACTIVE and runs nothing. There must be no
/// servers. The compute node is restarted.
///
/// # Errors
/// It does not come up again.
pub fn fake_servers() -> Result<Resettled> {
    let real = "compute_driver = libvirt.LibvirtDriver";
    let fake = "compute_driver = fake.FakeDriver";
    resettle(Service::NovaCompute, "/run/cloud/etc/nova.conf", real, fake)
}

fn resettle(service: Service, file: &'static str, from: &str, to: &str) -> Result<Resettled> {
    let resettled = Resettled { service, file, settings: std::fs::read_to_string(file)? };
    ensure!(resettled.settings.contains(from), "{file} does not say {from}");
    resettled.restart_with(&resettled.settings.replace(from, to))?;
    Ok(resettled)
}

impl Resettled {
    fn restart_with(&self, settings: &str) -> Result<()> {
        std::fs::write(self.file, settings)?;
        self.service.told("stop")?;
        self.service.told("start")?;
        self.service.told("ready")
    }
}

impl Drop for Resettled {
    fn drop(&mut self) {
        restored(self.restart_with(&self.settings));
    }
}
