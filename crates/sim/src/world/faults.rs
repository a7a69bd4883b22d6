//! What breaks, and what operators do meanwhile.

use super::{CLIENTS, HOSTS, TES, World};
use crate::client::Doing;
use crate::message::Happening;
use crate::random::Random;
use crate::runs::FAULTS;
use std::time::Duration;
use toci_core::id::TeId;
use toci_core::lease::Event;

impl World {
    pub(super) fn server_dies(&mut self) {
        self.server = None;
        let away = Duration::from_millis(200 + self.random.below(10_000));
        let reboot = self.random.per_mille(200);
        self.at(away, Happening::ServerStarts { reboot });
    }

    pub(super) fn fault(&mut self) -> Result<(), String> {
        if self.calm {
            return Ok(());
        }
        let next = Duration::from_millis(500 + self.random.below(8_000));
        self.at(next, Happening::Fault);
        let host = self.random.index(HOSTS);
        let client = self.random.index(CLIENTS);
        let kind = self.random.index(FAULTS.len());
        self.sum.faults[kind] += 1;
        self.note(|| format!("  fault {kind}, host {host}, client {client}"));
        let some = |r: &mut Random, s: u64| Duration::from_millis(500 + r.below(s * 1_000));
        match kind {
            0 => {
                if self.server.is_some() {
                    self.server_dies();
                }
            }
            1 | 2 => {
                if self.hosts[host].up {
                    self.hosts[host].up = false;
                    let same_boot = kind == 1;
                    let away = some(&mut self.random, 20);
                    self.at(away, Happening::HostStarts { host, same_boot });
                }
            }
            3 => {
                self.host_cut[host] = true;
                let away = some(&mut self.random, 90);
                self.at(away, Happening::HostLinkHeals { host });
            }
            4 => {
                self.client_cut[client] = true;
                let away = some(&mut self.random, 30);
                self.at(away, Happening::ClientLinkHeals { client });
            }
            5 => {
                // A dead client is replaced by one that knows its keys but not what it did.
                let c = &mut self.clients[client];
                if c.alive {
                    c.alive = false;
                } else {
                    c.alive = true;
                    c.doing = Doing::Nothing;
                }
            }
            6 => self.failing_commits = 1 + self.random.below(3),
            _ => self.operator(host)?,
        }
        Ok(())
    }

    fn operator(&mut self, host: usize) -> Result<(), String> {
        let n = 1 + u32::try_from(self.random.below(u64::from(TES))).unwrap_or(0);
        let Ok(te) = TeId::of(&self.ids[host], n) else { return Ok(()) };
        let event = match self.random.below(6) {
            0 => Event::DrainTe { te, drain: true },
            1 => Event::Quarantine { te, reason: String::new() },
            2 => Event::ResetTe(te),
            3 => {
                let live = self.server.as_ref().and_then(|s| s.book.te(&te)?.state.lease());
                let Some(lease) = live else { return Ok(()) };
                Event::Revoke { lease, reason: String::new() }
            }
            _ => Event::DrainTe { te, drain: false },
        };
        self.serve(event, None).map(drop)
    }
}
