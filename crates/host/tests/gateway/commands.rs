//! Every command, and what is not one.

use crate::world::World;
use russh::keys::{PrivateKey, PrivateKeyWithHashAlg, PublicKeyOrCertificate};
use russh::{ChannelMsg, client};
use std::net::Ipv4Addr;
use std::sync::Arc;
use toci_host::gateway::limits::CHANNELS_MAX;

const MACS_GREP: &str = r#"LC_ALL=C /usr/bin/virsh --connect qemu:///system dumpxml baremetalbrbm1_0 | grep "mac address" | awk -F"'" '{print $2}' | tr -d ':'"#;
const MACS_AWK: &str = r#"LC_ALL=C /usr/bin/virsh dumpxml baremetalbrbm1_0 | awk -F "'" '/mac address/{print $2}'| tr -d ':'"#;
const NAMES: &str = r#"/usr/bin/virsh list --all | tail -n +2 | awk -F" " '{print $2}'"#;
const RUNNING: &str =
    r#"/usr/bin/virsh list --all|grep running|awk -v qc='"' -F" " '{print qc$2qc}'"#;
const GET_BOOT: &str = r#"LC_ALL=C /usr/bin/virsh dumpxml baremetalbrbm1_0 | awk '/boot dev=/ { gsub( ".*dev=" Q, "" ); gsub( Q ".*", "" ); print; }' Q="'" RS="[<>]" | head -1"#;
const SET_BOOT: &str = r#"EDITOR="sed -i '/<boot \(dev\|order\)=*\>/d;/<\/os>/i\<boot dev=\"hd\"/>'" LC_ALL=C /usr/bin/virsh edit baremetalbrbm1_0"#;

