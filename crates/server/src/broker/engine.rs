//! Between bytes and the broker: cuts what arrives into requests, and carries out what faces ask.

use super::face::Command;
use super::options::BrokerOptions;
use super::outlets::{Outlets, Pending};
use super::statsd::Statsd;
use std::time::Instant;
use toci_core::broker::{
    AdminEffect, Broker, ConnId, GrabStyle, Message, Now, Outbox, Peer, PeerKind, Request, Submit,
    When, WorkKind,
};
use toci_wire::gearman::{
    BadRequest, Frame, FrameError, RawPacket, decode_request, frame, parse_admin,
};

/// What one connection may cost before others get their turn: a packet costs 1, and 1 more for
/// each two functions that the connection has registered.
const COST_A_TURN: usize = 20_000;

/// What somebody with the right to it has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing: go on.
    Not,
    /// End when no job runs any more.
    WhenIdle,
    /// End now.
    Now,
}

/// The broker, its outbox, and what the thread does with them at one moment.
pub(super) struct Engine {
    pub(super) broker: Broker,
    pub(super) outlets: Outlets,
    pub(super) statsd: Option<Statsd>,
    pub(super) now: Now,
    pub(super) ending: Ending,
    /// Connections that sent what cannot be understood: closed after their last answer.
    pub(super) closing: Vec<ConnId>,
    pub(super) packet_max_bytes: usize,
    /// Bytes in all half received packets.
    input_bytes: usize,
    input_total_max_bytes: usize,
}

impl Engine {
    pub(super) fn new(options: BrokerOptions, statsd: Option<Statsd>) -> Engine {
        let BrokerOptions { output_max_bytes, output_total_max_bytes, .. } = options;
        Engine {
            broker: Broker::new(options.settings, options.acl),
            outlets: Outlets::new(output_max_bytes, output_total_max_bytes),
            statsd,
            now: Now::default(),
            ending: Ending::Not,
            closing: Vec::new(),
            packet_max_bytes: options.packet_max_bytes,
            input_bytes: 0,
            input_total_max_bytes: options.input_total_max_bytes,
        }
    }

    /// `fresh` bytes came from `id`. What is left of them is kept: an incomplete frame, or whole
    /// ones when the connection's turn is over, and then it is in arrears. Bytes are moved once,
    /// however many pieces a packet comes in.
    pub(super) fn consume(&mut self, id: ConnId, fresh: &[u8]) {
        // What follows bytes that were thrown away means nothing.
        if self.closing.contains(&id) {
            return;
        }
        let Some(conn) = self.outlets.socket(id) else { return };
        let mut pending = std::mem::take(&mut conn.input);
        conn.in_arrears = false;
        self.input_bytes -= pending.len();
        if pending.is_empty() {
            let used = self.frames(id, fresh);
            pending.extend_from_slice(&fresh[used..]);
        } else {
            pending.extend_from_slice(fresh);
            let used = self.frames(id, &pending);
            if used == pending.len() {
                pending = Vec::new();
            } else {
                pending.drain(..used);
            }
        }
        if let Some(conn) = self.outlets.socket(id) {
            self.input_bytes += pending.len();
            conn.input = pending;
        }
        while self.input_bytes > self.input_total_max_bytes {
            let Some(largest) = self.outlets.largest_input() else { return };
            self.refuse_input(largest);
        }
    }

    fn refuse_input(&mut self, id: ConnId) {
        tracing::warn!(conn = id.index(), "cutting the Gearman peer with the most input");
        if let Some(conn) = self.outlets.socket(id) {
            self.input_bytes -= std::mem::take(&mut conn.input).len();
        }
        let text = "The server holds too many half received packets";
        self.outlets.send(id, Message::Error { code: "OUT_OF_MEMORY", text });
        self.closing.push(id);
    }

    /// A connection has been taken out of the table.
    pub(super) fn forget_input(&mut self, bytes: usize) {
        self.input_bytes -= bytes;
    }

    /// Handle all whole frames; says how many bytes they took.
    fn frames(&mut self, id: ConnId, bytes: &[u8]) -> usize {
        let (mut used, mut cost) = (0, 0);
        loop {
            if cost > COST_A_TURN {
                if let Some(conn) = self.outlets.socket(id) {
                    conn.in_arrears = true;
                }
                return used;
            }
            cost += 1 + self.broker.weight(id) / 2;
            match frame(&bytes[used..], self.packet_max_bytes) {
                Ok(Frame::Partial { .. }) => return used,
                Ok(Frame::Packet { packet, length }) => {
                    self.packet(id, packet);
                    used += length;
                }
                Ok(Frame::Line { line, length }) => {
                    self.line(id, line);
                    used += length;
                    // A listing may be large: who does not read the last one gets no other.
                    if self.outlets.is_doomed(id) {
                        return bytes.len();
                    }
                }
                Err(error) => {
                    self.broken(id, error);
                    return bytes.len();
                }
            }
        }
    }

