//! One run: the parts, the network between them, faults, and the loop of happenings.

mod faults;

use crate::check::{self, Grants, Promises};
use crate::client::{Doing, SimClient};
use crate::disk::Disk;
use crate::host::{Gate, SimHost};
use crate::message::{Ask, Happening, Key, Stands};
use crate::random::Random;
use crate::runs::{Mutation, Options, Summary};
use crate::server::{SimServer, event_of, s_now};
use std::collections::BTreeMap;
use std::time::Duration;
use toci_core::id::{HostId, LeaseId, TeId};
use toci_core::lease::{Answer, End, Event, TeState};
use toci_core::time::Time;
use toci_store::Credential;

const HOSTS: usize = 3;
const TES: u32 = 2;
const CLIENTS: usize = 5;
const HEARTBEAT: Duration = Duration::from_secs(4);
const SERVER_TIMER: Duration = Duration::from_secs(1);
/// After the faults everything must be served within this.
const CALM_MAX: Duration = Duration::from_secs(3 * 3600);
/// One in so many seeds runs on the real store.
const REAL_STORE_EVERY: u64 = 16;
/// Keys that a client remembers.
const KEYS_MAX: usize = 6;

/// The parts of one run and what happens to them.
pub(crate) struct World {
    options: Options,
    random: Random,
    now: Time,
    order: u64,
    queue: BTreeMap<(Time, u64), Happening>,
    disk: Disk,
    server: Option<SimServer>,
    server_life: u64,
    boot: u64,
    wall_ahead: i64,
    ids: Vec<HostId>,
    hosts: Vec<SimHost>,
    host_cut: Vec<bool>,
    clients: Vec<SimClient>,
    client_cut: Vec<bool>,
    grants: Grants,
    promises: Promises,
    calm: bool,
    failing_commits: u64,
    pub(crate) sum: Summary,
    pub(crate) log: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, options: Options) -> anyhow::Result<World> {
        let real = options.real_store || seed.is_multiple_of(REAL_STORE_EVERY);
        let ids: Vec<HostId> =
            (0..HOSTS).map(|n| HostId::new(format!("h{n}"))).collect::<Result<_, _>>()?;
        let mut world = World {
            options,
            random: Random::new(seed),
            now: Time(1_000_000),
            order: 0,
            queue: BTreeMap::new(),
            disk: Disk::new(real)?,
            server: None,
            server_life: 0,
            boot: 1,
            wall_ahead: 0,
            hosts: ids
                .iter()
                .enumerate()
                .map(|(i, id)| SimHost::new(i, id, TES, options.mutation))
                .collect(),
            ids,
            host_cut: vec![false; HOSTS],
            clients: (0..CLIENTS).map(|_| SimClient::new()).collect(),
            client_cut: vec![false; CLIENTS],
            grants: Grants::default(),
            promises: Promises::default(),
            calm: false,
            failing_commits: 0,
            sum: Summary { seeds: 1, real_store: u64::from(real), ..Summary::default() },
            log: vec![],
        };
        world.at(Duration::ZERO, Happening::ServerStarts { reboot: false });
        for host in 0..HOSTS {
            world.at(Duration::from_millis(10), Happening::HostStarts { host, same_boot: false });
        }
        for client in 0..CLIENTS {
            world.at(Duration::from_secs(10), Happening::ClientTimer { client });
        }
        world.at(Duration::from_secs(15), Happening::Fault);
        Ok(world)
    }

    pub(crate) fn go(&mut self) -> Result<(), String> {
        while self.sum.steps < self.options.steps {
            self.step()?;
        }
        self.calm_down();
        let end = self.now.after(CALM_MAX);
        let mut last_look = self.now;
        loop {
            self.step()?;
            if self.now.since(last_look) < Duration::from_secs(20) {
                continue;
            }
            last_look = self.now;
            let Some(server) = &self.server else { continue };
            let left = check::unserved(&server.book);
            let idle = self.clients.iter().all(|c| matches!(c.doing, Doing::Nothing));
            if left.is_empty() && idle {
                return Ok(());
            }
            if self.now > end {
                let asking = self.clients.iter().map(|c| &c.doing).collect::<Vec<_>>();
                return Err(format!("not served in {CALM_MAX:?}: {left:?}; clients: {asking:?}"));
            }
            self.operator_cleans_up()?;
        }
    }

    /// No more faults: everything comes back, nobody asks for more.
    fn calm_down(&mut self) {
        self.calm = true;
        self.failing_commits = 0;
        let soon = Duration::from_secs(1);
        if self.server.is_none() {
            self.at(soon, Happening::ServerStarts { reboot: false });
        }
        for host in 0..HOSTS {
            if !self.hosts[host].up {
                self.at(soon, Happening::HostStarts { host, same_boot: false });
            }
            self.at(soon, Happening::HostLinkHeals { host });
        }
        for client in 0..CLIENTS {
            self.clients[client].alive = true;
            self.at(soon, Happening::ClientLinkHeals { client });
        }
    }

    fn operator_cleans_up(&mut self) -> Result<(), String> {
        let Some(server) = &self.server else { return Ok(()) };
        let out: Vec<TeId> = server
            .book
            .tes()
            .filter(|te| te.state == TeState::Quarantined || te.draining)
            .map(|te| te.id.clone())
            .collect();
        for te in out {
            self.serve(Event::DrainTe { te, drain: false }, None)?;
        }
        Ok(())
    }

    fn at(&mut self, after: Duration, what: Happening) {
        self.order += 1;
        self.queue.insert((self.now.after(after), self.order), what);
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        if self.options.trace {
            let line = format!("{:>12.6} {}", self.now.0 as f64 / 1e6, what());
            self.log.push(line);
        }
    }

    /// Over the network: late, twice, or not at all.
    fn send(&mut self, cut: bool, what: Happening) -> bool {
        let lossy = !self.calm;
        if cut || (lossy && self.random.per_mille(20)) {
            return false;
        }
        let delay = |r: &mut Random| {
            Duration::from_micros(if lossy && r.per_mille(50) {
                r.below(4_000_000)
            } else {
                500 + r.below(40_000)
            })
        };
        if lossy && self.random.per_mille(20) {
            let after = delay(&mut self.random);
            self.at(after, what.clone());
        }
        let after = delay(&mut self.random);
        self.at(after, what);
        true
    }

    /// What a host does next: its own affairs happen, the rest goes over its link.
    fn carry_on(&mut self, host: usize, later: Vec<(Duration, Happening)>) {
        for (after, what) in later {
            match &what {
                Happening::Hello { .. } => {
                    if !self.send(self.host_cut[host], what) {
                        self.at(Duration::from_secs(2), Happening::HostLinkHeals { host });
                    }
                }
                Happening::Report { .. } | Happening::Serving { .. } => {
                    self.send(self.host_cut[host], what);
                }
                _own => self.at(after, what),
            }
        }
    }

    fn push(&mut self, host: usize, what: Happening) {
        if !self.send(self.host_cut[host], what) {
            // The stream broke: the host opens it again.
            self.at(Duration::from_secs(2), Happening::Hello { host });
        }
    }

    fn step(&mut self) -> Result<(), String> {
        let Some(((at, _), what)) = self.queue.pop_first() else {
            return Err("nothing happens any more".into());
        };
        self.now = self.now.max(at);
        self.sum.steps += 1;
        self.note(|| format!("{what:?}"));
        self.happen(what)?;
        check::one_holder(&self.clients, &self.hosts, self.now)
    }

    fn happen(&mut self, what: Happening) -> Result<(), String> {
        match what {
            Happening::ToServer { client, ask } => self.client_asks(client, &ask)?,
            Happening::ToClient { client, lease, key, stands } => {
                self.client_hears(client, lease, key.as_deref(), stands)?;
            }
            Happening::Refused { client, key } => self.clients[client].refused(&key),
            Happening::Hello { host } => {
                if self.hosts[host].up {
                    self.host_says_hello(host);
                }
            }
            Happening::Report { host, boot, sequence, tes } => {
                self.host_reports(host, boot, sequence, tes)?;
            }
            Happening::Serving { host, key } => self.host_serves(host, &key)?,
            Happening::ServingNoted { host, te, generation } => {
                self.hosts[host].noted(&te, generation);
            }
            Happening::Command { client, host, key } => {
                match self.hosts[host].command(&key, self.now) {
                    Gate::Refused => {}
                    Gate::Accepted => self.sum.commands += 1,
                    Gate::Wrong(why) => return Err(format!("client {client}: {why}")),
                }
            }
            Happening::Wish { .. }
            | Happening::ResetEnds { .. }
            | Happening::HostTimer { .. }
            | Happening::HostStarts { .. } => self.on_host(what),
            Happening::ClientTimer { client } => self.client_timer(client),
            Happening::ServerTimer { life } => self.server_timer(life)?,
            Happening::Fault => self.fault()?,
            Happening::ServerStarts { reboot } => self.server_starts(reboot)?,
            Happening::HostLinkHeals { host } => {
                self.host_cut[host] = false;
                self.send(false, Happening::Hello { host });
            }
            Happening::ClientLinkHeals { client } => self.client_cut[client] = false,
        }
        Ok(())
    }

    /// What happens on a host itself; a host that is down, or an agent that died, does nothing.
    fn on_host(&mut self, what: Happening) {
        let (now, random, calm) = (self.now, &mut self.random, self.calm);
        let (index, later) = match what {
            Happening::Wish { host, wish } if self.hosts[host].up => {
                let h = &mut self.hosts[host];
                let mut later = h.wish(wish, now, random);
                later.push((Duration::ZERO, h.report()));
                (host, later)
            }
            Happening::ResetEnds { host, life, te, generation, good } => {
                let h = &mut self.hosts[host];
                if !h.up || h.life != life {
                    return;
                }
                (host, h.reset_ends(&te, generation, good || calm, now, random))
            }
            Happening::HostTimer { host, life } => {
                let h = &mut self.hosts[host];
                if !h.up || h.life != life {
                    return;
                }
                (host, h.timer(now, random))
            }
            Happening::HostStarts { host, same_boot } if !self.hosts[host].up => {
                (host, self.hosts[host].start(same_boot, now, random))
            }
            _elsewhere => return,
        };
        self.carry_on(index, later);
    }

    fn client_hears(
        &mut self,
        client: usize,
        lease: LeaseId,
        key: Option<&str>,
        stands: Stands,
    ) -> Result<(), String> {
        if stands == Stands::Unknown {
            return Err(format!("client {client} hears that {lease} does not exist"));
        }
        let c = &mut self.clients[client];
        c.hears(lease, key, stands, &mut self.random);
        let old = c.keys.len().saturating_sub(KEYS_MAX);
        c.keys.drain(..old);
        Ok(())
    }

    fn host_serves(&mut self, host: usize, key: &Key) -> Result<(), String> {
        let (te, generation) = (key.te.clone(), key.generation);
        let id = self.ids[host].clone();
        let event = Event::HostServing { host: id, te: te.clone(), generation };
        let credential = Credential {
            lease: LeaseId(0),
            te: te.clone(),
            generation,
            te_json: key.nonce.to_string(),
        };
        if self.serve(event, Some(credential))?.is_some() {
            self.send(self.host_cut[host], Happening::ServingNoted { host, te, generation });
        }
        Ok(())
    }

    fn host_says_hello(&mut self, host: usize) {
        let id = self.ids[host].clone();
        match &mut self.server {
            Some(server) => {
                let wish = server.hello(host, &id);
                self.push(host, wish);
                let report = self.hosts[host].report();
                self.send(self.host_cut[host], report);
            }
            None => self.at(Duration::from_secs(1), Happening::Hello { host }),
        }
    }

    fn host_reports(
        &mut self,
        host: usize,
        boot: u64,
        sequence: u64,
        tes: Vec<toci_core::lease::ReportedTe>,
    ) -> Result<(), String> {
        let now = self.now;
        let Some(server) = &mut self.server else { return Ok(()) };
        if !server.is_news(host, boot, sequence, now) {
            return Ok(());
        }
        let id = self.ids[host].clone();
        self.serve(Event::HostReport { host: id.clone(), tes }, None)?;
        if self.server.as_ref().is_some_and(|s| s.is_streaming(host)) {
            self.serve(Event::HostConnected(id), None)?;
        }
        Ok(())
    }

    fn client_asks(&mut self, client: usize, ask: &Ask) -> Result<(), String> {
        if self.server.is_none() {
            return Ok(());
        }
        let event = event_of(client, ask).map_err(|e| e.to_string())?;
        let key = match ask {
            Ask::Request { key, .. } => Some(key.clone()),
            Ask::Heartbeat(_) | Ask::Extend(..) | Ask::Hold(..) | Ask::Release(_) => None,
        };
        let about = match ask {
            Ask::Request { .. } => None,
            Ask::Heartbeat(l) | Ask::Extend(l, _) | Ask::Hold(l, _) | Ask::Release(l) => Some(*l),
        };
        let answer = self.serve(event, None)?;
        if let (Some(_), Ask::Heartbeat(lease)) = (&answer, ask) {
            self.promises.heard(*lease, self.now);
        }
        let lease = match (answer, about) {
            (Some(Answer::Lease(id)), _) => id,
            // Refused (it is over, or not active yet): the client learns how the lease stands.
            (None, Some(id)) => id,
            (_, None) => {
                if let Some(key) = key
                    && self.server.is_some()
                    && self.failing_commits == 0
                {
                    self.send(self.client_cut[client], Happening::Refused { client, key });
                }
                return Ok(());
            }
            (Some(Answer::Te(_) | Answer::Host(_) | Answer::Done), _) => return Ok(()),
        };
        self.tell(client, lease, key)
    }

    fn tell(&mut self, client: usize, lease: LeaseId, key: Option<String>) -> Result<(), String> {
        let Some(server) = &self.server else { return Ok(()) };
        let stands = server.stands(&mut self.disk, lease).map_err(|e| e.to_string())?;
        self.send(self.client_cut[client], Happening::ToClient { client, lease, key, stands });
        Ok(())
    }

    /// One event through the server: apply, commit, tell. None when it was refused, could not be
    /// written, or the server is down (perhaps since this moment).
    fn serve(
        &mut self,
        event: Event,
        credential: Option<Credential>,
    ) -> Result<Option<Answer>, String> {
        let mutation = self.options.mutation;
        let Some(server) = &mut self.server else { return Ok(None) };
        let fail = self.failing_commits > 0;
        let forget = mutation == Mutation::ServerForgetsToPersist && self.random.per_mille(100);
        let outcome = server
            .handle(&mut self.disk, event, credential, self.now, fail, forget)
            .map_err(|e| format!("{e:#}"))?;
        if outcome.failed {
            self.failing_commits -= 1;
            self.note(|| "  the commit failed".into());
            return Ok(None);
        }
        // What is on disk counts, told or not.
        for id in &outcome.changes.leases {
            let kept = self.promises.seen(server, *id, self.now)?;
            self.sum.kept[0] += u64::from(kept == Some(End::Expired));
            self.sum.kept[1] += u64::from(kept == Some(End::Lost));
        }
        if outcome.changes.durable && !self.calm && self.random.per_mille(4) {
            self.note(|| "  the server dies before it tells".into());
            self.server_dies();
            return Ok(None);
        }
        let Some(server) = &self.server else { return Ok(None) };
        for id in &outcome.changes.leases {
            self.grants.made(&server.book, *id, &self.hosts)?;
        }
        for (host, wish) in server.wishes(&outcome.changes, &self.ids) {
            if mutation != Mutation::WishesNotSent {
                self.push(host, wish);
            }
        }
        for id in &outcome.changes.leases {
            let owner = self.server.as_ref().and_then(|s| s.book.lease(*id)).map(|l| {
                let active = matches!(l.state, toci_core::lease::LeaseState::Active { .. });
                (l.owner.clone(), active && l.active == Some(s_now(&self.server, self.now)))
            });
            if let Some((owner, new)) = owner {
                self.sum.active += u64::from(new);
                if let Some(client) = owner.strip_prefix('c').and_then(|n| n.parse().ok()) {
                    self.tell(client, *id, None)?;
                }
            }
        }
        if mutation == Mutation::GrantBeforeClean {
            let pretended =
                self.server.as_ref().map(SimServer::pretended_reports).unwrap_or_default();
            for event in pretended {
                self.serve(event, None)?;
            }
        }
        if let Err(refused) = &outcome.answer {
            self.note(|| format!("  refused: {refused}"));
        }
        Ok(outcome.answer.ok())
    }

    fn client_timer(&mut self, client: usize) {
        self.at(HEARTBEAT, Happening::ClientTimer { client });
        let asks = self.clients[client].timer(client, self.calm, &mut self.random);
        for ask in asks {
            self.send(self.client_cut[client], Happening::ToServer { client, ask });
        }
        // Dead or alive, it tries keys that it has or had.
        for _ in 0..2 {
            let keys = &self.clients[client].keys;
            if keys.is_empty() {
                break;
            }
            let key = keys[self.random.index(keys.len())].clone();
            let host = self.hosts.iter().position(|h| h.tes.contains_key(&key.te));
            if let Some(host) = host {
                self.send(self.client_cut[client], Happening::Command { client, host, key });
            }
        }
    }

    fn server_timer(&mut self, life: u64) -> Result<(), String> {
        if life != self.server_life || self.server.is_none() {
            return Ok(());
        }
        self.at(SERVER_TIMER, Happening::ServerTimer { life });
        let (ids, now) = (&self.ids, self.now);
        let silent = self.server.as_mut().map(|s| s.silent(ids, now)).unwrap_or_default();
        for host in silent {
            self.serve(Event::HostCutOff(host), None)?;
        }
        self.serve(Event::Tick, None)?;
        Ok(())
    }

    fn server_starts(&mut self, reboot: bool) -> Result<(), String> {
        if self.server.is_some() {
            return Ok(());
        }
        if reboot {
            self.boot += 1;
            self.wall_ahead =
                i64::try_from(self.random.below(7_200_000_000)).unwrap_or(0) - 3_600_000_000;
        }
        let wall = Time(self.now.0 + self.wall_ahead);
        let server =
            SimServer::start(&mut self.disk, self.now, wall, self.boot, self.options.mutation)
                .map_err(|e| format!("{e:#}"))?;
        check::nothing_lost(&server, &mut self.disk, &self.clients)?;
        self.server = Some(server);
        self.promises.server_started(self.now, self.boot);
        self.server_life += 1;
        self.sum.starts += 1;
        self.at(SERVER_TIMER, Happening::ServerTimer { life: self.server_life });
        for id in self.ids.clone() {
            self.serve(Event::AddHost(id), None)?;
        }
        for host in 0..HOSTS {
            let soon = Duration::from_millis(self.random.below(1_000));
            self.at(soon, Happening::HostLinkHeals { host });
        }
        Ok(())
    }
}
