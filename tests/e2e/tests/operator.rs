//! What an operator does to machines, on a real host: while somebody holds the TE, and when nobody does.

use std::process::Output;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::{Ci, wait_for};
use toci_wire::api::TeState;

const LIMIT: Duration = Duration::from_secs(60);

/// A script in the operator's shell.
fn operator(ci: &Ci, script: &str) -> Result<Output> {
    Ok(ci.operator_shell()?.args(["-c", script]).output()?)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Width and height, if the chunks follow each other from the signature to the end.
fn png_size(png: &[u8]) -> Option<(u32, u32)> {
    let mut rest = png.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    let u32_at =
        |b: &[u8], at: usize| Some(u32::from_be_bytes(b.get(at..at + 4)?.try_into().ok()?));
    let mut size = None;
    loop {
        let length = usize::try_from(u32_at(rest, 0)?).ok()?;
        let kind = rest.get(4..8)?;
        if kind == b"IHDR" {
            size = Some((u32_at(rest, 8)?, u32_at(rest, 12)?));
        }
        let next = rest.get(length + 12..)?;
        if kind == b"IEND" {
            return size.filter(|_| next.is_empty());
        }
        rest = next;
    }
}

#[test]
fn an_operator_sees_and_switches_what_is_held_and_leaves_alone_what_is_free() {
    let ci = Ci::start(1).unwrap();
    let mut client = ci.lease_run("client", &[], "echo up; sleep 1000").unwrap();
    let up = || -> Result<()> {
        let output = client.output();
        ensure!(output.contains("up"), "{output}\n{}", client.log_tail());
        Ok(())
    };
    wait_for("the lease", LIMIT, up).unwrap();

    let said = operator(
        &ci,
        "set -e
         qemu-img create -q -f qcow2 small.qcow2 64M
         toci te push-image tehost1-1 small.qcow2
         toci te power tehost1-1 on --machine seed_1
         toci te push-image tehost1-1 small.qcow2 && exit 9
         toci te screenshot tehost1-1 seed_1 --output seed.png
         toci te screenshot tehost1-1 baremetalbrbm1_0 --output off.png && exit 9
         toci te view tehost1-1 >view.txt
         toci te power tehost1-1 off",
    )
    .unwrap();
    let errors = text(&said.stderr);
    assert!(said.status.success(), "{}{errors}", text(&said.stdout));
    assert!(errors.contains("seed_1 is running"), "{errors}");
    let png = std::fs::read(ci.lab.folder().join("seed.png")).unwrap();
    let (width, height) = png_size(&png).expect("no PNG");
    assert!(width >= 320 && height >= 200, "{width} x {height}");

    let view = std::fs::read_to_string(ci.lab.folder().join("view.txt")).unwrap();
    let there = [
        "on  seed_1\n",
        "off baremetalbrbm1_0\n",
        "===== ports of brbm1\n",
        "===== flows of br-ctlplane, port of the seed\n",
        "in_port=1001",
        "===== definition of baremetalbrbm1_0\n<domain",
    ];
    for words in there {
        assert!(view.contains(words), "{words}: {view}");
    }
    assert!(!view.contains("(ovs-ofctl"), "{view}");

    client.kill().unwrap();
    let ready = |all: &[toci_wire::api::TestEnv]| {
        all.iter().all(|te| te.state == TeState::Ready && te.generation == 1)
    };
    ci.wait_for_testenvs("ready", LIMIT, ready).unwrap();
    for command in ["power tehost1-1 on", "push-image tehost1-1 small.qcow2"] {
        let said = operator(&ci, &format!("toci te {command}")).unwrap();
        assert!(!said.status.success(), "{command} was done to a free TE");
        assert!(text(&said.stderr).contains("lease it first"), "{}", text(&said.stderr));
    }
    let status = operator(&ci, "toci te power tehost1-1 status").unwrap();
    assert!(text(&status.stdout).contains("seed_1"), "{}", text(&status.stderr));
}
