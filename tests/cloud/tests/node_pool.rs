//! The node pool of a real server on the real cloud, through faults of the cloud: one server lives through all of them.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use cloud_tests::{Api, Footprint, Service, Site, forget_key_pairs, stop, wait_for};
use serde_json::{Value, json};

/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(240);
/// Our mark.
const OWNER: &str = "node-pool-test";
/// A node that is being deleted for longer is told.
const DELETE_LIMIT_S: u64 = 3;

/// A service that takes connections and never answers; it ends with the test's process.
fn black_hole() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || -> Vec<TcpStream> { listener.incoming().flatten().collect() });
    Ok(port)
}

/// Two regions with one label: the cloud, and the same cloud without an answer from its compute service, which has more room.
fn settings(folder: &Path) -> Result<String> {
    let clouds = folder.join("clouds.yaml");
    let port = black_hole()?;
    std::fs::write(
        &clouds,
        format!(
            "clouds:\n  silent:\n    auth: {{auth_url: 'http://127.0.0.1:5000/v3', username: ci, password: ci, project_name: ci, \
             user_domain_name: Default, project_domain_name: Default}}\n    region_name: RegionOne\n    \
             compute_endpoint_override: 'http://127.0.0.1:{port}/v2.1'\n"
        ),
    )?;
    let region = |name: &str, cloud: &str, max: u32| {
        format!(
            "[[provider]]\nname = \"{name}\"\nkind = \"openstack\"\n{cloud}\nowner = \"{OWNER}\"\nmax_servers = {max}\n\
             networks = [\"private\"]\nfloating_network = \"public\"\n\
             [[provider.pool]]\nlabel = \"tiny\"\ncloud_image = \"tiny\"\nflavor = \"tiny\"\n"
        )
    };
    let silent = region("silent", &format!("cloud = \"silent\"\nclouds_file = {clouds:?}"), 9);
    let good = region("good", "cloud = \"ci\"", 2);
    Ok(format!(
        "[nodes]\ndelete_limit_s = {DELETE_LIMIT_S}\n[[label]]\nname = \"tiny\"\nmin_ready = 1\n{good}{silent}"
    ))
}

/// All nodes.
fn nodes(site: &Site) -> Result<Vec<Value>> {
    Ok(site.toci(&["node", "list"])?.as_array().cloned().unwrap_or_default())
}

/// Waits for a ready node that is none of these.
fn ready(site: &Site, but: &[&Value]) -> Result<Value> {
    wait_for("a ready node", LIMIT, || {
        let all = nodes(site)?;
        let is_new = |node: &&Value| !but.iter().any(|old| old["id"] == node["id"]);
        let ready = all.iter().filter(is_new).find(|node| node["state"] == "ready");
        ready.cloned().with_context(|| format!("{all:#?}\n{}", site.logs()))
    })
}

fn word<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

/// Waits until a node is gone for the pool.
fn gone(site: &Site, node: &Value) -> Result<()> {
    wait_for("a node to be gone", LIMIT, || {
        let all = nodes(site)?;
        ensure!(all.iter().all(|n| n["id"] != node["id"]), "{all:#?}\n{}", site.logs());
        Ok(())
    })
}

/// The cloud's server of a node; none when it has none of this name.
fn server_of(node: &Value) -> Result<Option<String>> {
    let name = word(node, "name");
    let found = Api::ci()?.get("compute", &format!("/servers?name=^{name}$"))?;
    Ok(found["servers"][0]["id"].as_str().map(str::to_owned))
}

/// A port that carries the mark of the first node that a server without a database would make.
fn left_behind() -> Result<String> {
    let ci = Api::ci()?;
    let network = ci.id_of("network", "/networks", "networks", "private")?;
    let description = format!("toci:{OWNER}:good:tiny-good-1");
    let port = json!({"port": {"network_id": network, "description": description}});
    let made = ci.post("network", "/ports", &port)?;
    Ok(made["port"]["id"].as_str().context("a port has an id")?.to_owned())
}

/// What a former life of the server left is removed, and its name is nobody's.
fn it_takes_no_name_twice(node: &Value, port: &str) -> Result<()> {
    ensure!(word(node, "name") == "tiny-good-2", "{node}");
    wait_for("what was left behind to be removed", LIMIT, || {
        match Api::ci()?.get("network", &format!("/ports/{port}")) {
            Err(error) if error.to_string().contains("404") => Ok(()),
            other => bail!("{other:?}"),
        }
    })
}

/// The silent region is told, by what its provider says.
fn the_silent_region_is_told(site: &Site) -> Result<()> {
    let problems = wait_for("the silent region to be told", LIMIT, || {
        let alerts = site.toci(&["alerts"])?;
        let of = |name: &str| {
            let all = alerts["providers"].as_array().into_iter().flatten();
            all.clone().find(|p| p["provider"] == name).cloned()
        };
        ensure!(of("good").is_none(), "{alerts:#}");
        let silent = of("silent").with_context(|| format!("{alerts:#}"))?;
        let problems = silent["problems"].to_string();
        ensure!(problems.contains("60 s") || problems.contains("no answer"), "{silent:#}");
        Ok(problems)
    })?;
    println!("the silent region: {problems}");
    Ok(())
}

