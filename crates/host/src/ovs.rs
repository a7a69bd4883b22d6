//! Open vSwitch: bridges and ports over OVSDB's socket, flows by `ovs-ofctl`.

use crate::names;
use crate::plan::{BridgeWorld, FailMode, Port, PortWorld};
use crate::run::{CommandError, run, run_with_input};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use toci_wire::ovsdb::{self, Message, OvsdbError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

/// Longest wait for an answer of ovsdb-server.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Longest wait for ovs-vswitchd to do what the database says.
const CATCH_UP_MAX: Duration = Duration::from_secs(15);
/// How often it is asked meanwhile.
const CATCH_UP_POLL: Duration = Duration::from_millis(20);
/// With the older one that `ovs-ofctl` would take there is a single table.
const PROTOCOL: &str = "OpenFlow13";
/// `external_ids` key that marks a bridge as ours.
const MARK: &str = "toci";

/// Why Open vSwitch did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum OvsError {
    /// ovsdb-server is not there.
    #[error("connect to ovsdb-server at {path}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("talk to ovsdb-server")]
    Io(#[from] std::io::Error),
    /// It answered with an error.
    #[error("ovsdb transaction")]
    Database(#[from] OvsdbError),
    /// It did not answer, or vswitchd did not catch up.
    #[error("{0} within the time limit")]
    TooSlow(&'static str),
    /// `ovs-ofctl` failed.
    #[error("flows")]
    Flows(#[from] CommandError),
}

/// A way to the switch.
#[derive(Clone, Debug)]
pub struct Ovs {
    socket: PathBuf,
    /// Written to the mark, for people who find our bridges.
    owner: String,
}

/// A change of bridges and ports.
#[derive(Clone, Debug)]
pub enum Change<'a> {
    /// A new bridge, marked as ours.
    AddBridge(&'a str, &'a str, FailMode),
    /// A bridge with all its ports.
    DeleteBridge(&'a str),
    /// A new port of a bridge that exists or is added by the same changes.
    AddPort(&'a str, &'a str, &'a Port),
    /// A port.
    DeletePort(&'a str, &'a str),
}

impl Ovs {
    /// To the ovsdb-server at its usual socket.
    #[must_use]
    pub fn new(owner: impl Into<String>) -> Ovs {
        Ovs { socket: "/run/openvswitch/db.sock".into(), owner: owner.into() }
    }

    /// Bridges and their ports.
    pub async fn bridges(&self) -> Result<BTreeMap<String, BridgeWorld>, OvsError> {
        let rows = Rows::read(self).await?;
        let mut bridges = BTreeMap::new();
        for b in rows.bridges.values() {
            let ports = b.ports.iter().filter_map(|u| rows.ports.get(u));
            let ports = ports.filter(|p| p.name != b.name).map(|p| (p.name.clone(), p.seen(&rows)));
            bridges.insert(
                b.name.clone(),
                BridgeWorld {
                    ours: b.ours,
                    datapath: b.datapath.clone(),
                    fail_mode: b.fail_mode.clone(),
                    ports: ports.collect(),
                },
            );
        }
        Ok(bridges)
    }

    /// Waits until ovsdb-server answers.
    pub async fn ready(&self) -> Result<(), OvsError> {
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            match self.bridges().await {
                Ok(_) => return Ok(()),
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(_) => sleep(CATCH_UP_POLL).await,
            }
        }
    }

    /// Makes all the changes in one transaction and waits until vswitchd has made them real.
    pub async fn change(&self, changes: &[Change<'_>]) -> Result<(), OvsError> {
        if changes.is_empty() {
            return Ok(());
        }
        let rows = Rows::read(self).await?;
        let mut ops = Vec::new();
        for (i, change) in changes.iter().enumerate() {
            ops.extend(operations(change, i, &rows, &self.owner));
        }
        ops.push(ovsdb::bump_next_cfg());
        ops.push(ovsdb::select("Open_vSwitch", &["next_cfg"]));
        let results = self.transact(ops).await?;
        let wanted = results.last().and_then(|r| r["rows"][0]["next_cfg"].as_i64()).unwrap_or(0);
        let deadline = Instant::now() + CATCH_UP_MAX;
        loop {
            let r = self.transact(vec![ovsdb::select("Open_vSwitch", &["cur_cfg"])]).await?;
            if r[0]["rows"][0]["cur_cfg"].as_i64().unwrap_or(-1) >= wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(OvsError::TooSlow("ovs-vswitchd did not make the changes real"));
            }
            sleep(CATCH_UP_POLL).await;
        }
    }

    /// How the flow table differs from `flows`; empty when it does not.
    pub async fn flow_differences(
        &self,
        bridge: &str,
        flows: &[String],
    ) -> Result<Vec<String>, OvsError> {
        let out = run_with_input(
            "ovs-ofctl",
            &["-O", PROTOCOL, "diff-flows", bridge, "/dev/stdin"],
            flows.join("\n").as_bytes(),
            &[0, 2],
        )
        .await?;
        Ok(out.lines().map(str::trim).filter(|l| !l.is_empty()).map(str::to_owned).collect())
    }

    /// Replaces the flow table; flows that stay are not interrupted.
    pub async fn set_flows(&self, bridge: &str, flows: &[String]) -> Result<(), OvsError> {
        let text = flows.join("\n");
        run_with_input(
            "ovs-ofctl",
            &["-O", PROTOCOL, "replace-flows", bridge, "-"],
            text.as_bytes(),
            &[0],
        )
        .await?;
        Ok(())
    }

    /// Forgets the connections that a bridge remembers in a zone.
    pub async fn forget_connections(&self, bridge: &str, zone: u16) -> Result<(), OvsError> {
        let zone = format!("zone={zone}");
        run("ovs-ofctl", &["-O", PROTOCOL, "ct-flush", bridge, &zone]).await?;
        Ok(())
    }

    /// For people: the flow table as it is, with its counters, ports by number; of one port if one is named.
    pub async fn shown_flows(&self, bridge: &str, port: Option<u16>) -> Result<String, OvsError> {
        let filter = port.map(|port| format!("in_port={port}"));
        let mut args = vec!["-O", PROTOCOL, "--no-names", "dump-flows", bridge];
        args.extend(filter.as_deref());
        Ok(run("ovs-ofctl", &args).await?)
    }

    /// For people: the ports as they are and what went through them. Of one port only the latter: asked for the former,
    /// the switch would show all of them.
    pub async fn shown_ports(&self, bridge: &str, port: Option<u16>) -> Result<String, OvsError> {
        match port {
            Some(port) => Ok(run("ovs-ofctl", &["dump-ports", bridge, &port.to_string()]).await?),
            None => {
                let ports = run("ovs-ofctl", &["dump-ports-desc", bridge]).await?;
                Ok(ports + &run("ovs-ofctl", &["dump-ports", bridge]).await?)
            }
        }
    }

    /// What vswitchd would do with a packet (`ofproto/trace`): for self-checks.
    pub async fn trace(&self, bridge: &str, packet: &str) -> Result<String, OvsError> {
        Ok(run("ovs-appctl", &["ofproto/trace", bridge, packet]).await?)
    }

    async fn transact(&self, ops: Vec<Value>) -> Result<Vec<Value>, OvsError> {
        match timeout(ANSWER_MAX, self.transact_now(ops)).await {
            Ok(r) => r,
            Err(_) => Err(OvsError::TooSlow("ovsdb-server did not answer")),
        }
    }

    async fn transact_now(&self, ops: Vec<Value>) -> Result<Vec<Value>, OvsError> {
        let mut stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| OvsError::Connect { path: self.socket.clone(), source })?;
        stream.write_all(&ovsdb::transact(1, ops)).await?;
        let mut buffer = Vec::new();
        loop {
            while let Some(message) = ovsdb::take_message(&mut buffer)? {
                match message {
                    Message::Reply { id: 1, result } => return Ok(result?),
                    Message::Echo { id, params } => {
                        stream.write_all(&ovsdb::echo_reply(&id, &params)).await?;
                    }
                    Message::Reply { .. } | Message::Other => {}
                }
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

fn operations(change: &Change<'_>, i: usize, rows: &Rows, owner: &str) -> Vec<Value> {
    match change {
        Change::AddBridge(name, datapath, fail_mode) => {
            let (b, p, n) = (format!("bridge{i}"), format!("port{i}"), format!("iface{i}"));
            let row = json!({
                "name": name, "ports": ovsdb::named_uuid(&p), "datapath_type": datapath,
                "fail_mode": fail_mode.as_str(),
                "external_ids": ovsdb::map(&[(MARK, owner.to_owned())]),
            });
            vec![
                ovsdb::insert("Interface", &n, json!({"name": name, "type": "internal"})),
                ovsdb::insert(
                    "Port",
                    &p,
                    json!({"name": name, "interfaces": ovsdb::named_uuid(&n)}),
                ),
                ovsdb::insert("Bridge", &b, row),
                ovsdb::mutate_set(
                    "Open_vSwitch",
                    None,
                    "bridges",
                    "insert",
                    vec![ovsdb::named_uuid(&b)],
                ),
            ]
        }
        Change::DeleteBridge(name) => {
            let uuids = rows.bridges.iter().filter(|(_, b)| b.name == *name);
            let uuids: Vec<Value> = uuids.map(|(u, _)| ovsdb::uuid(u)).collect();
            if uuids.is_empty() {
                return Vec::new();
            }
            vec![ovsdb::mutate_set("Open_vSwitch", None, "bridges", "delete", uuids)]
        }
        Change::AddPort(bridge, name, port) => {
            let (p, n) = (format!("port{i}"), format!("iface{i}"));
            let mut interface = json!({"name": name, "type": port.kind.as_str()});
            if let Some(number) = port.ofport {
                interface["ofport_request"] = json!(number);
            }
            if let Some(mac) = &port.mac {
                interface["mac"] = json!(mac);
            }
            let row = json!({"name": name, "interfaces": ovsdb::named_uuid(&n),
                             "protected": port.protected});
            vec![
                ovsdb::insert("Interface", &n, interface),
                ovsdb::insert("Port", &p, row),
                ovsdb::mutate_set(
                    "Bridge",
                    Some(bridge),
                    "ports",
                    "insert",
                    vec![ovsdb::named_uuid(&p)],
                ),
            ]
        }
        Change::DeletePort(bridge, name) => {
            let uuids = rows.ports.iter().filter(|(_, p)| p.name == *name);
            let uuids: Vec<Value> = uuids.map(|(u, _)| ovsdb::uuid(u)).collect();
            if uuids.is_empty() {
                return Vec::new();
            }
            vec![ovsdb::mutate_set("Bridge", Some(bridge), "ports", "delete", uuids)]
        }
    }
}

struct BridgeRow {
    name: String,
    ours: bool,
    datapath: String,
    fail_mode: String,
    ports: Vec<String>,
}

struct PortRow {
    name: String,
    protected: bool,
    interface: Option<String>,
}

struct Rows {
    bridges: BTreeMap<String, BridgeRow>,
    ports: BTreeMap<String, PortRow>,
    interfaces: BTreeMap<String, Value>,
}

impl PortRow {
    fn seen(&self, rows: &Rows) -> PortWorld {
        let empty = Value::Null;
        let i = self.interface.as_ref().and_then(|u| rows.interfaces.get(u)).unwrap_or(&empty);
        let text = |column: &str| ovsdb::optional_text(&i[column]).filter(|s| !s.is_empty());
        PortWorld {
            kind: text("type").filter(|t| t != "system").unwrap_or_default(),
            ofport: ovsdb::optional_number(&i["ofport_request"])
                .and_then(|n| u16::try_from(n).ok()),
            protected: self.protected,
            mac: text("mac"),
            error: text("error"),
        }
    }
}

impl Rows {
    async fn read(ovs: &Ovs) -> Result<Rows, OvsError> {
        let results = ovs
            .transact(vec![
                ovsdb::select(
                    "Bridge",
                    &["_uuid", "name", "datapath_type", "fail_mode", "external_ids", "ports"],
                ),
                ovsdb::select("Port", &["_uuid", "name", "protected", "interfaces"]),
                ovsdb::select(
                    "Interface",
                    &["_uuid", "name", "type", "ofport_request", "mac", "error"],
                ),
            ])
            .await?;
        let rows =
            |i: usize| results.get(i).and_then(|r| r["rows"].as_array()).into_iter().flatten();
        let uuids = |v: &Value| ovsdb::members(v).iter().filter_map(ovsdb::uuid_text).collect();
        let bridges = rows(0).filter_map(|r| {
            let datapath =
                r["datapath_type"].as_str().filter(|d| !d.is_empty()).unwrap_or("system");
            let row = BridgeRow {
                name: r["name"].as_str()?.to_owned(),
                ours: ovsdb::entries(&r["external_ids"]).contains_key(MARK),
                datapath: datapath.to_owned(),
                fail_mode: ovsdb::optional_text(&r["fail_mode"])
                    .unwrap_or_else(|| FailMode::Standalone.as_str().to_owned()),
                ports: uuids(&r["ports"]),
            };
            Some((ovsdb::uuid_text(&r["_uuid"])?, row))
        });
        let ports = rows(1).filter_map(|r| {
            let interfaces: Vec<String> = uuids(&r["interfaces"]);
            let row = PortRow {
                name: r["name"].as_str()?.to_owned(),
                protected: r["protected"].as_bool().unwrap_or(false),
                interface: interfaces.into_iter().next(),
            };
            Some((ovsdb::uuid_text(&r["_uuid"])?, row))
        });
        let interfaces = rows(2).filter_map(|r| Some((ovsdb::uuid_text(&r["_uuid"])?, r.clone())));
        Ok(Rows {
            bridges: bridges.collect(),
            ports: ports.collect(),
            interfaces: interfaces.collect(),
        })
    }
}

/// Whether a bridge is one that we care about.
#[must_use]
pub fn is_interesting(name: &str, bridge: &BridgeWorld) -> bool {
    let private = name
        .strip_prefix("brbm")
        .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    bridge.ours || private || name == names::PUBLIC_BRIDGE
}
