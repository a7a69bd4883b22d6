//! Real packets on the test network: between a server of the cloud, TE hosts, seeds and the machines of a TE; and those that
//! must not arrive.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cloud_tests::{
    Api, BROKER, FloatingAddress, Footprint, KeyPair, Process, Server, Site, TEST_BRIDGE, wait_for,
};
use serde_json::{Value, json};

/// Longest wait for what the cloud does in the background; the machine may be busy.
const LIMIT: Duration = Duration::from_secs(180);
/// A deployment of seed and undercloud on a machine that does other things too.
const DEPLOYED_LIMIT: Duration = Duration::from_secs(400);
/// An address of the test network that is nobody's.
const NOBODY: &str = "198.18.0.77";
/// A MAC that is nobody's.
const NOBODYS_MAC: &str = "02:00:00:00:00:77";

/// What the holder of the lease does: seed and undercloud by devtest, then it waits.
const DEPLOY: &str = r#"set -e
cp "$TE_DATAFILE" "$SITE/te.json"
for stage in images seed undercloud; do "$DEVTEST/devtest_$stage.sh"; done
touch "$SITE/deployed"
until [ -e "$SITE/over" ]; do sleep 0.2; done
"#;

/// Holds another lease.
const HOLD: &str = r#"cp "$TE_DATAFILE" "$SITE/other.json"
until [ -e "$SITE/over" ]; do sleep 0.2; done
"#;

/// A server of the cloud with a leg on the tenant's network and one on the test network, as nodes have.
struct Instance {
    _server: Server,
    floating: FloatingAddress,
    host_keys: Vec<String>,
    key: KeyPair,
}

impl Instance {
    fn asked_for() -> Result<(KeyPair, Server)> {
        let ci = Api::ci()?;
        let network = |name| ci.id_of("network", "/networks", "networks", name);
        let networks = json!([{"uuid": network("private")?}, {"uuid": network("test")?}]);
        let key = KeyPair::new("packets")?;
        let more = json!({"key_name": key.name, "networks": networks, "config_drive": true});
        let server = Server::new("packets", &more)?;
        Ok((key, server))
    }

    fn up((key, server): (KeyPair, Server)) -> Result<Instance> {
        server.until("ACTIVE")?;
        let floating = FloatingAddress::of(&server)?;
        let host_keys = server.host_keys()?;
        let instance = Instance { _server: server, floating, host_keys, key };
        wait_for("SSH to the instance", LIMIT, || instance.sh("true"))?;
        Ok(instance)
    }

    fn sh(&self, script: &str) -> Result<String> {
        self.key.ssh(&self.floating.address, &self.host_keys, script)
    }

    /// Its address on the test network.
    fn address(&self) -> Result<String> {
        let shown = self.sh("ip -4 -o address show eth1")?;
        let (_, rest) = shown.split_once("inet ").with_context(|| shown.clone())?;
        Ok(rest.split('/').next().unwrap_or_default().to_owned())
    }

    /// What a TCP service says first, as seen from here; nothing when it cannot be reached.
    fn banner(&self, address: &str, port: u16) -> Result<String> {
        let script = format!("echo | nc -w 5 {address} {port} 2>/dev/null | head -c 7");
        Ok(self.sh(&script)?.trim().to_owned())
    }

    /// The statuses of HTTP calls without a token, all at once.
    fn http(&self, calls: &[(String, u16)]) -> Result<Vec<u16>> {
        let mut script = String::new();
        for (number, (call, _)) in calls.iter().enumerate() {
            // A client that says that it will say no more is not answered; so it waits.
            script += &format!(
                r"({{ printf '{call} HTTP/1.0\r\nHost: x\r\nContent-Length: 0\r\n\r\n'; sleep 8; }} | nc -w 20 {BROKER} 8080 | head -n 1 | sed 's/^/{number} /') & "
            );
        }
        let said = self.sh(&(script + "wait"))?;
        let status = |number: usize| {
            let line = said.lines().find(|line| line.starts_with(&format!("{number} ")))?;
            line.split_whitespace().nth(2)?.parse().ok()
        };
        let each = calls.iter().enumerate();
        each.map(|(number, (call, _))| status(number).with_context(|| format!("{call}: {said:?}")))
            .collect()
    }
}

