//! Nodes from outside: a real server that makes real sandboxes, the real client.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that is not as expected")]

mod common;

use common::{LIMIT, World, config, eventually};
use toci_client::api::{ApiClient, Change, ClientError};
use toci_wire::api::{Node, NodeHold, NodeState, Role};

fn code<T: std::fmt::Debug>(result: Result<T, ClientError>) -> (u16, String) {
    match result {
        Err(ClientError::Api { status, error }) => (status, error.code),
        other => panic!("a refusal was expected, this came: {other:?}"),
    }
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let first = 20_000 + u16::try_from(std::process::id() % 1000).unwrap() * 8;
    let text = format!(
        "[[label]]\nname = \"sandbox\"\nmin_ready = 1\n[[provider]]\nname = \"here\"\nkind = \"local\"\nmax_servers = 3\n\
         first_number = {first}\n[[provider.pool]]\nlabel = \"sandbox\"\n"
    );
    std::fs::write(folder.path().join("toci.toml"), text).unwrap();
    World::around(toci_server::start(config(folder.path())).await.unwrap(), folder)
}

async fn one_that_is(client: &ApiClient, state: NodeState, but: &str) -> Node {
    let mut found = None;
    eventually("a node in the state", async || {
        let nodes = client.nodes().await.map_err(|e| e.to_string())?;
        found = nodes.iter().find(|node| node.state == state && node.id != but).cloned();
        if found.is_some() { Ok(()) } else { Err(format!("{state:?}: {nodes:?}")) }
    })
    .await;
    found.unwrap()
}

#[tokio::test]
async fn operators_look_hold_and_delete() {
    let world = world().await;
    let client = world.client(Role::Client, "ci").await;
    let node = one_that_is(&client, NodeState::Ready, "").await;
    assert_eq!((node.label.as_str(), node.provider.as_str()), ("sandbox", "here"));
    assert_eq!(client.node(&node.id).await.unwrap(), node);
    let hold = NodeHold { for_s: 600, reason: "why is it red".to_owned() };
    assert_eq!(code(client.hold_node(&node.id, &hold).await), (403, "forbidden".to_owned()));
    let held = world.admin.hold_node(&node.id, &hold).await.unwrap();
    assert_eq!((held.state, held.reason.as_str()), (NodeState::Held, "why is it red (admin)"));
    assert!(held.hold_until_us.is_some());
    // Another one is made in its place.
    one_that_is(&client, NodeState::Ready, &node.id).await;
    let providers = client.providers().await.unwrap();
    assert_eq!((providers[0].kind.as_str(), providers[0].max_servers), ("local", 3));
    assert!(providers[0].reachable && providers[0].nodes["held"] == 1, "{providers:?}");
    world.admin.delete_node(&node.id).await.unwrap();
    eventually("it is gone", async || match client.node(&node.id).await {
        Err(ClientError::Api { status: 404, .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let too_long = NodeHold { for_s: 1_000_000, reason: String::new() };
    let other = one_that_is(&client, NodeState::Ready, &node.id).await;
    assert_eq!(code(world.admin.hold_node(&other.id, &too_long).await).0, 422);
    assert_eq!(code(world.admin.delete_node("x").await), (404, "no_such_node".to_owned()));
    // Sandboxes are made of nothing.
    assert!(client.node_images().await.unwrap().is_empty());
    assert_eq!(code(client.rebuild_node_image("debian").await).0, 403);
    let none = world.admin.rebuild_node_image("debian").await;
    assert_eq!(code(none), (404, "no_such_image".to_owned()));
    assert_eq!(code(client.withdraw_node_image("debian-1-2").await).0, 403);
    let none = world.admin.withdraw_node_image("debian-1-2").await;
    assert_eq!(code(none), (404, "no_such_image".to_owned()));
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn a_provider_that_is_paused_makes_nothing_until_it_is_resumed() {
    let world = world().await;
    let client = world.client(Role::Client, "ci").await;
    let operator = world.client(Role::Operator, "ann").await;
    let node = one_that_is(&client, NodeState::Ready, "").await;
    let mut changes = client.changes().await.unwrap();
    assert_eq!(code(client.pause_provider("here", "x").await), (403, "forbidden".to_owned()));
    for (name, status) in [("nowhere", 404), ("/", 404)] {
        let no = operator.pause_provider(name, "x").await;
        assert_eq!(code(no), (status, "no_such_provider".to_owned()));
    }
    assert_eq!(code(operator.resume_provider("here").await), (409, "not_paused".to_owned()));
    operator.pause_provider("here", "the disk is full").await.unwrap();
    let told = async {
        loop {
            match changes.next().await.unwrap() {
                Some(Change::Provider(provider)) => return provider,
                Some(_) => {}
                None => panic!("the stream ended"),
            }
        }
    };
    let told = tokio::time::timeout(LIMIT, told).await.unwrap();
    let paused = client.providers().await.unwrap().remove(0).paused;
    assert_eq!(told.paused, paused);
    let paused = paused.unwrap();
    assert_eq!((paused.by.as_str(), paused.reason.as_str()), ("ann", "the disk is full"));
    assert_eq!(client.alerts().await.unwrap().providers[0].paused.as_ref(), Some(&paused));
    world.admin.delete_node(&node.id).await.unwrap();
    eventually("nothing is there", async || {
        let nodes = client.nodes().await.map_err(|e| e.to_string())?;
        if nodes.is_empty() { Ok(()) } else { Err(format!("{nodes:?}")) }
    })
    .await;
    operator.resume_provider("here").await.unwrap();
    one_that_is(&client, NodeState::Ready, &node.id).await;
    assert_eq!(client.alerts().await.unwrap().providers, []);
    world.running.stop().await.unwrap();
}

#[tokio::test]
async fn without_labels_there_are_no_nodes() {
    let world = World::start().await;
    assert_eq!(code(world.admin.nodes().await), (404, "no_nodes".to_owned()));
}
