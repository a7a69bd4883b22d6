//! Keeps the host as it should be: looks again every few seconds, and at once when the switch has
//! been started anew (its flows are gone then, and `br-ctlplane` forwards nothing without them).

use crate::host::Host;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use toci_core::chain::Chain;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// How often the host is compared with what it should be.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often the switch's pid file is looked at.
const SWITCH_POLL: Duration = Duration::from_millis(250);
const SWITCH_PID: &str = "/run/openvswitch/ovs-vswitchd.pid";

/// Runs for ever; what is wrong goes to `problems`.
pub(super) async fn keep(host: Arc<Host>, problems: watch::Sender<Vec<String>>) {
    let mut switch = switch_pid();
    loop {
        let next = Instant::now() + LOOK_EVERY;
        while Instant::now() < next {
            sleep(SWITCH_POLL).await;
            let now = switch_pid();
            if now.is_some() && now != switch {
                tracing::warn!("ovs-vswitchd was started anew");
                switch = now;
                break;
            }
        }
        let found = match host.converge().await {
            Ok(plans) => {
                for p in plans {
                    tracing::warn!(plan = %p, "the host was not as it should be; mended");
                }
                Vec::new()
            }
            Err(e) => {
                let problem = Chain(&e).to_string();
                tracing::warn!(%problem, "cannot mend the host");
                vec![problem]
            }
        };
        problems.send_if_modified(|p| {
            let changed = *p != found;
            *p = found;
            changed
        });
    }
}

fn switch_pid() -> Option<String> {
    std::fs::read_to_string(Path::new(SWITCH_PID)).ok().filter(|s| !s.trim().is_empty())
}