/// Counts frames of a kind that come out of one cable of the test network's bridge.
struct Count<'a> {
    what: &'a str,
    cookie: String,
}

impl<'a> Count<'a> {
    /// Of counts that a frame is of the kind of, the one of the highest number counts it.
    fn begin(what: &'a str, number: u8, cable: &str, kind: &str) -> Result<Count<'a>> {
        let (cookie, priority) = (format!("0x70c1{number:02}"), 500 + u32::from(number));
        // Before Neutron's flows, which do the same with them.
        let flow =
            format!("cookie={cookie},priority={priority},in_port={cable},{kind},actions=NORMAL");
        read("ovs-ofctl", &["--names", "add-flow", TEST_BRIDGE, &flow])?;
        Ok(Count { what, cookie })
    }

    fn frames(&self) -> Result<u64> {
        let only = format!("cookie={}/-1", self.cookie);
        let said = read("ovs-ofctl", &["--names", "dump-flows", TEST_BRIDGE, &only])?;
        let (_, rest) = said.split_once("n_packets=").with_context(|| said.clone())?;
        Ok(rest.split(',').next().unwrap_or_default().parse()?)
    }

    fn some(&self) -> Result<()> {
        wait_for("frames to be counted", LIMIT, || {
            let frames = self.frames()?;
            ensure!(frames > 0, "none {}", self.what);
            println!("{frames} frames {}", self.what);
            Ok(())
        })
    }

    fn none(&self) -> Result<()> {
        let frames = self.frames()?;
        println!("{frames} frames {}", self.what);
        ensure!(frames == 0, "{frames} frames {}", self.what);
        Ok(())
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        let only = format!("cookie={}/-1", self.cookie);
        let _ = read("ovs-ofctl", &["del-flows", TEST_BRIDGE, &only]);
    }
}

fn read(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output().context(program.to_owned())?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {arguments:?}: {}", complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Everything that the proofs are about.
struct Scene {
    instance: Instance,
    te: Value,
    /// Of the other TE host.
    other: Value,
    site: Site,
}

impl Scene {
    /// A command on the seed or on the undercloud, as the holder of the lease gives it.
    fn on(&self, machine: &str, script: &str) -> Result<String> {
        let config = self.site.path("work/ssh_config").display().to_string();
        read("ssh", &["-n", "-F", &config, machine, script])
    }

    /// What a gateway tells of its machines to who comes from the instance with a lease's key.
    fn gateway(&self, gateway: &Value, key: &Value) -> Result<String> {
        use std::os::unix::fs::PermissionsExt as _;
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
        let (known, file) = (self.site.path("known_gateway"), self.site.path("lease_key"));
        fs::write(&file, text(&key["ssh-key"])?)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        let (host, port) = (text(&gateway["host-ip"])?, &gateway["toci"]["gateway"]["port"]);
        let host_key = text(&gateway["toci"]["gateway"]["host_key"])?;
        fs::write(&known, format!("gateway {host_key}\n"))?;
        let Instance { floating, host_keys, key: pair, .. } = &self.instance;
        let port = port.as_u64().context("a port")?;
        let proxy = pair.proxy(&floating.address, host_keys, (&host, port))?;
        let who = format!("{}@gateway", text(&gateway["ssh-user"])?);
        read(
            "ssh",
            &[
                "-nF/dev/null",
                "-oBatchMode=yes",
                "-oIdentitiesOnly=yes",
                &format!("-oUserKnownHostsFile={}", known.display()),
                &format!("-i{}", file.display()),
                &format!("-oProxyCommand={proxy}"),
                &who,
                "LC_ALL=C virsh list --all",
            ],
        )
    }

    fn seed(&self) -> &str {
        self.te["seed-ip"].as_str().unwrap_or_default()
    }
}

fn told(what: &str, answer: &str, expected: &str) -> Result<()> {
    println!("{what}: {:?}", answer.trim());
    ensure!(answer.contains(expected), "{what}: {answer:?}, not {expected:?}");
    Ok(())
}

#[test]
fn packets_go_where_they_should_and_nowhere_else() -> Result<()> {
    let before = Footprint::now()?;
    {
        let begun = Instant::now();
        let asked = Instance::asked_for()?;
        let mut site = Site::start("")?;
        site.add_host(1, 1)?;
        site.add_host(2, 1)?;
        site.ready(2)?;
        println!("TE hosts ready: {:.1} s", begun.elapsed().as_secs_f64());
        let cable = site.host(1)?.cable()?;
        let count = |number, what, kind: &str| Count::begin(what, number, &cable, kind);
        let answers = count(0, "out of the private network", "ip,nw_src=192.0.2.0/24")?;
        let strays = [
            count(1, "that claim a private address", "arp,arp_op=2,arp_spa=192.0.2.0/24")?,
            count(2, "with nobody's address", &format!("ip,nw_src={NOBODY}"))?,
            count(3, "that claim nobody's address", &format!("arp,arp_spa={NOBODY}"))?,
            count(4, "with nobody's MAC", &format!("dl_src={NOBODYS_MAC}"))?,
            count(5, "for another private network", "ip,nw_dst=192.0.2.0/24")?,
            count(6, "of a ping by a private machine", "icmp,icmp_type=8,nw_src=192.0.2.0/24")?,
            count(7, "of SSH by a private machine", "tcp,tp_dst=22,nw_src=192.0.2.0/24")?,
        ];
        let (mut deployer, mut holder) = leases(&site)?;
        let instance = Instance::up(asked)?;
        println!("instance up: {:.1} s", begun.elapsed().as_secs_f64());
        deployed(&site, &mut deployer)?;
        println!("seed and undercloud deployed: {:.1} s", begun.elapsed().as_secs_f64());
        holder.runs()?;
        let file =
            |name| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(site.path(name))?)?) };
        let (te, other) = (file("te.json")?, file("other.json")?);
        let scene = Scene { instance, te, other, site };
        shut(&scene)?;
        allowed(&scene)?;
        answers.some()?;
        refused(&scene, &cable)?;
        strays.iter().try_for_each(Count::none)?;
        only_what_a_node_needs(&scene)?;
        fs::write(scene.site.path("over"), "")?;
        deployer.ends(LIMIT)?;
        holder.ends(LIMIT)?;
        println!("over: {:.1} s", begun.elapsed().as_secs_f64());
    }
    before.is_restored(LIMIT)
}

