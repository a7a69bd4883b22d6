//! A TE host on a server of a cloud: what is there, what is missing, and in which order it is made.
//!
//! ```text
//! port of its own network -> port of the test network -> floating IP -> server
//! ```
//!
//! What is made carries the host's mark ([`mark`], [`metadata`]); nothing else counts as the host's. The server is the
//! last: one that is there has all that it needs.

use crate::refused::Refused;
use core::fmt;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Metadata key of a server: which toci.
const OWNER_KEY: &str = "toci_owner";
/// Metadata key of a server: which TE host.
const HOST_KEY: &str = "toci_te_host";

/// Description of ports and floating IPs of a TE host.
#[must_use]
pub fn mark(owner: &str, host: &str) -> String {
    format!("toci-te-host:{owner}:{host}")
}

/// Metadata of a TE host's server.
#[must_use]
pub fn metadata(owner: &str, host: &str) -> BTreeMap<String, String> {
    [(OWNER_KEY, owner), (HOST_KEY, host)].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

/// Whether a server with this metadata is that TE host's.
#[must_use]
pub fn is_marked(found: &BTreeMap<String, String>, owner: &str, host: &str) -> bool {
    metadata(owner, host).iter().all(|(key, value)| found.get(key) == Some(value))
}

/// What a host should have, as far as it is decided here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerWish {
    /// Its name.
    pub host: String,
    /// Its address on the test network; `None`: one that the cloud chooses.
    pub address: Option<IpAddr>,
    /// Whether it is reached by a floating IP.
    pub floating: bool,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundServer {
    /// What the cloud knows it by.
    pub id: String,
    /// Nova's word, e.g. `ACTIVE`.
    pub status: String,
    /// Why it is in `ERROR`.
    pub fault: String,
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostPort {
    /// What the cloud knows it by.
    pub id: String,
    /// Its first address.
    pub address: Option<IpAddr>,
}

/// What a cloud has of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OnCloud {
    /// Servers with its mark.
    pub servers: Vec<FoundServer>,
    /// Servers of its name that are somebody else's.
    pub strangers: Vec<String>,
    /// Its port on the network that it is reached by.
    pub own_port: Option<HostPort>,
    /// Its port on the test network.
    pub test_port: Option<HostPort>,
    /// Its floating IP.
    pub floating_ip: Option<IpAddr>,
}

/// One thing to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "step")]
pub enum ServerStep {
    /// The port that it is reached by.
    OwnPort,
    /// The port that its seeds go through: no port security.
    TestPort {
        /// `None`: the cloud chooses.
        address: Option<IpAddr>,
    },
    /// A floating IP for the first port.
    FloatingIp,
    /// A one-time token, and the server, which finds it in its user data.
    Server,
}

/// What has to be made, in this order; nothing when the server is there.
///
/// # Errors
/// What is there is in the way.
pub fn plan_server(
    wish: &ServerWish,
    found: &OnCloud,
    is_connected: bool,
) -> Result<Vec<ServerStep>, Refused> {
    let host = &wish.host;
    let again = format!("`toci host remove {host}` deletes what is there; then deploy again");
    let no = |code, message: String, hint: &str| Err(Refused::new(code, message, hint));
    if let (Some(wished), Some(HostPort { id, address })) = (wish.address, &found.test_port)
        && *address != Some(wished)
    {
        let has = address.map_or_else(|| "no address".to_owned(), |a| a.to_string());
        return no("other_address", format!("its port {id} has {has}, not {wished}"), &again);
    }
    match &found.servers[..] {
        [] => {}
        [server] => return is_good(server, found, &again).map(|()| missing_ip(wish, found)),
        several => {
            let ids: Vec<&str> = several.iter().map(|server| server.id.as_str()).collect();
            return no(
                "several",
                format!("these servers are all {host}: {}", ids.join(", ")),
                &again,
            );
        }
    }
    if let Some(id) = found.strangers.first() {
        let what = format!("the server {id} is called {host} and has no mark of ours");
        return no("name_taken", what, "choose another name, or another --owner if it is ours");
    }
    if is_connected {
        let what = format!("a host {host} is connected, from another machine");
        return no("elsewhere", what, "choose another name, or remove that one first");
    }
    let mut steps = Vec::new();
    if found.own_port.is_none() {
        steps.push(ServerStep::OwnPort);
    }
    if found.test_port.is_none() {
        steps.push(ServerStep::TestPort { address: wish.address });
    }
    steps.extend(missing_ip(wish, found));
    steps.push(ServerStep::Server);
    Ok(steps)
}

fn missing_ip(wish: &ServerWish, found: &OnCloud) -> Vec<ServerStep> {
    let is_missing = wish.floating && found.floating_ip.is_none();
    is_missing.then_some(ServerStep::FloatingIp).into_iter().collect()
}

fn is_good(server: &FoundServer, found: &OnCloud, again: &str) -> Result<(), Refused> {
    let FoundServer { id, status, fault } = server;
    match status.as_str() {
        "ERROR" => {
            let why = if fault.is_empty() { "the cloud does not say why" } else { fault };
            let what = format!("its server {id} is in ERROR: {why}");
            return Err(Refused::new("server_error", what, again));
        }
        "SHUTOFF" | "PAUSED" | "SUSPENDED" | "SHELVED" | "SHELVED_OFFLOADED" | "RESCUED" => {
            let what = format!("its server {id} is {status}");
            let hint = format!("start it (`openstack server start {id}`), or: {again}");
            return Err(Refused::new("server_off", what, hint));
        }
        _ => {}
    }
    for (port, what) in [(&found.own_port, "own"), (&found.test_port, "test network's")] {
        if port.is_none() {
            let what = format!("its server {id} is there, and its {what} port is not");
            return Err(Refused::new("port_gone", what, again));
        }
    }
    Ok(())
}

impl fmt::Display for ServerStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServerStep::OwnPort => f.write_str("+ port       that it is reached by"),
            ServerStep::TestPort { address } => {
                f.write_str("+ port       on the test network, ")?;
                match address {
                    Some(address) => write!(f, "{address}"),
                    None => f.write_str("with an address that the cloud chooses"),
                }
            }
            ServerStep::FloatingIp => f.write_str("+ address    a floating IP"),
            ServerStep::Server => {
                f.write_str("+ server     with a one-time token in its user data")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> ServerWish {
        ServerWish { host: "t1".into(), address: None, floating: true }
    }

    fn port(address: &str) -> Option<HostPort> {
        Some(HostPort { id: format!("p-{address}"), address: address.parse().ok() })
    }

    fn done() -> OnCloud {
        OnCloud {
            servers: vec![FoundServer {
                id: "s1".into(),
                status: "ACTIVE".into(),
                fault: String::new(),
            }],
            strangers: Vec::new(),
            own_port: port("10.0.0.5"),
            test_port: port("198.18.0.10"),
            floating_ip: "203.0.113.9".parse().ok(),
        }
    }

    fn steps(wish: &ServerWish, found: &OnCloud) -> Vec<ServerStep> {
        plan_server(wish, found, false).unwrap()
    }

    #[test]
    fn everything_is_made_once_and_the_server_last() {
        let all = steps(&wish(), &OnCloud::default());
        let test_port = ServerStep::TestPort { address: None };
        assert_eq!(
            all,
            [ServerStep::OwnPort, test_port, ServerStep::FloatingIp, ServerStep::Server]
        );
        assert!(plan_server(&wish(), &done(), true).unwrap().is_empty());
        // What a run that was cut off has made is taken.
        let half = OnCloud { servers: Vec::new(), floating_ip: None, ..done() };
        assert_eq!(steps(&wish(), &half), [ServerStep::FloatingIp, ServerStep::Server]);
        let fixed = ServerWish { floating: false, ..wish() };
        assert_eq!(steps(&fixed, &half), [ServerStep::Server]);
        let lost = OnCloud { floating_ip: None, ..done() };
        assert_eq!(steps(&wish(), &lost), [ServerStep::FloatingIp]);
    }

    #[test]
    fn what_is_in_the_way_is_told() {
        let server = |status: &str| {
            let fault = "No valid host was found".to_owned();
            vec![FoundServer { id: "s1".into(), status: status.into(), fault }]
        };
        let cases = [
            ("server_error", OnCloud { servers: server("ERROR"), ..done() }),
            ("server_off", OnCloud { servers: server("SHUTOFF"), ..done() }),
            (
                "several",
                OnCloud { servers: [server("ACTIVE"), server("BUILD")].concat(), ..done() },
            ),
            ("port_gone", OnCloud { test_port: None, ..done() }),
            ("name_taken", OnCloud { strangers: vec!["x".into()], ..OnCloud::default() }),
        ];
        for (code, found) in cases {
            let refused = plan_server(&wish(), &found, false).unwrap_err();
            assert_eq!(refused.code, code);
        }
        let error = plan_server(&wish(), &OnCloud { servers: server("ERROR"), ..done() }, false);
        assert!(error.unwrap_err().message.contains("No valid host was found"));
        let elsewhere = plan_server(&wish(), &OnCloud::default(), true).unwrap_err();
        assert_eq!(elsewhere.code, "elsewhere");
        let other = ServerWish { address: "198.18.0.11".parse().ok(), ..wish() };
        assert_eq!(plan_server(&other, &done(), true).unwrap_err().code, "other_address");
        let same = ServerWish { address: "198.18.0.10".parse().ok(), ..wish() };
        assert!(plan_server(&same, &done(), true).unwrap().is_empty());
    }

    #[test]
    fn only_the_whole_mark_counts() {
        let ours = metadata("ci", "t1");
        assert!(is_marked(&ours, "ci", "t1"));
        assert!(!is_marked(&ours, "ci", "t2") && !is_marked(&ours, "other", "t1"));
        assert!(!is_marked(&BTreeMap::new(), "ci", "t1"));
        assert_eq!(mark("ci", "t1"), "toci-te-host:ci:t1");
    }
}
