//! The cloud itself works as the code under test will find it, seen by curl and OpenSSH.

use std::time::Duration;

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use cloud_tests::{
    Api, FloatingAddress, Footprint, KeyPair, Server, Service, quota, stop, wait_for,
};
use serde_json::json;

/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn a_server_is_reached_at_a_floating_address_by_the_key_that_its_console_tells() -> Result<()> {
    let before = Footprint::now()?;
    let user_data = STANDARD.encode("#!/bin/bash\necho user-data of $(hostname) >/run/proof\n");
    for drive in [false, true] {
        let key = KeyPair::new("cloud-test")?;
        let server = Server::new(
            "proof",
            &json!({"key_name": key.name, "config_drive": drive, "user_data": user_data}),
        )?;
        server.until("ACTIVE")?;
        let floating = FloatingAddress::of(&server)?;
        let keys = server.host_keys()?;
        let said = wait_for("an answer over SSH", LIMIT, || {
            key.ssh(&floating.address, &keys, "cat /run/proof; git --version; tar --version")
        })?;
        let console = server.console()?;
        ensure!(said.contains("user-data of proof"), "{said}\n{console}");
        ensure!(said.contains("git version") && said.contains("GNU tar"), "{said}");
        let source = if drive { "guest: from_drive" } else { "guest: from_service" };
        ensure!(console.contains(source), "{console}");
        // Somebody else's key is refused.
        let other = KeyPair::new("cloud-test-other")?;
        ensure!(other.ssh(&floating.address, &keys, "true").is_err(), "another key was let in");
    }
    before.is_restored(LIMIT)
}

#[test]
fn a_server_that_has_no_room_ends_in_error() -> Result<()> {
    let before = Footprint::now()?;
    let huge = Api::ci()?.id_of("compute", "/flavors", "flavors", "huge")?;
    let _cores = quota("compute", "cores", 1000)?;
    let _ram = quota("compute", "ram", 9_999_999)?;
    let server = Server::new("huge", &json!({"flavorRef": huge}))?.until("ERROR")?;
    ensure!(server["fault"]["message"].to_string().contains("No valid host"), "{server}");
    before.is_restored(LIMIT)
}

#[test]
fn a_service_that_was_killed_is_back_afterwards() -> Result<()> {
    let before = Footprint::now()?;
    let ci = Api::ci()?;
    {
        let _compute = stop(Service::NovaCompute)?;
        let server = Server::new("waits", &json!({}))?;
        let path = format!("/servers/{}", server.id);
        wait_for("the server to be scheduled", LIMIT, || {
            let server = ci.get("compute", &path)?["server"].clone();
            ensure!(server["status"] == "BUILD", "{server}");
            Ok(())
        })?;
    }
    {
        let _nova = stop(Service::NovaApi)?;
        let refused = ci.get("compute", "/servers").unwrap_err().to_string();
        ensure!(refused.contains("onnect"), "{refused}");
    }
    ci.get("compute", "/servers")?;
    before.is_restored(LIMIT)
}

#[test]
fn quotas_are_refused_and_restored() -> Result<()> {
    let before = Footprint::now()?;
    {
        let _none = quota("compute", "instances", 0)?;
        let refused = Server::new("one-too-many", &json!({})).unwrap_err().to_string();
        ensure!(refused.contains("403") && refused.contains("Quota exceeded"), "{refused}");
    }
    Server::new("fits", &json!({}))?.until("ACTIVE")?;
    before.is_restored(LIMIT)
}