/// A server that somebody else deletes is noticed and replaced.
fn a_vanished_node_is_replaced(site: &Site, node: &Value) -> Result<Value> {
    let begun = Instant::now();
    let server = server_of(node)?.context("a ready node has a server")?;
    Api::ci()?.delete("compute", &format!("/servers/{server}"))?;
    gone(site, node)?;
    println!("the pool has let go of it after {:?}", begun.elapsed());
    let next = ready(site, &[node])?;
    println!("and another one is ready after {:?}", begun.elapsed());
    Ok(next)
}

/// A server that the cloud does not delete is told, and goes when the cloud can.
fn what_does_not_go_is_told(site: &Site, node: &Value) -> Result<()> {
    let (id, begun) = (word(node, "id"), Instant::now());
    {
        let _stopped = stop(Service::NovaCompute)?;
        site.toci(&["node", "delete", id])?;
        let alert = wait_for("an alert of the node", LIMIT, || {
            let alerts = site.toci(&["alerts"])?;
            let all = alerts["nodes"].as_array().cloned().unwrap_or_default();
            let alert = all.into_iter().find(|alert| alert["node"] == id);
            alert.with_context(|| format!("{alerts:#}\n{}", site.logs()))
        })?;
        println!("told after {:?}: {alert}", begun.elapsed());
        ensure!(word(&alert, "reason").starts_with("by hand; its provider has not"), "{alert}");
        let shown = site.toci(&["node", "show", id])?;
        ensure!(shown["overdue"] == true && shown["state"] == "deleting", "{shown}");
        ensure!(server_of(node)?.is_some(), "its server is gone, so this has shown nothing");
        let text = metrics(site)?;
        ensure!(text.contains("\ntoci_nodes_overdue 1\n"), "{text}");
    }
    gone(site, node)?;
    println!("gone after {:?}", begun.elapsed());
    ensure!(server_of(node)?.is_none(), "the pool says that it is gone, and it is there");
    let alerts = site.toci(&["alerts"])?;
    // Another one may have failed: its server waited for the compute node, which gives such ones up when it starts.
    let mut told = alerts["nodes"].as_array().context("a list of nodes")?.iter();
    ensure!(told.all(|alert| alert["node"] != id), "{alerts:#}");
    Ok(())
}

fn metrics(site: &Site) -> Result<String> {
    let script = r#"curl -sS --fail-with-body --unix-socket "${TOCI_SERVER#unix:}" \
        -H "Authorization: Bearer $(cat "$TOCI_TOKEN_FILE")" http://toci/metrics"#;
    let output = site.command("sh")?.args(["-c", script]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

fn calls_are_counted(site: &Site) -> Result<()> {
    let text = metrics(site)?;
    let calls: Vec<&str> =
        text.lines().filter(|line| line.starts_with("toci_cloud_calls_total{")).collect();
    let is = |words: &[&str]| calls.iter().any(|line| words.iter().all(|word| line.contains(word)));
    let good = r#"{of="provider good",service="compute""#;
    ensure!(is(&[good, r#"method="POST",status="202"} "#]), "{calls:#?}");
    ensure!(is(&[good, r#"method="DELETE",status="204"} "#]), "{calls:#?}");
    ensure!(is(&[r#"{of="provider silent",service="network",method="GET",status="200"} "#]));
    Ok(())
}

/// Ends the pool: no node and nothing of ours is left.
fn clear(site: &Site) -> Result<()> {
    for provider in ["good", "silent"] {
        site.toci(&["provider", "pause", provider, "--reason", "the end of the test"])?;
    }
    for node in nodes(site)? {
        site.toci(&["node", "delete", word(&node, "id")])?;
    }
    wait_for("all nodes to be gone", LIMIT, || {
        let left = nodes(site)?;
        ensure!(left.is_empty(), "{left:#?}\n{}", site.logs());
        Ok(())
    })?;
    forget_key_pairs(OWNER)
}

#[test]
fn the_pool_lives_through_the_faults_of_its_clouds() -> Result<()> {
    let before = Footprint::now()?;
    let folder = tempfile::tempdir()?;
    let port = left_behind()?;
    let begun = Instant::now();
    let site = Site::start(&settings(folder.path())?)?;
    let tested = || -> Result<()> {
        let node = ready(&site, &[])?;
        println!("a node is ready after {:?}", begun.elapsed());
        ensure!(word(&node, "provider") == "good", "{node}");
        it_takes_no_name_twice(&node, &port)?;
        let next = a_vanished_node_is_replaced(&site, &node)?;
        the_silent_region_is_told(&site)?;
        what_does_not_go_is_told(&site, &next)?;
        calls_are_counted(&site)?;
        ready(&site, &[&node, &next])?;
        println!("the pool is full again after {:?}", begun.elapsed());
        Ok(())
    };
    let tested = tested();
    let cleared = clear(&site);
    drop(site);
    println!("all of it took {:?}", begun.elapsed());
    tested.and(cleared).and(before.is_restored(LIMIT))
}