#[tokio::test(flavor = "multi_thread")]
async fn whoever_comes_with_the_key_may_speak_with_the_seed_and_may_name_others() {
    let w = World::new().await;
    let (lease, other) = (w.lease(1, 1).await, w.lease(2, 1).await);
    assert_eq!(w.run(&lease, "virsh list").await.code, 0);
    let saw = w.run(&lease, "admit 198.18.0.7").await;
    assert_eq!((saw.out.as_str(), saw.code), ("198.18.0.7 may speak with the seed\n", 0));
    let saw = w.run(&lease, "admit everybody").await;
    assert!(saw.err.contains("`everybody` is no IPv4 address") && saw.code == 1, "{saw:?}");
    let guests = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(198, 18, 0, 7)];
    assert_eq!(*lease.fake.guests.lock().unwrap(), guests.into());
    assert!(other.fake.guests.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_origin_answers_as_virsh_does() {
    let w = World::new().await;
    let lease = w.lease(1, 1).await;
    let cases: &[(&str, &str, &str, i32)] = &[
        ("virsh start seed_1", "Domain 'seed_1' started\n\n", "", 0),
        ("virsh start seed_1", "\n", "error: Domain is already active\n", 1),
        ("virsh domstate seed_1", "running\n\n", "", 0),
        ("virsh reset seed_1", "Domain 'seed_1' was reset\n\n", "", 0),
        (
            "virsh list",
            " Id   Name     State\n------------------------\n 1    seed_1   running\n\n",
            "",
            0,
        ),
        ("virsh list --name", "seed_1\n\n", "", 0),
        (NAMES, "\nseed_1\nbaremetalbrbm1_0\nbaremetalbrbm1_1\n\n", "", 0),
        (RUNNING, "\"seed_1\"\n", "", 0),
        (MACS_GREP, "001a2b3c4d5e\n001a2b3c4d5f\n", "", 0),
        (MACS_AWK, "001a2b3c4d5e\n001a2b3c4d5f\n", "", 0),
        (GET_BOOT, "network\n", "", 0),
        (SET_BOOT, "Domain 'baremetalbrbm1_0' XML configuration edited.\n\n", "", 0),
        (GET_BOOT, "hd\n", "", 0),
        ("virsh destroy seed_1", "Domain 'seed_1' destroyed\n\n", "", 0),
        (
            "virsh destroy seed_1",
            "\n",
            "error: Failed to destroy domain 'seed_1'\n\
             error: Requested operation is not valid: domain is not running\n",
            1,
        ),
        (RUNNING, "", "", 0),
    ];
    for (command, out, err, code) in cases {
        let saw = w.run(&lease, command).await;
        assert_eq!(saw.out, *out, "{command}: {saw:?}");
        assert_eq!(saw.err, format!("Calling {command}\n{err}"), "{command}");
        assert_eq!(saw.code, *code, "{command}: {saw:?}");
    }
    let saw = w.run(&lease, "virsh dumpxml seed_1").await;
    assert!(saw.out.ends_with("</domain>\n\n") && saw.code == 0, "{saw:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tes_machines_do_not_exist() {
    let w = World::new().await;
    let (one, two) = (w.lease(1, 1).await, w.lease(2, 1).await);
    assert_eq!(w.run(&two, "virsh start seed_2").await.code, 0);
    for verb in ["start", "destroy", "reset", "domstate", "dumpxml"] {
        let saw = w.run(&one, &format!("virsh {verb} seed_2")).await;
        assert_eq!((saw.code, saw.out.as_str()), (1, "\n"), "{verb}: {saw:?}");
        assert!(saw.err.contains("error: failed to get domain 'seed_2'\n"), "{saw:?}");
        assert!(saw.err.contains("this lease has seed_1, baremetalbrbm1_0"), "{saw:?}");
    }
    let saw = w.run(&one, "virsh list --all --name").await;
    assert_eq!(saw.out, "baremetalbrbm1_0\nbaremetalbrbm1_1\nseed_1\n\n");
    let saw = w.run(&one, &MACS_AWK.replace("brbm1", "brbm2")).await;
    assert_eq!((saw.code, saw.out.as_str()), (0, ""), "a pipeline ends well: {saw:?}");
    assert_eq!(w.run(&two, "virsh domstate seed_2").await.out, "running\n\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_command_is_refused_with_what_is() {
    let w = World::new().await;
    let lease = w.lease(1, 1).await;
    for command in ["id", "virsh start seed_1; id", "virsh undefine seed_1", "virsh list | sh"] {
        let saw = w.run(&lease, command).await;
        assert_eq!((saw.code, saw.out.as_str()), (1, ""), "{command}: {saw:?}");
        assert!(saw.err.contains("allowed are: virsh start|destroy|reset"), "{saw:?}");
    }
    let shell = w.run_with(&lease, &["-n"], &[]).await;
    assert_eq!(shell.code, 1, "{shell:?}");
    assert!(shell.err.contains("there is no shell here"), "{shell:?}");
    let terminal = w.run_with(&lease, &["-n", "-tt"], &["virsh list --name"]).await;
    assert!(terminal.err.contains("PTY allocation request failed"), "{terminal:?}");
    let sftp = w.run_with(&lease, &["-n", "-s"], &["sftp"]).await;
    assert_eq!(sftp.code, 1, "{sftp:?}");
    assert!(sftp.err.contains("subsystem sftp is not offered here"), "{sftp:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_forwarded() {
    let w = World::new().await;
    let lease = w.lease(1, 1).await;
    let port = w.gateway.address().port();
    let back = format!("0:127.0.0.1:{port}");
    let options = ["-n", "-o", "ExitOnForwardFailure=yes", "-R", &back];
    let saw = w.run_with(&lease, &options, &["virsh list"]).await;
    assert_ne!(saw.code, 0, "{saw:?}");
    assert!(saw.err.contains("forwarding failed"), "{saw:?}");
    let through = format!("127.0.0.1:{port}");
    let saw = w.run_with(&lease, &["-n", "-W", &through], &[]).await;
    assert_ne!(saw.code, 0, "{saw:?}");
    assert!(!saw.out.contains("SSH-2.0"), "a connection was forwarded: {saw:?}");
    let saw = w.run_with(&lease, &["-n", "-A", "-o", "SetEnv=X=1"], &["virsh list --name"]).await;
    assert_eq!((saw.code, saw.out.as_str()), (0, "\n"), "{saw:?}");
}

struct AnyHost;

impl client::Handler for AnyHost {
    type Error = russh::Error;

    async fn check_server_key(&mut self, _: &PublicKeyOrCertificate) -> Result<bool, russh::Error> {
        Ok(true)
    }
}

/// Nova's and Ironic's drivers keep one connection for all their commands.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_runs_any_number_of_commands_a_few_at_a_time() {
    let w = World::new().await;
    let lease = w.lease(1, 1).await;
    let mut c =
        client::connect(Arc::default(), w.gateway.address(), AnyHost).await.expect("connect");
    let key = PrivateKey::read_openssh_file(&lease.key_file).unwrap();
    let key = PrivateKeyWithHashAlg::new(Arc::new(key), None);
    assert!(c.authenticate_publickey("root", key).await.unwrap().success());
    for n in 0..3 * CHANNELS_MAX {
        let mut channel = c.channel_open_session().await.unwrap_or_else(|e| panic!("{n}: {e}"));
        channel.exec(true, "virsh list").await.unwrap();
        let mut code = None;
        while let Some(m) = channel.wait().await {
            if let ChannelMsg::ExitStatus { exit_status } = m {
                code = Some(exit_status);
            }
        }
        assert_eq!(code, Some(0), "{n}");
    }
    let mut open = Vec::new();
    for _ in 0..CHANNELS_MAX {
        open.push(c.channel_open_session().await.unwrap());
    }
    c.channel_open_session().await.expect_err("one too many at once");
    open.pop().unwrap().close().await.unwrap();
    c.channel_open_session().await.expect("one was closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_one_command_only() {
    let w = World::new().await;
    let lease = w.lease(9, 1).await;
    let saw = w.run(&lease, "virsh dumpxml baremetalbrbm9_1").await;
    assert_eq!(saw.code, 255, "{saw:?}");
    assert_eq!(w.run(&lease, "virsh dumpxml baremetalbrbm9_0").await.code, 0);
}