/// A lease of each host's TE.
fn leases(site: &Site) -> Result<(Process, Process)> {
    let devtest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/devtest");
    let set = [
        format!("SITE={}", site.folder().display()),
        format!("DEVTEST={}", devtest.display()),
        format!("DEVTEST_WORK={}", site.path("work").display()),
        format!("DEVTEST_LOGS={}", site.path("logs").display()),
    ];
    let lease = |name, host, script| {
        let mut command = vec!["env"];
        command.extend(set.iter().map(String::as_str));
        command.extend(["toci", "lease", "run", "--label", host, "--", "bash", "-c", script]);
        site.spawn(name, &command)
    };
    Ok((lease("deployer", "tehost1", DEPLOY)?, lease("holder", "tehost2", HOLD)?))
}

fn deployed(site: &Site, deployer: &mut Process) -> Result<()> {
    let flag = site.path("deployed");
    wait_for("the deployment", DEPLOYED_LIMIT, || {
        // One that has ended will not be waited for.
        if let Err(why) = deployer.runs() {
            return Ok(Err(why));
        }
        ensure!(flag.exists(), "{}\n{}", deployer.tail(), site.logs());
        Ok(Ok(()))
    })?
}

/// Whoever has not come to the gateway with the key of the lease does not reach its seed.
fn shut(scene: &Scene) -> Result<()> {
    let Scene { instance, te, other, .. } = scene;
    let nothing = |what: &str, said: &str| {
        println!("{what}: {said:?}");
        ensure!(
            !said.contains("SSH-2.0") && !said.contains("1 packets received"),
            "{what}: {said}"
        );
        Ok(())
    };
    let ping =
        |address: &str| instance.sh(&format!("ping -c 1 -W 2 {address} | grep received; true"));
    let seed_of = |te: &Value| te["seed-ip"].as_str().unwrap_or_default().to_owned();
    let (own, foreign) = (seed_of(te), seed_of(other));
    nothing("instance -> seed before it came", &ping(&own)?)?;
    nothing("instance -> seed before it came, TCP", &instance.banner(&own, 22)?)?;
    told("instance at the gateway", &scene.gateway(te, te)?, "seed_1")?;
    told("instance -> seed, TCP", &instance.banner(&own, 22)?, "SSH-2.0")?;
    // The other seed has no system, so nothing there would answer: the other TE host counts what it does not let in.
    let mac = other["toci"]["seed_mac"][0].as_str().unwrap_or_default();
    instance.sh(&format!(
        "arp -i eth1 -s {foreign} {mac}; ping -c 2 -W 1 {foreign}; arp -d {foreign}; true"
    ))?;
    wait_for("what is not let in to be counted", LIMIT, || {
        let dump = ["ovs-ofctl", "-OOpenFlow13", "--no-names", "dump-flows", "br-ctlplane"];
        let flows = scene.site.host(2)?.enter(&dump)?;
        let drops = flows.lines().find(|l| l.contains("table=2,") && l.contains("actions=drop"));
        let packets = drops.and_then(|line| {
            line.split_once("n_packets=")?.1.split(',').next()?.parse::<u64>().ok()
        });
        ensure!(packets >= Some(2), "{flows}");
        println!("instance -> another lease's seed: {packets:?} frames dropped");
        Ok(())
    })
}

