//! The same bytes to Debian's gearmand and to our broker in its dialect: the same bytes come back,
//! but for what gearmand gets wrong, which is left out or named here.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod gearman_support;

use gearman_support::{Peer, Process, Served, program, wait_for};
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use toci_core::broker::Settings;

/// Who says it, and what.
enum Step {
    Line(&'static str),
    Packet(usize, u32, &'static [&'static [u8]]),
}

const ADMIN: usize = 0;
const CLIENT: usize = 1;
const WORKER: usize = 2;

/// Not in here, as gearmand does it wrong: `SUBMIT_REDUCE_JOB` and `SUBMIT_JOB_SCHED` (no answer,
/// then the connection is dropped), too few arguments (no answer), unknown types (dropped, or the
/// process dies), `create function` with a bare line feed (loses a letter), the status total after
/// a cancelled job, the stray NUL after the handle in the `WORK_FAIL` of an exception.
const CONVERSATION: &[Step] = &[
    Step::Line("foo"),
    Step::Line(""),
    Step::Line("create"),
    Step::Line("create function"),
    Step::Line("drop function nope"),
    Step::Line("maxqueue"),
    Step::Line("maxqueue x 1"),
    Step::Line("show"),
    Step::Line("show foo"),
    Step::Line("shutdown foo"),
    Step::Line("cancel job"),
    Step::Line("cancel job H:x:1"),
    Step::Line("STATUS"),
    Step::Line("create function made"),
    Step::Line("drop function made"),
    Step::Packet(CLIENT, 26, &[b"exceptions"]),
    Step::Packet(CLIENT, 26, &[b"colour"]),
    Step::Packet(CLIENT, 15, &[b"H:foo:1"]),
    Step::Packet(CLIENT, 41, &[b"nope"]),
    Step::Packet(CLIENT, 7, &[b"f", b"u1", b"x"]),
    Step::Packet(CLIENT, 7, &[b"f", b"u1", b"y"]),
    Step::Packet(CLIENT, 18, &[b"f", b"u2", b"z"]),
    Step::Packet(CLIENT, 21, &[b"f", b"", b"high"]),
    Step::Packet(CLIENT, 34, &[b"f", b"-", b"low"]),
    Step::Packet(CLIENT, 36, &[b"g", b"u3", b"4000000000", b"z"]),
    Step::Packet(CLIENT, 41, &[b"u1"]),
    Step::Line("status"),
    Step::Line("prioritystatus"),
    Step::Packet(WORKER, 22, &[b"a-worker"]),
    Step::Packet(WORKER, 24, &[]),
    Step::Packet(WORKER, 9, &[]),
    Step::Packet(WORKER, 1, &[b"f"]),
    Step::Packet(WORKER, 30, &[]),
    Step::Packet(WORKER, 12, &[b"H:vm:3", b"1", b"2"]),
    Step::Packet(CLIENT, 15, &[b"H:vm:3"]),
    Step::Packet(WORKER, 28, &[b"H:vm:3", b"part"]),
    Step::Packet(WORKER, 29, &[b"H:vm:3", b"careful"]),
    Step::Packet(WORKER, 13, &[b"H:vm:3", b"all"]),
    Step::Packet(WORKER, 13, &[b"H:vm:3", b"again"]),
    Step::Packet(WORKER, 9, &[]),
    Step::Packet(WORKER, 25, &[b"H:vm:1", b"boom"]),
    Step::Packet(WORKER, 39, &[]),
    Step::Packet(WORKER, 14, &[b"H:vm:2"]),
    Step::Packet(WORKER, 9, &[]),
    Step::Line("status"),
    Step::Packet(WORKER, 14, &[b"H:vm:4"]),
    Step::Packet(WORKER, 4, &[]),
    Step::Packet(WORKER, 2, &[b"never registered"]),
    Step::Packet(WORKER, 6, &[]),
    Step::Line("drop function f"),
    Step::Packet(WORKER, 3, &[]),
    Step::Packet(WORKER, 30, &[]),
    Step::Line("drop function f"),
    Step::Packet(CLIENT, 18, &[b"q", b"", b"1"]),
    Step::Line("maxqueue q 2"),
    Step::Packet(WORKER, 1, &[b"q"]),
    Step::Packet(WORKER, 9, &[]),
    Step::Packet(CLIENT, 18, &[b"q", b"", b"2"]),
    Step::Packet(CLIENT, 18, &[b"q", b"", b"3"]),
    Step::Packet(CLIENT, 32, &[b"q", b"", b"4"]),
];

fn packet(kind: u32, arguments: &[&[u8]]) -> Vec<u8> {
    let body = arguments.join(&0);
    let mut bytes = b"\0REQ".to_vec();
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// All that `peer` has been sent, up to the answer to an echo.
fn heard(peer: &mut Peer) -> String {
    const MARK: &[u8] = b"\0RES\0\0\0\x11\0\0\0\x04mark";
    peer.bytes(&packet(16, &[b"mark"]));
    let mut all = Vec::new();
    while !all.ends_with(MARK) {
        let mut byte = [0; 4096];
        let taken = peer.stream.read(&mut byte).unwrap();
        assert!(taken > 0, "closed after {}", String::from_utf8_lossy(&all));
        all.extend_from_slice(&byte[..taken]);
    }
    all.truncate(all.len() - MARK.len());
    String::from_utf8_lossy(&all).replace('\0', "·")
}

/// Handles in the conversation are of a host `vm`.
fn with_host(argument: &[u8], host: &str) -> Vec<u8> {
    match argument.strip_prefix(b"H:vm:") {
        Some(number) => [format!("H:{host}:").as_bytes(), number].concat(),
        None => argument.to_vec(),
    }
}

/// What each of the three hears after each step.
fn converse(address: SocketAddr, host: &str) -> Vec<String> {
    let mut peers = [Peer::connect(address), Peer::connect(address), Peer::connect(address)];
    let mut all = Vec::new();
    for step in CONVERSATION {
        let told = match step {
            Step::Line(line) => {
                peers[ADMIN].bytes(format!("{line}\r\n").as_bytes());
                format!("{line:?}")
            }
            Step::Packet(who, kind, arguments) => {
                let own: Vec<Vec<u8>> = arguments.iter().map(|a| with_host(a, host)).collect();
                let own: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
                peers[*who].bytes(&packet(*kind, &own));
                format!("packet {kind} of {who}")
            }
        };
        // The speaker first: when its echo has come, the step has been handled.
        let who = if let Step::Packet(who, ..) = step { *who } else { ADMIN };
        all.push(format!("{told}: {who} hears {}", heard(&mut peers[who])));
        for (n, peer) in peers.iter_mut().enumerate().filter(|(n, _)| *n != who) {
            all.push(format!("{told}: {n} hears {}", heard(peer)));
        }
    }
    all
}

#[test]
fn gearmands_dialect_is_gearmands() {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let host = host.trim();
    let ours = Served::start(|o| o.settings = Settings::gearmand(host));
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut command = program("gearmand", "gearman-job-server");
    // One thread, so that its connections hear things in one order.
    command.args(["-L", "127.0.0.1", "-t", "0", "-l", "stderr", "-p", &port.to_string()]);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _gearmand = Process(quiet.spawn().unwrap());
    wait_for("gearmand to listen", || TcpStream::connect(address).is_ok(), |up| *up);
    let (theirs, mine) = (converse(address, host), converse(ours.address, host));
    for (theirs, mine) in theirs.iter().zip(&mine) {
        assert_eq!(mine, theirs);
    }
}
