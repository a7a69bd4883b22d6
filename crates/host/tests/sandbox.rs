//! A sandboxed TE host with one TE, with the real libvirt, QEMU, Open vSwitch and dnsmasq. Its
//! namespaces are the sandbox's own: nothing of the machine is touched but a folder.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_toci-host");
/// Longest wait for anything here; the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(60);

struct TeHost {
    folder: tempfile::TempDir,
    running: Option<Child>,
}

impl TeHost {
    fn new() -> TeHost {
        assert!(
            nix::unistd::Uid::effective().is_root(),
            "this test makes namespaces: run it as root"
        );
        for (program, package) in [
            ("libvirtd", "libvirt-daemon-system"),
            ("virsh", "libvirt-clients"),
            ("qemu-system-x86_64", "qemu-system-x86"),
            ("qemu-img", "qemu-utils"),
            ("ovs-vswitchd", "openvswitch-switch"),
            ("dnsmasq", "dnsmasq-base"),
        ] {
            let found = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"]
                .iter()
                .any(|f| Path::new(f).join(program).exists());
            assert!(found, "{program} is missing: apt-get install {package}");
        }
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state").display().to_string();
        let config = format!(
            r#"name = "t"
state = "{state}"
[network]
address = "198.18.9.2/24"
seed_addresses = "198.18.9.101-198.18.9.109"
[reserve]
memory_mib = 0
disk_mib = 0
[accelerator]
never_kvm = true
[[testenv]]
shape = "tiny"
count = 1
[shape.tiny]
cpu_overcommit = 16.0
seed = {{ cpus = 1, memory_mib = 128, disk_gb = 1 }}
nodes = {{ count = 1, cpus = 1, memory_mib = 128, disk_gb = 1 }}
"#
        );
        std::fs::write(folder.path().join("c.toml"), config).unwrap();
        let host = TeHost { folder, running: None };
        host.install();
        host
    }

    /// As a package does it: the file is another one afterwards. Another process copies it: what this one has open for
    /// writing, a child that another test starts meanwhile would have open too, and it could not be run (ETXTBSY).
    fn install(&self) {
        let (new, place) = (self.folder.path().join("new"), self.folder.path().join("toci-host"));
        let copied = Command::new("cp").arg(PROGRAM).arg(&new).status().unwrap();
        assert!(copied.success(), "{copied}");
        std::fs::rename(new, place).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("state").join(name)
    }

    fn command(&self, verb: &str) -> Command {
        // The program that runs may be exchanged by one that is no good; what asks it is not.
        let own = self.folder.path().join("toci-host");
        let mut c = Command::new(if verb == "run" { own } else { PROGRAM.into() });
        c.arg(verb).arg("--config").arg(self.folder.path().join("c.toml"));
        c
    }

