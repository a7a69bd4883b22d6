//! What the host sees of a test environment, as text for people: for the archive of a run's logs.

use crate::host::Host;
use crate::machines::{MachineError, TeMachines};
use crate::names;
use crate::ovs::OvsError;
use crate::plan::seed_ofport;
use core::fmt::{Display, Write as _};
use toci_core::chain::Chain;

/// Power, bridges, ports, flows and definitions. Of the public bridge only what is the TE's own. What cannot be told is
/// said in its place.
pub(crate) async fn view(host: &Host, machines: &TeMachines) -> Result<String, MachineError> {
    let te = machines.te();
    let mut out = format!("test environment {}\n", te.id);
    title(&mut out, "machines");
    for machine in machines.list().await? {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{} {}", if machine.on { "on " } else { "off" }, machine.name);
    }
    let mut places = vec![(names::private_bridge(te.number), None)];
    places.extend(seed_ofport(te.number).map(|port| (names::PUBLIC_BRIDGE.to_owned(), Some(port))));
    for (bridge, port) in places {
        let whose = if port.is_some() { ", port of the seed" } else { "" };
        title(&mut out, format!("ports of {bridge}{whose}"));
        shown(&mut out, host.ovs.shown_ports(&bridge, port).await);
        title(&mut out, format!("flows of {bridge}{whose}"));
        shown(&mut out, host.ovs.shown_flows(&bridge, port).await);
    }
    for name in machines.all_names() {
        title(&mut out, format!("definition of {name}"));
        match machines.dumpxml(name, false).await {
            Ok(xml) => out.push_str(&xml),
            Err(error @ MachineError::CutOff(_)) => return Err(error),
            Err(error) => out.push_str(&format!("({error})\n")),
        }
    }
    Ok(out)
}

fn title(out: &mut String, text: impl Display) {
    let _ = writeln!(out, "\n===== {text}");
}

fn shown(out: &mut String, said: Result<String, OvsError>) {
    match said {
        Ok(text) => out.push_str(&text),
        Err(error) => out.push_str(&format!("({})\n", Chain(&error))),
    }
}
