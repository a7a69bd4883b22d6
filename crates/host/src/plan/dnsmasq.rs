//! Configuration of the DHCP server for standalone use: fixed addresses by MAC, for seeds only.

use super::desired::TeSpec;
use crate::config::Config;
use crate::names;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// What our DHCP server should serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DhcpSpec {
    /// dnsmasq's configuration file.
    pub conf: String,
    /// Of `conf`.
    pub fingerprint: String,
}

impl DhcpSpec {
    /// For these TEs.
    #[must_use]
    pub fn of(config: &Config, tes: &[TeSpec]) -> DhcpSpec {
        let net = config.network.address;
        let seeds: Vec<(String, Ipv4Addr, String)> = tes
            .iter()
            .filter_map(|te| {
                let nic = te.seed().nics.first()?;
                Some((nic.mac.clone(), te.seed_address, te.seed().name.clone()))
            })
            .collect();
        let conf = dnsmasq_conf(net.network(), net.netmask(), config.network.router, &seeds);
        DhcpSpec { fingerprint: names::fingerprint(&conf), conf }
    }
}

/// The file. `seeds` are MAC, address and name.
#[must_use]
pub fn dnsmasq_conf(
    network: Ipv4Addr,
    netmask: Ipv4Addr,
    router: Option<Ipv4Addr>,
    seeds: &[(String, Ipv4Addr, String)],
) -> String {
    let mut c = String::from(
        "# Written by toci-host; changes are overwritten.\n\
         port=0\n\
         no-resolv\n\
         no-hosts\n\
         bind-dynamic\n\
         dhcp-authoritative\n\
         no-ping\n\
         leasefile-ro\n\
         dhcp-ignore=tag:!known\n",
    );
    let _ = writeln!(c, "interface={}", names::HOST_DEVICE);
    let _ = writeln!(c, "dhcp-range={network},static,{netmask},1h");
    match router {
        Some(r) => drop(writeln!(c, "dhcp-option=option:router,{r}")),
        // Without a value the option is not sent: dnsmasq would otherwise name itself.
        None => c.push_str("dhcp-option=option:router\n"),
    }
    c.push_str("dhcp-option=option:dns-server\n");
    for (mac, ip, name) in seeds {
        let _ = writeln!(c, "dhcp-host={mac},{ip},{},infinite", name.replace('_', "-"));
    }
    c
}