    fn start(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("run.log")).unwrap();
        let _ = std::fs::remove_file(self.path("test_env_1.json"));
        let child = self
            .command("run")
            .arg("--standalone")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.running = Some(child);
        self.wait_for("the TE is served", |h| {
            std::fs::metadata(h.path("test_env_1.json")).is_ok_and(|m| m.len() > 0)
        });
    }

    /// Standard output of a command that must succeed.
    fn ask(&self, verb: &str, arguments: &[&str]) -> String {
        let out = self.command(verb).args(arguments).output().unwrap();
        let (said, error) =
            (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{verb} {arguments:?}: {said}{error}");
        said.into_owned()
    }

    fn enter(&self, arguments: &[&str]) -> String {
        self.ask("enter", arguments)
    }

    fn sh(&self, script: &str) -> String {
        self.enter(&["sh", "-c", script])
    }

    fn running_machines(&self) -> Vec<String> {
        let names = self.enter(&["virsh", "list", "--name"]);
        names.lines().filter(|l| !l.is_empty()).map(str::to_owned).collect()
    }

    fn dhcp_servers(&self) -> Vec<String> {
        self.sh("pgrep -x dnsmasq || true").lines().map(str::to_owned).collect()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("run.log")).unwrap_or_default()
    }

    fn te_json(&self) -> serde_json::Value {
        serde_json::from_slice(&std::fs::read(self.path("test_env_1.json")).unwrap()).unwrap()
    }

    fn wait_for(&self, what: &str, mut done: impl FnMut(&TeHost) -> bool) {
        let deadline = Instant::now() + LIMIT;
        while !done(self) {
            assert!(Instant::now() < deadline, "not within {LIMIT:?}: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn nothing_to_do(&self) -> bool {
        let out = self.command("plan").output().unwrap();
        out.stdout == b"nothing to do\n"
    }

    /// Which program serves the host, as soon as one does so well.
    fn wait_for_the_agent(&self, what: &str) {
        self.wait_for(what, |h| {
            std::fs::read_to_string(h.path("agent.json")).is_ok_and(|t| t.contains("\"program\""))
        });
    }

    /// Has the agent make way for the program that is installed now.
    fn hand_over(&self) {
        let _ = std::fs::remove_file(self.path("agent.json"));
        let pid = self.running.as_ref().unwrap().id().cast_signed();
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::SIGUSR2).unwrap();
    }

    /// Exchanges the program by a script.
    fn install_script(&self, script: &str) {
        let (new, place) = (self.folder.path().join("new"), self.folder.path().join("toci-host"));
        let made = Command::new("sh")
            .args(["-c", r#"printf '%s\n' "$2" >"$1" && chmod 755 "$1""#, "sh"])
            .arg(&new)
            .arg(script)
            .status();
        assert!(made.unwrap().success());
        std::fs::rename(new, place).unwrap();
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What the switch does with a packet from the port of the seed; as part of a connection that was begun from the other
    /// side, if it is an answer.
    fn trace(&self, packet: &str, answer: bool) -> String {
        let said = self.traced(1001, packet, answer);
        let actions = said.lines().rev().find_map(|l| l.strip_prefix("Datapath actions: "));
        actions.unwrap_or_else(|| panic!("{said}")).to_owned()
    }

    fn traced(&self, port: u16, packet: &str, answer: bool) -> String {
        let flow = format!("in_port={port},{packet}");
        let mut trace = vec!["ovs-appctl", "ofproto/trace", "br-ctlplane", &flow];
        if answer {
            trace.extend(["--ct-next", "trk,est,rpl"]);
        }
        self.enter(&trace)
    }

    fn no_packet_lies(&self) {
        let json = self.te_json();
        let mac = json["toci"]["seed_mac"][0].as_str().unwrap();
        let me = "198.18.9.101";
        let drop = |packet: String| {
            assert_eq!(self.trace(&packet, false), "drop", "{packet}");
        };
        let pass = |packet: String| {
            assert_ne!(self.trace(&packet, false), "drop", "{packet}");
        };
        let ip = |mac: &str, from: &str| {
            format!("dl_src={mac},dl_dst=ff:ff:ff:ff:ff:ff,tcp,nw_src={from},nw_dst=198.18.9.3")
        };
        // Of the host there is the gateway, and what the host asked for; a private network gives answers.
        let to = |from: &str, to: &str, port: u16| {
            format!(
                "dl_src={mac},dl_dst=ff:ff:ff:ff:ff:ff,tcp,nw_src={from},nw_dst={to},tcp_src=9,tcp_dst={port}"
            )
        };
        pass(to(me, "198.18.9.2", 22));
        for packet in [to(me, "198.18.9.2", 23), to("192.0.2.2", "198.18.9.3", 80)] {
            assert_eq!(self.trace(&packet, false), "drop", "{packet}");
            assert_ne!(self.trace(&packet, true), "drop", "{packet}");
        }
        drop(to(me, "192.0.2.2", 80));
        pass(ip(mac, me));
        drop(ip(mac, "198.18.9.102"));
        drop(ip("00:00:00:00:00:99", me));
        let arp = |sha: &str, spa: &str| {
            format!(
                "dl_src={mac},dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_sha={sha},arp_spa={spa},arp_tpa=198.18.9.2"
            )
        };
        pass(arp(mac, me));
        drop(arp(mac, "198.18.9.2"));
        drop(arp("00:00:00:00:00:99", me));
        let dhcp = |from: &str, src: u16, dst: u16| {
            format!(
                "dl_src={mac},dl_dst=ff:ff:ff:ff:ff:ff,udp,nw_src={from},nw_dst=255.255.255.255,udp_src={src},udp_dst={dst}"
            )
        };
        pass(dhcp("0.0.0.0", 68, 67));
        drop(dhcp(me, 67, 68));
        drop(format!("dl_src={mac},dl_dst=33:33:00:00:00:01,ipv6"));
        drop(format!("dl_vlan=25,{}", ip(mac, me)));
        drop(format!("dl_vlan=25,{}", arp(mac, me)));
    }

    /// What the holder of the lease says to the gateway.
    fn holder(&self, command: &str) -> String {
        let json = self.te_json();
        let key = json["ssh-key"].as_str().unwrap();
        self.sh(&format!(
            "umask 077; printf %s '{key}' >/run/lock/key; \
             ssh -Fnone -oBatchMode=yes -oStrictHostKeyChecking=no -oUserKnownHostsFile=/dev/null -oLogLevel=ERROR \
             -i/run/lock/key root@198.18.9.2 {command}"
        ))
    }

    /// Whether this address reaches the seed, and, through it, the private network.
    fn reaches_the_seed(&self, from: &str) -> bool {
        let json = self.te_json();
        let mac = json["toci"]["seed_mac"][0].as_str().unwrap();
        let passes = |to: &str, answer: bool| {
            let packet = format!("dl_dst={mac},tcp,nw_src={from},nw_dst={to},tcp_src=9,tcp_dst=22");
            // This host has no uplink: what would be switched comes to nothing there.
            self.traced(1, &packet, answer).lines().any(|line| line.trim() == "NORMAL")
        };
        assert!(passes("198.18.9.101", true), "an answer to what the seed began");
        let [seed, private] = ["198.18.9.101", "192.0.2.2"].map(|to| passes(to, false));
        assert_eq!(seed, private, "{from}");
        seed
    }

    fn seed_gets_its_address(&self) {
        self.sh(
            "virsh dumpxml --inactive seed_1 | sed \"s/<boot dev='hd'/<boot dev='network'/\" > /run/lock/s.xml \
             && virsh define /run/lock/s.xml && virsh start seed_1",
        );
        let log = self.path("run/dnsmasq.log");
        self.wait_for("the seed's lease", |_| {
            std::fs::read_to_string(&log).is_ok_and(|l| l.contains("DHCPACK(tedev) 198.18.9.101"))
        });
    }
}

impl Drop for TeHost {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn a_te_is_made_kept_mended_and_made_blank_again() {
    let mut host = TeHost::new();
    let before = host.ask("plan", &[]);
    assert!(before.contains("+ domain seed_1 (is missing)"), "{before}");

    host.start();
    assert_eq!(host.ask("plan", &[]), "nothing to do\n");
    assert_eq!(host.ask("apply", &[]), "nothing to do\n");
    let first = host.te_json();
    assert_eq!(first["toci"]["generation"], 1);
    host.no_packet_lies();
    host.seed_gets_its_address();
    assert!(!host.reaches_the_seed("198.18.9.77"));
    assert_eq!(host.holder("admit 198.18.9.77"), "198.18.9.77 may speak with the seed\n");
    let guests_are_known = |h: &TeHost| {
        h.reaches_the_seed("198.18.9.77") && !h.reaches_the_seed("198.18.9.78") && h.nothing_to_do()
    };
    assert!(guests_are_known(&host));

    // A second one on the same state is refused.
    let second = host.command("run").arg("--standalone").output().unwrap();
    assert_eq!(second.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&second.stderr).contains("runs already"));

    // The switch: flows come back, the DHCP server serves the new device.
    host.sh("kill -9 $(cat /run/openvswitch/ovs-vswitchd.pid)");
    host.wait_for("the switch is mended", TeHost::nothing_to_do);
    host.no_packet_lies();
    assert!(guests_are_known(&host));
    // libvirt, and Open vSwitch's database.
    host.sh("kill -9 $(cat /run/libvirt/libvirtd.pid) $(cat /run/openvswitch/ovsdb-server.pid)");
    host.wait_for("libvirt is back", TeHost::nothing_to_do);
    // The agent, with its program exchanged meanwhile and the logs wiped: the same lease goes on with
    // the same key. (virtlogd writes into the logs' folder when it is started again.)
    host.install();
    std::fs::remove_dir_all(host.path("log")).unwrap();
    host.sh("kill -9 $(cat /run/libvirt/virtlogd.pid)");
    std::fs::remove_file(host.path("test_env_1.json")).unwrap();
    host.sh("kill -9 $(pgrep -P 1 -x toci-host)");
    host.wait_for("the agent is back", |h| {
        std::fs::metadata(h.path("test_env_1.json")).is_ok_and(|m| m.len() > 0)
    });
    let second = host.te_json();
    assert_eq!(second["ssh-key"], first["ssh-key"]);
    assert_eq!(second["toci"]["generation"], 1);
    assert_eq!(host.running_machines(), ["seed_1"]);
    host.wait_for("the same guests", guests_are_known);

    // The DHCP server needs no file of the state folder once it runs.
    let before = host.dhcp_servers();
    std::fs::remove_dir_all(host.path("run")).unwrap();
    assert!(host.nothing_to_do());
    assert_eq!(host.dhcp_servers(), before);

    // A change of the network by hand is mended, one of a strange kind too.
    host.enter(&["ovs-vsctl", "del-port", "te1s0", "--", "add-port", "brbm1", "te1s0"]);
    host.wait_for("the port is back", TeHost::nothing_to_do);
    host.no_packet_lies();

    // The whole host: all is gone, and the lease is not taken up again.
    host.kill();
    std::fs::write(host.path("images/seed_1.push0"), "left over").unwrap();
    host.start();
    let third = host.te_json();
    assert_eq!(third["toci"]["generation"], 2);
    assert_ne!(third["ssh-key"], first["ssh-key"]);
    assert!(host.running_machines().is_empty());
    assert!(!host.reaches_the_seed("198.18.9.77"), "the lease that let it in is over");
    assert!(host.enter(&["virsh", "dumpxml", "seed_1"]).contains("<boot dev='hd'/>"));
    assert!(!host.path("images/seed_1.push0").exists());
    let gone = host.ask("destroy", &[]);
    assert!(gone.contains("- domain seed_1") && gone.contains("- bridge br-ctlplane"), "{gone}");
}

#[test]
fn an_agent_makes_way_for_another_and_machines_outlive_one_that_is_no_good() {
    let mut host = TeHost::new();
    host.start();
    host.wait_for_the_agent("the first agent");
    host.sh("virsh start seed_1");
    let first = host.te_json();
    let agents = |h: &TeHost| h.sh("pgrep -P 1 -x toci-host || true").trim().to_owned();
    let before = agents(&host);
    host.install();
    host.hand_over();
    host.wait_for_the_agent("the second agent");
    assert_ne!(agents(&host), before);
    assert_eq!(host.te_json()["ssh-key"], first["ssh-key"]);

    // Neither one that refuses, nor one that ends as if all were done, nor what is no program ends the machines.
    for bad in ["#!/bin/sh\nexit 2", "#!/bin/sh\nexit 0", "no program"] {
        let pid = agents(&host);
        host.install_script(bad);
        host.hand_over();
        host.wait_for("the agent to be gone", |h| agents(h) != pid);
        // Pid 1 falls back on itself when the program is none.
        host.install();
        host.hand_over();
        host.wait_for_the_agent(bad);
        assert_eq!(host.running_machines(), ["seed_1"], "{bad}");
    }
    // One that hangs is ended when it is told a second time.
    host.install_script("#!/bin/sh\ntrap '' USR2\nwhile :; do sleep 1; done");
    host.hand_over();
    host.wait_for("the one that hangs", |h| {
        h.sh("pgrep -P 1 -x toci-host -a || true").contains("/bin/sh")
    });
    host.install();
    let asked = |h: &TeHost| h.log().matches("is asked to make way").count();
    let before = asked(&host);
    host.hand_over();
    // Two signals of a kind may become one.
    host.wait_for("it to be asked", |h| asked(h) > before);
    host.hand_over();
    host.wait_for_the_agent("an agent after the one that hung");
    assert!(host.log().contains("is ended, as it did not make way"), "{}", host.log());
    assert_eq!(host.running_machines(), ["seed_1"]);
    assert_eq!(host.te_json()["ssh-key"], first["ssh-key"]);
    assert_eq!(host.te_json()["toci"]["generation"], 1);
}

#[test]
fn what_cannot_be_is_refused_with_what_to_do() {
    let host = TeHost::new();
    let refused = |verb: &str, arguments: &[&str]| {
        let out = host.command(verb).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(out.status.code(), Some(2), "{said}");
        said
    };
    assert!(refused("apply", &[]).contains("start one with `toci-host run`"));
    assert!(refused("enter", &["true"]).contains("no sandbox runs"));
    assert!(refused("run", &[]).contains("the configuration has no [server]"));
    let config = host.folder.path().join("c.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace("memory_mib = 128, disk_gb = 1 }", "memory_mib = 1000000, disk_gb = 1 }"),
    )
    .unwrap();
    let said = refused("plan", &[]);
    assert!(said.contains("TE 1 of shape tiny does not fit: not enough memory"), "{said}");
    std::fs::write(&config, text.replace("[accelerator]", "[acelerator]")).unwrap();
    let said = refused("plan", &[]);
    assert!(said.contains("c.toml:9:2: acelerator: unknown field"), "{said}");
}

#[test]
fn it_answers_to_its_name_of_2014() {
    let folder = tempfile::tempdir().unwrap();
    let worker = folder.path().join("testenv-worker");
    std::os::unix::fs::symlink(PROGRAM, &worker).unwrap();
    let out = Command::new(&worker).arg("--help").output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    for flag in ["--timeout", "--tenum", "--geard", "--debug"] {
        assert!(said.contains(flag), "{flag}: {said}");
    }
}
