//! The broker's thread: waits for readiness, moves bytes, and never blocks on a peer.

use super::engine::{Ending, Engine};
use super::face::Command;
use super::lingering::Lingering;
use super::options::{BrokerError, BrokerOptions, HANDSHAKE_LIMIT, Keepalive, LINGER_LIMIT};
use super::outlets::Output;
use super::sockets;
use super::statsd::Statsd;
use super::tls;
use super::transport::{Handshake, Transport};
use crate::clock::wall;
use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::{ServerConfig, ServerConnection};
use slab::Slab;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use toci_core::broker::{ConnId, Message, Now, Peer, PeerKind};
use toci_core::time::Time;
use toci_wire::gearman::encode_message;
use tokio::sync::mpsc;

/// Readinesses handled at once.
const EVENTS_AT_ONCE: usize = 1024;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// Reads of one connection before others get their turn.
const READS_A_TURN: usize = 4;
/// How often deadlines of handshakes and last bytes are looked at, while there are any.
const DEADLINE_CHECK: Duration = Duration::from_secs(1);
/// How long accepting rests when the system has no descriptors left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Which table a readiness belongs to: the upper half of a token.
const KIND_SHIFT: u32 = 32;
const KIND_CONN: usize = 0;
const KIND_HANDSHAKE: usize = 1;
const KIND_LINGER: usize = 2;
const KIND_LISTENER: usize = 3;
/// The token of the waker.
pub(super) const WAKER: Token = Token(4 << KIND_SHIFT);

fn token(kind: usize, index: usize) -> Token {
    Token((kind << KIND_SHIFT) | index)
}

/// A connection that has not shown its certificate yet.
struct Shaking {
    transport: Transport,
    address: SocketAddr,
    until: Time,
}

/// Where the sockets of the listener come from and go to.
pub(super) struct Driver {
    poll: Poll,
    engine: Engine,
    listeners: Vec<TcpListener>,
    commands: mpsc::Receiver<Command>,
    /// Set by a handle that wants the broker to end.
    stop: Arc<AtomicBool>,
    tls: Option<Arc<ServerConfig>>,
    keepalive: Option<Keepalive>,
    connections_max: usize,
    connections: usize,
    scratch: Box<[u8]>,
    /// Connections that have more to read than their turn allowed.
    again: Vec<ConnId>,
    shaking: Slab<Shaking>,
    lingering: Lingering,
    /// Accepting has met a lack of descriptors and must be tried again.
    accept_again: bool,
    started: Instant,
}

impl Driver {
    pub(super) fn new(
        options: BrokerOptions,
        poll: Poll,
        commands: mpsc::Receiver<Command>,
        stop: Arc<AtomicBool>,
    ) -> Result<Driver, BrokerError> {
        let tls = options.tls.as_ref().map(tls::server_config).transpose()?;
        let statsd = options.statsd.as_ref().map(Statsd::new).transpose()?;
        let mut listeners = Vec::new();
        for address in &options.listen {
            listeners.push(sockets::listen(*address)?);
        }
        for (n, listener) in listeners.iter_mut().enumerate() {
            poll.registry()
                .register(listener, token(KIND_LISTENER, n), Interest::READABLE)
                .map_err(|source| BrokerError::System { operation: "epoll", source })?;
        }
        Ok(Driver {
            poll,
            listeners,
            commands,
            stop,
            tls,
            keepalive: options.keepalive,
            connections_max: options.connections_max,
            lingering: Lingering::new(options.output_total_max_bytes),
            engine: Engine::new(options, statsd),
            connections: 0,
            scratch: vec![0; READ_BYTES].into_boxed_slice(),
            again: Vec::new(),
            shaking: Slab::new(),
            accept_again: false,
            started: Instant::now(),
        })
    }

