//! The same command lines through a shell with the real virsh, on libvirt's test driver, and through the
//! gateway: same output, same errors, same exit code.

use crate::world::{Saw, World};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tokio::process::Command;

const LINES: &[&str] = &[
    "virsh list",
    "virsh list --all",
    "virsh list --name",
    "virsh list --all --name",
    "virsh start seed_1",
    "virsh start baremetalbrbm1_0",
    "virsh start baremetalbrbm7_0",
    "virsh destroy seed_1",
    "virsh destroy baremetalbrbm1_0",
    "virsh destroy baremetalbrbm7_0",
    "virsh reset seed_1",
    "virsh reset baremetalbrbm1_0",
    "virsh domstate seed_1",
    "virsh domstate baremetalbrbm1_1",
    "virsh domstate baremetalbrbm7_0",
    "virsh dumpxml baremetalbrbm7_0",
    r#"virsh list --all | tail -n +2 | awk -F" " '{print $2}'"#,
    r#"virsh list --all|grep running|awk -v qc='"' -F" " '{print qc$2qc}'"#,
    r#"LC_ALL=C virsh dumpxml seed_1 | grep "mac address" | awk -F"'" '{print $2}' | tr -d ':'"#,
    r#"LC_ALL=C virsh dumpxml seed_1 | awk -F "'" '/mac address/{print $2}'| tr -d ':'"#,
    r#"virsh dumpxml baremetalbrbm7_0 | grep "mac address" | awk -F"'" '{print $2}' | tr -d ':'"#,
    r#"virsh dumpxml baremetalbrbm1_0 | awk '/boot dev=/ { gsub( ".*dev=" Q, "" ); gsub( Q ".*", "" ); print; }' Q="'" RS="[<>]" | head -1"#,
    r#"virsh dumpxml baremetalbrbm7_0 | awk '/boot dev=/ { gsub( ".*dev=" Q, "" ); gsub( Q ".*", "" ); print; }' Q="'" RS="[<>]" | head -1"#,
    r#"EDITOR="sed -i '/<boot \(dev\|order\)=*\>/d;/<\/os>/i\<boot dev=\"hd\"/>'" virsh edit baremetalbrbm1_0"#,
    r#"EDITOR="sed -i '/<boot \(dev\|order\)=*\>/d;/<\/os>/i\<boot dev=\"hd\"/>'" virsh edit baremetalbrbm7_0"#,
];

/// A `virsh` that knows the fake's machines as they are when a lease begins, but for a running seed.
fn shim(folder: &Path) {
    let mut node = String::from("<node>\n");
    for (name, state) in [("seed_1", 1), ("baremetalbrbm1_0", 5), ("baremetalbrbm1_1", 5)] {
        let nic = |mac| {
            format!(
                "<interface type='network'><mac address='{mac}'/><source network='default'/></interface>"
            )
        };
        let _ = writeln!(
            node,
            "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>\
             <name>{name}</name><memory>8192</memory>\
             <os><type>hvm</type><boot dev='network'/></os>\
             <devices>{}{}</devices><test:runstate>{state}</test:runstate></domain>",
            nic("00:1a:2b:3c:4d:5e"),
            nic("00:1a:2b:3c:4d:5f"),
        );
    }
    node.push_str("</node>\n");
    let (file, script) = (folder.join("node.xml"), folder.join("bin/virsh"));
    std::fs::write(&file, node).unwrap();
    std::fs::create_dir(folder.join("bin")).unwrap();
    let text = format!("#!/bin/sh\nexec /usr/bin/virsh -c test://{} \"$@\"\n", file.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
}

async fn in_a_shell(folder: &Path, line: &str) -> Saw {
    let path = format!("{}:/usr/bin:/bin", folder.join("bin").display());
    let mut shell = Command::new("sh");
    shell.args(["-c", line]).env("PATH", path).env("LC_ALL", "C").kill_on_drop(true);
    shell.output().await.unwrap().into()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_says_what_virsh_in_a_shell_says() {
    assert!(
        Path::new("/usr/bin/virsh").exists(),
        "virsh is missing: install the Debian package libvirt-clients"
    );
    let w = World::new().await;
    shim(w.folder.path());
    // Every line finds the machines as they are at the beginning, as in the test driver.
    for (generation, line) in (1..).zip(LINES) {
        let lease = w.lease(1, generation).await;
        assert_eq!(w.run(&lease, "virsh start seed_1").await.code, 0);
        let (ours, real) = (w.run(&lease, line).await, in_a_shell(w.folder.path(), line).await);
        // Two lines of our own are added on standard error; clients look for virsh's.
        let err: String = ours
            .err
            .lines()
            .filter(|l| !l.starts_with("Calling ") && !l.starts_with("toci: "))
            .map(|l| format!("{l}\n"))
            .collect();
        assert_eq!((ours.code, ours.out, err), (real.code, real.out, real.err), "{line}");
    }
}