    fn packet(&mut self, id: ConnId, packet: RawPacket<'_>) {
        let began = self.statsd.as_ref().map(|_| Instant::now());
        match decode_request(packet) {
            Ok((kind, request)) => {
                self.broker.request(self.now, id, request, &mut self.outlets);
                if let (Some(statsd), Some(began)) = (&mut self.statsd, began) {
                    statsd.packet(kind.name(), began.elapsed());
                }
            }
            Err(error) => self.bad_request(id, error),
        }
    }

    fn bad_request(&mut self, id: ConnId, error: BadRequest) {
        tracing::debug!(conn = id.index(), %error, "a Gearman packet was refused");
        self.broker.answer_open_grab(id, &mut self.outlets);
        self.outlets.send(id, Message::Error { code: error.code(), text: error.text() });
    }

    fn broken(&mut self, id: ConnId, error: FrameError) {
        tracing::info!(conn = id.index(), %error, "closing a Gearman connection");
        self.broker.answer_open_grab(id, &mut self.outlets);
        match error {
            FrameError::LineTooLong => {
                let text = b"ERR INVALID_ARGUMENTS The+line+is+too+long\n";
                self.outlets.send(id, Message::Text(text));
            }
            FrameError::BadMagic | FrameError::TooLarge { .. } => {
                let text = error.to_string();
                self.outlets.send(id, Message::Error { code: "INVALID_PACKET", text: &text });
            }
        }
        self.closing.push(id);
    }

    fn line(&mut self, id: ConnId, line: &[u8]) {
        match self.broker.admin(id, parse_admin(line), &mut self.outlets) {
            AdminEffect::None => {}
            AdminEffect::Shutdown { graceful: true } => self.ending = Ending::WhenIdle,
            AdminEffect::Shutdown { graceful: false } => self.ending = Ending::Now,
        }
    }

    fn request(&mut self, id: ConnId, request: Request<'_>) {
        self.broker.request(self.now, id, request, &mut self.outlets);
    }

    /// What a face or a handle asks for.
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Connect { name, queued, dropped, reply } => {
                let id = self.broker.connect(Peer {
                    address: std::sync::Arc::from("inside"),
                    descriptor: -1,
                    subject: None,
                    kind: PeerKind::InProcess,
                });
                self.outlets.add_face(id, name, queued, dropped);
                // A caller that has gone has said so by `dropped`.
                let _ = reply.send(id);
            }
            Command::Register(id, function) => {
                self.request(id, Request::CanDo { function: &function, timeout_ms: 0 });
            }
            Command::Unregister(id, function) => {
                self.request(id, Request::CantDo { function: &function });
            }
            Command::Grab(id, reply) => {
                if let Some(face) = self.outlets.face(id)
                    && let Some(reply) = face.answer_from_kept(reply)
                {
                    face.pending = Pending::Grab(reply);
                    self.request(id, Request::Grab(GrabStyle::Unique));
                }
            }
            Command::Begin(id, handle) => self.broker.begin(id, &handle),
            Command::Submit(id, submit, reply) => {
                if let Some(face) = self.outlets.face(id) {
                    face.pending = Pending::Submit(reply);
                    self.request(
                        id,
                        Request::Submit(Submit {
                            function: &submit.function,
                            unique: &submit.unique,
                            payload: &submit.payload,
                            precedence: submit.precedence,
                            background: false,
                            reducer: None,
                            when: When::Now,
                        }),
                    );
                }
            }
            Command::Status(id, handle, numerator, denominator) => {
                let (numerator, denominator) = (numerator.to_string(), denominator.to_string());
                let (numerator, denominator) = (numerator.as_bytes(), denominator.as_bytes());
                let handle = &handle;
                self.request(id, Request::WorkStatus { handle, numerator, denominator });
            }
            Command::Work(id, kind, handle, data) => self.face_work(id, kind, &handle, &data),
            // Whoever asked may have gone; that is its own affair.
            Command::Function(name, reply) => drop(reply.send(self.broker.function(&name))),
            Command::Figures(reply) => drop(reply.send(self.broker.figures())),
        }
    }

    fn face_work(&mut self, id: ConnId, kind: WorkKind, handle: &[u8], data: &[u8]) {
        self.request(id, Request::Work { kind, handle, data });
        match kind {
            WorkKind::Complete | WorkKind::Exception | WorkKind::Fail => {
                if let Some(face) = self.outlets.face(id) {
                    face.forget_job(handle);
                }
            }
            WorkKind::Data | WorkKind::Warning => {}
        }
    }

    /// A face is a lost connection when its owner drops it.
    pub(super) fn drop_face(&mut self, id: ConnId) {
        self.outlets.remove_face(id);
        self.broker.disconnect(self.now, id, &mut self.outlets);
    }
}