fn allowed(scene: &Scene) -> Result<()> {
    let Scene { instance, te, site, .. } = scene;
    let (me, seed) = (instance.address()?, scene.seed());
    println!("instance {me}, seed {seed}, TE host {}", te["host-ip"]);

    // The seed has what Neutron gave it for its port, and from whom.
    told("seed's address", &scene.on("seed", ". /run/dhcp.eth0; echo $ip")?, seed)?;
    let server = scene.on("seed", ". /run/dhcp.eth0; echo $serverid")?;
    let network = Api::ci()?.id_of("network", "/networks", "networks", "test")?;
    let inside = ["netns", "exec", &format!("qdhcp-{network}"), "ip", "-4", "-o", "address"];
    let neutrons = read("ip", &inside)?;
    ensure!(neutrons.contains(&format!(" {}/", server.trim())), "{server:?}: {neutrons}");
    println!("given by Neutron's DHCP server {server}");

    let ping = |from: &str, said: Result<String>| told(from, &said?, " 0% packet loss");
    let to = |address: &str| format!("ping -c 2 -W 5 {address} | grep loss");
    let host = te["host-ip"].as_str().unwrap_or_default();
    ping("instance -> TE host", instance.sh(&to(host)))?;
    ping("TE host -> instance", site.host(1)?.enter(&["sh", "-c", &to(&me)]))?;
    told("instance -> gateway", &instance.banner(host, 22)?, "SSH-2.0")?;
    ping("instance -> seed", instance.sh(&to(seed)))?;
    told("instance -> seed, TCP", &instance.banner(seed, 22)?, "SSH-2.0")?;
    ping("seed -> instance", scene.on("seed", &to(&me)))?;
    let banner = format!("echo | nc -w 5 {me} 22 | head -c 7");
    told("seed -> instance, TCP", &scene.on("seed", &banner)?, "SSH-2.0")?;

    // By the route of `seed-route-dev`, as in 2014.
    let (network, device) = (&te["baremetal-network"]["cidr"], &te["seed-route-dev"]);
    let (network, device) =
        (network.as_str().unwrap_or_default(), device.as_str().unwrap_or_default());
    instance.sh(&format!("ip route replace {network} via {seed} dev {device}"))?;
    ping("instance -> seed's private address", instance.sh(&to("192.0.2.1")))?;
    ping("instance -> undercloud", instance.sh(&to("192.0.2.2")))?;
    told("instance -> undercloud, TCP", &instance.banner("192.0.2.2", 22)?, "SSH-2.0")?;
    let sum = |script: &str| format!("{script} | head -c 1000000 | sha256sum");
    let begun = Instant::now();
    let fetched = instance.sh(&sum("wget -q -O - http://192.0.2.2/vmlinuz"))?;
    let there = scene.on("undercloud", &sum("cat /boot/vmlinuz"))?;
    println!("a megabyte from the undercloud: {:.1} s", begun.elapsed().as_secs_f64());
    ensure!(fetched == there, "{fetched} is not {there}");
    Ok(())
}