    /// Where it listens, with the port that the system chose for port 0.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|l| l.local_addr().ok()).collect()
    }

    /// Serve until told to stop.
    pub(super) fn run(mut self) -> Result<(), BrokerError> {
        let mut events = Events::with_capacity(EVENTS_AT_ONCE);
        loop {
            self.engine.now = self.now();
            match self.poll.poll(&mut events, self.timeout()) {
                Ok(()) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(source) => return Err(BrokerError::System { operation: "epoll", source }),
            }
            self.engine.now = self.now();
            for event in &events {
                self.ready(event);
            }
            for id in std::mem::take(&mut self.again) {
                self.read(id, true);
            }
            if self.accept_again {
                self.accept_again = false;
                (0..self.listeners.len()).for_each(|n| self.accept(n));
            }
            self.engine.broker.tick(self.engine.now, &mut self.engine.outlets);
            self.settle();
            if let Some(statsd) = &mut self.engine.statsd {
                statsd.flush(self.engine.broker.figures());
            }
            match self.engine.ending {
                Ending::Not => {}
                Ending::Now => return Ok(()),
                Ending::WhenIdle => {
                    self.listeners.clear();
                    if self.engine.broker.figures().running == 0 {
                        return Ok(());
                    }
                }
            }
        }
    }

    fn now(&self) -> Now {
        Now { steady: Time(0).after(self.started.elapsed()), calendar: wall() }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadlines = !self.shaking.is_empty() || !self.lingering.is_empty();
        let checks = deadlines.then_some(DEADLINE_CHECK);
        let rest = self.accept_again.then_some(ACCEPT_REST);
        let broker = self.engine.broker.next_wake(self.engine.now);
        // epoll counts milliseconds and rounds down: a little later is better than spinning.
        let up = |d: Duration| d + Duration::from_micros(999);
        [checks, rest, broker.map(up)].into_iter().flatten().min()
    }

    fn ready(&mut self, event: &Event) {
        let Token(token) = event.token();
        let index = token & ((1 << KIND_SHIFT) - 1);
        match token >> KIND_SHIFT {
            KIND_CONN => {
                let Some(id) = self.engine.outlets.id_at(index) else { return };
                if event.is_writable() {
                    self.flush(id);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    self.read(id, event.is_read_closed() || event.is_error());
                }
            }
            KIND_HANDSHAKE => self.shake(index),
            KIND_LINGER => self.lingering.go_on(index, &mut self.scratch),
            KIND_LISTENER => self.accept(index),
            _ => self.take_commands(),
        }
    }

    fn take_commands(&mut self) {
        if self.stop.load(Ordering::Acquire) {
            self.engine.ending = Ending::Now;
        }
        while let Ok(command) = self.commands.try_recv() {
            self.engine.command(command);
        }
        for id in self.engine.outlets.dropped_faces() {
            self.engine.drop_face(id);
        }
    }

    fn accept(&mut self, listener: usize) {
        loop {
            let Some(accepted) = self.listeners.get(listener).map(TcpListener::accept) else {
                return;
            };
            match accepted {
                Ok((stream, address)) => self.welcome(stream, address),
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                // The peer left before it was accepted.
                Err(e) if e.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting a Gearman connection failed");
                    self.accept_again = true;
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, mut stream: TcpStream, address: SocketAddr) {
        sockets::prepare(&stream, self.keepalive);
        let waiting = self.shaking.len() + self.lingering.len();
        if self.connections + waiting >= self.connections_max {
            tracing::warn!(%address, limit = self.connections_max, "too many Gearman connections");
            // One attempt: a new socket takes a hundred bytes, and a peer that reads hears why.
            let text = "The server has too many connections";
            let mut bytes = Vec::new();
            if encode_message(&mut bytes, &Message::Error { code: "TOO_MANY_CONNECTIONS", text })
                .is_ok()
            {
                let _ = std::io::Write::write(&mut stream, &bytes);
            }
            return;
        }
        let Some(config) = &self.tls else {
            return self.join(Transport::Plain(stream), address, None, Registry::register);
        };
        let Ok(session) = ServerConnection::new(Arc::clone(config)) else { return };
        let mut transport = Transport::tls(stream, session);
        let until = self.engine.now.steady.after(HANDSHAKE_LIMIT);
        let entry = self.shaking.vacant_entry();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = token(KIND_HANDSHAKE, entry.key());
        match self.poll.registry().register(transport.socket(), token, interest) {
            Ok(()) => drop(entry.insert(Shaking { transport, address, until })),
            Err(error) => tracing::warn!(%error, "registering a Gearman connection failed"),
        }
    }

    /// Go on with a TLS handshake; when it is done the peer becomes a connection.
    fn shake(&mut self, index: usize) {
        let Some(shaking) = self.shaking.get_mut(index) else { return };
        match shaking.transport.handshake() {
            Ok(Handshake::Waiting) => {}
            Ok(Handshake::Done) => {
                let Shaking { transport, address, until: _ } = self.shaking.remove(index);
                let subject = transport.certificate().and_then(tls::common_name);
                self.join(transport, address, subject, Registry::reregister);
            }
            Err(error) => {
                let address = self.shaking.remove(index).address;
                tracing::info!(%address, %error, "TLS handshake of a Gearman peer failed");
            }
        }
    }

    fn join(
        &mut self,
        mut transport: Transport,
        address: SocketAddr,
        subject: Option<String>,
        register: impl FnOnce(&Registry, &mut TcpStream, Token, Interest) -> std::io::Result<()>,
    ) {
        let ip = address.ip().to_canonical();
        let id = self.engine.broker.connect(Peer {
            address: Arc::from(sockets::address_text(ip)),
            descriptor: transport.socket().as_raw_fd(),
            subject: subject.map(Arc::from),
            kind: if ip.is_loopback() { PeerKind::Local } else { PeerKind::Remote },
        });
        // Both interests for good: edge-triggered epoll tells each change once, so that no
        // system call is spent on changing them.
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = token(KIND_CONN, id.index());
        if let Err(error) = register(self.poll.registry(), transport.socket(), token, interest) {
            tracing::warn!(%error, "registering a Gearman connection failed");
            self.engine.broker.disconnect(self.engine.now, id, &mut self.engine.outlets);
            return;
        }
        self.engine.outlets.add_socket(id, transport);
        self.connections += 1;
        // What came with the last bytes of a handshake is told by no further readiness.
        if self.tls.is_some() {
            self.read(id, false);
        }
    }

    /// Read what there is, within the connection's turn. `to_the_end` when the end is known to
    /// be among it: then only the end or an empty socket stops reading.
    fn read(&mut self, id: ConnId, to_the_end: bool) {
        for _ in 0..READS_A_TURN {
            let Some(conn) = self.engine.outlets.socket(id) else { return };
            if conn.in_arrears {
                self.engine.consume(id, &[]);
                break;
            }
            let taken = match conn.transport.read(&mut self.scratch) {
                Ok(0) => return self.lose(id),
                Ok(taken) => taken,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(error) => {
                    tracing::debug!(conn = id.index(), %error, "a Gearman connection is lost");
                    return self.lose(id);
                }
            };
            let emptied = taken < self.scratch.len() && conn.transport.short_read_is_all();
            self.engine.consume(id, &self.scratch[..taken]);
            let in_arrears = self.engine.outlets.socket(id).is_some_and(|c| c.in_arrears);
            if self.engine.closing.last() == Some(&id) || (emptied && !to_the_end && !in_arrears) {
                return;
            }
        }
        self.again.push(id);
    }

    fn flush(&mut self, id: ConnId) {
        match self.engine.outlets.flush(id) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                tracing::debug!(conn = id.index(), %error, "a Gearman connection is lost");
                self.lose(id);
            }
        }
    }

    /// A connection ends. What it was told before is still sent: a peer that asks `status` and
    /// closes its half gets the answer.
    fn lose(&mut self, id: ConnId) {
        self.engine.broker.answer_open_grab(id, &mut self.engine.outlets);
        let Some(conn) = self.engine.outlets.remove_socket(id) else { return };
        self.connections -= 1;
        self.engine.forget_input(conn.input.len());
        self.engine.broker.disconnect(self.engine.now, id, &mut self.engine.outlets);
        if !conn.output.is_empty() || conn.transport.has_a_last_word() {
            self.start_linger(conn.transport, conn.output);
        }
    }

    fn start_linger(&mut self, mut transport: Transport, output: Output) {
        let until = self.engine.now.steady.after(LINGER_LIMIT);
        let index = self.lingering.next();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = token(KIND_LINGER, index);
        if self.poll.registry().reregister(transport.socket(), token, interest).is_ok() {
            self.lingering.add(transport, output, until);
            self.lingering.go_on(index, &mut self.scratch);
        }
    }

    /// After each round: cut slow readers, close broken connections, send all output. Each loss
    /// may give others something to hear, so it goes on until there is nothing left.
    fn settle(&mut self) {
        loop {
            for id in std::mem::take(&mut self.engine.outlets.doomed) {
                tracing::warn!(conn = id.index(), "cutting a Gearman peer that does not read");
                self.lose(id);
            }
            for id in std::mem::take(&mut self.engine.closing) {
                self.lose(id);
            }
            let mut dirty = std::mem::take(&mut self.engine.outlets.dirty);
            for id in dirty.drain(..) {
                self.flush(id);
            }
            if self.engine.outlets.dirty.is_empty() {
                self.engine.outlets.dirty = dirty;
            }
            let engine = &self.engine;
            if engine.outlets.dirty.is_empty()
                && engine.outlets.doomed.is_empty()
                && engine.closing.is_empty()
            {
                break;
            }
        }
        self.check_deadlines();
    }

    fn check_deadlines(&mut self) {
        let now = self.engine.now.steady;
        if !self.shaking.is_empty() {
            self.shaking.retain(|_, s| s.until > now);
        }
        if !self.lingering.is_empty() {
            self.lingering.expire(now);
        }
    }
}