fn refused(scene: &Scene, cable: &str) -> Result<()> {
    let Scene { instance, te, other, site } = scene;
    let me = instance.address()?;
    let quiet = |machine: &str, script: &str| -> Result<()> {
        // What is refused is told by silence.
        scene.on(machine, &format!("{{ {script}; }} >/dev/null 2>&1; true")).map(drop)
    };
    // An address of nobody's, from seed and undercloud, as IP and as ARP.
    let spoof = |card: &str| {
        format!(
            "ip addr add {NOBODY}/32 dev {card}; ping -c 3 -W 1 -I {NOBODY} {me}; ping -c 2 -W 1 -I {NOBODY} {BROKER}; \
             arping -U -c 2 -s {NOBODY} -I {card} {NOBODY}; ip addr del {NOBODY}/32 dev {card}"
        )
    };
    quiet("seed", &spoof("eth0"))?;
    quiet("undercloud", &spoof("eth0"))?;
    // The undercloud asks nobody outside by its own address.
    quiet("undercloud", &format!("ping -c 2 -W 1 {me}; echo | nc -w 2 {me} 22"))?;
    // Another TE's private network: the TE host of the other lease, by its seed's MAC.
    let (their_seed, their_mac) = (&other["seed-ip"], &other["toci"]["seed_mac"][0]);
    let (their_seed, their_mac) =
        (their_seed.as_str().unwrap_or(""), their_mac.as_str().unwrap_or(""));
    quiet(
        "seed",
        &format!(
            "arp -i eth0 -s {their_seed} {their_mac}; ip route add 192.0.2.9/32 via {their_seed} dev eth0; \
             ping -c 2 -W 1 192.0.2.9; ip route del 192.0.2.9/32; arp -d {their_seed}"
        ),
    )?;
    // Another MAC. The seed cannot be reached meanwhile, so it does this by itself.
    let own = te["toci"]["seed_mac"][0].as_str().unwrap_or_default();
    let card = |mac: &str| {
        format!("ip link set eth0 down; ip link set eth0 address {mac}; ip link set eth0 up")
    };
    let script = format!(
        "rm -f /run/back; ({}; arping -c 2 -I eth0 {me}; ping -c 2 -W 1 {me}; {}; touch /run/back) </dev/null >/dev/null 2>&1 &",
        card(NOBODYS_MAC),
        card(own)
    );
    scene.on("seed", &script)?;
    wait_for("the seed to be back", LIMIT, || scene.on("seed", "test -e /run/back"))?;
    // The counts count: the same ping with its own address arrives.
    let kind = format!("ip,nw_src={}", scene.seed());
    let real = Count::begin("with the seed's own address", 8, cable, &kind)?;
    scene.on("seed", &format!("ping -c 2 -W 5 {me}"))?;
    real.some()?;
    // What did not arrive was sent: the TE host's own switch has dropped it.
    wait_for("dropped frames to be counted", LIMIT, || {
        let flows = [
            "ovs-ofctl",
            "-OOpenFlow13",
            "--no-names",
            "dump-flows",
            "br-ctlplane",
            "table=0,in_port=1001",
        ];
        let flows = site.host(1)?.enter(&flows)?;
        let of = |kind: &str| {
            let line = flows.lines().find(|line| line.contains(kind) && line.contains("=drop"))?;
            line.split_once("n_packets=")?.1.split(',').next()?.parse::<u64>().ok()
        };
        let (lies, strays) = (of("priority=100"), of("priority=260"));
        ensure!(lies > Some(0) && strays > Some(0), "{flows}");
        println!(
            "dropped on the TE host: {lies:?} that lie, {strays:?} for another private network"
        );
        Ok(())
    })
}

/// Something of a TE host's own that listens, on a port that nodes have no business with.
const SERVICE: u16 = 9999;

fn only_what_a_node_needs(scene: &Scene) -> Result<()> {
    let Scene { instance, te, site, .. } = scene;
    let (host, address) = (site.host(1)?, te["host-ip"].as_str().unwrap_or_default());
    let (service, name) = (SERVICE.to_string(), "service");
    let config = site.path("tehost1.toml").display().to_string();
    let listens = [
        "toci-host",
        "enter",
        "-c",
        &config,
        "busybox",
        "nc",
        "-ll",
        "-p",
        &service,
        "-e",
        "echo",
        "open",
    ];
    let _service = site.spawn(name, &listens)?;
    let itself = format!("busybox nc -w 2 {address} {service} </dev/null");
    let open = wait_for("the service", LIMIT, || {
        let said = host.enter(&["sh", "-c", &itself])?;
        ensure!(said.contains("open"), "{said}");
        Ok(said)
    })?;
    let listening = host.enter(&["ss", "-Hltn"])?;
    println!("the TE host listens on:\n{listening}itself: {open}");
    let ports = listening.lines().filter_map(|l| l.split_whitespace().nth(3)?.rsplit(':').next());
    for port in ports {
        let said = instance.banner(address, port.parse()?)?;
        println!("instance -> {address}:{port}: {said:?}");
        ensure!(said.is_empty() != (port == "22"), "port {port} of the TE host says {said:?}");
    }
    of_the_gateways(scene)?;
    of_the_server(instance)
}

/// The key of a lease opens the gateway of that lease from a node, and no other one.
fn of_the_gateways(scene: &Scene) -> Result<()> {
    let own = scene.gateway(&scene.te, &scene.te)?;
    told("instance -> gateway of its own lease", &own, "seed_1 ")?;
    for (gateway, key) in [(&scene.other, &scene.te), (&scene.te, &scene.other)] {
        let said = scene.gateway(gateway, key).err().context("another lease's key was taken")?;
        told("instance -> gateway of another lease", &said.to_string(), "Permission denied")?;
    }
    Ok(())
}

/// What the server says to whoever has no token.
fn of_the_server(instance: &Instance) -> Result<()> {
    let api = "/api/v1";
    let calls = [
        ("GET /healthz".to_owned(), 200),
        ("GET /metrics".to_owned(), 401),
        (format!("GET {api}/leases"), 401),
        (format!("GET {api}/testenvs"), 401),
        (format!("GET {api}/hosts"), 401),
        (format!("GET {api}/tokens"), 401),
        (format!("POST {api}/tokens"), 401),
        (format!("POST {api}/hosts/enrol-tokens"), 401),
        (format!("DELETE {api}/hosts/tehost1"), 401),
        (format!("POST {api}/system/exit"), 401),
        (format!("GET {api}/alerts"), 401),
    ];
    for ((call, status), said) in calls.iter().zip(instance.http(&calls)?) {
        println!("instance: {call}: {said}");
        ensure!(said == *status, "{call}: {said}, not {status}");
    }
    Ok(())
}
