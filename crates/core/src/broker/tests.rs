//! The broker driven by hand and by chance, without bytes and sockets.

use super::*;
use crate::time::Time;
use std::collections::HashMap;
use std::sync::Arc;

mod by_chance;
mod by_hand;

/// Keeps what was said, as text that is easy to compare, by connection.
#[derive(Default)]
struct Said(HashMap<ConnId, Vec<String>>);

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Outbox for Said {
    fn send(&mut self, to: ConnId, message: Message<'_>) {
        let said = match message {
            Message::Noop => "NOOP".to_owned(),
            Message::NoJob => "NO_JOB".to_owned(),
            Message::JobCreated { handle } => format!("CREATED {}", text(handle)),
            Message::JobAssign(a) => {
                let reducer = a.reducer.map(|r| format!(" by {}", text(r))).unwrap_or_default();
                let (unique, payload) = (text(a.unique), text(a.payload));
                format!(
                    "ASSIGN {:?} {} {} [{unique}] {payload}{reducer}",
                    a.style,
                    text(a.handle),
                    text(a.function)
                )
            }
            Message::WorkStatus { handle, numerator, denominator } => {
                format!("STATUS {} {}/{}", text(handle), text(numerator), text(denominator))
            }
            Message::Work { kind, handle, data } => {
                format!("{kind:?} {} {}", text(handle), text(data)).trim_end().to_owned()
            }
            Message::Status(s) => format!(
                "KNOWN {} {} {} {}/{} {:?}",
                text(s.name),
                s.known,
                s.running,
                text(s.numerator),
                text(s.denominator),
                s.clients
            ),
            Message::Echo { data } => format!("ECHO {}", text(data)),
            Message::Option { name } => format!("OPTION {}", text(name)),
            Message::Error { code, text } => format!("ERROR {code} {text}"),
            Message::Text(bytes) => text(bytes),
            Message::JobAbandoned { handle } => format!("ABANDONED {}", text(handle)),
        };
        self.0.entry(to).or_default().push(said);
    }
}

/// A broker with a clock and an ear.
struct World {
    broker: Broker,
    said: Said,
    now: Now,
}

fn submit_of<'a>(function: &'a str, unique: &'a str, payload: &'a str) -> Submit<'a> {
    Submit {
        function: function.as_bytes(),
        unique: unique.as_bytes(),
        payload: payload.as_bytes(),
        precedence: Precedence::Normal,
        background: false,
        reducer: None,
        when: When::Now,
    }
}

impl World {
    fn new(settings: Settings) -> World {
        World::with_acl(settings, None)
    }

    fn with_acl(settings: Settings, acl: Option<Acl>) -> World {
        let now = Now { steady: Time(0), calendar: Time(1_415_709_296_000_000) };
        World { broker: Broker::new(settings, acl), said: Said::default(), now }
    }

    fn connect(&mut self) -> ConnId {
        self.connect_as(PeerKind::Local, None)
    }

    fn connect_as(&mut self, kind: PeerKind, subject: Option<&str>) -> ConnId {
        self.broker.connect(Peer {
            address: Arc::from("127.0.0.1"),
            descriptor: 7,
            subject: subject.map(Arc::from),
            kind,
        })
    }

    fn disconnect(&mut self, id: ConnId) {
        self.broker.disconnect(self.now, id, &mut self.said);
    }

    fn ask(&mut self, from: ConnId, request: Request<'_>) {
        self.broker.request(self.now, from, request, &mut self.said);
    }

    fn can_do(&mut self, from: ConnId, function: &str) {
        self.ask(from, Request::CanDo { function: function.as_bytes(), timeout_ms: 0 });
    }

    /// A worker of `function` that sleeps.
    fn sleeper(&mut self, function: &str) -> ConnId {
        let worker = self.connect();
        self.can_do(worker, function);
        self.ask(worker, Request::PreSleep);
        worker
    }

    fn submit(&mut self, from: ConnId, function: &str) -> String {
        self.ask(from, Request::Submit(submit_of(function, "", "x")));
        self.handle(from)
    }

    fn grab(&mut self, from: ConnId) {
        self.ask(from, Request::Grab(GrabStyle::Unique));
    }

    fn done(&mut self, from: ConnId, kind: WorkKind, handle: &str, data: &str) {
        let (handle, data) = (handle.as_bytes(), data.as_bytes());
        self.ask(from, Request::Work { kind, handle, data });
    }

    fn admin(&mut self, from: ConnId, command: AdminCommand<'_>) -> String {
        self.broker.admin(from, command, &mut self.said);
        self.heard(from).pop().unwrap_or_default()
    }

    fn pass(&mut self, micros: i64) {
        self.now.steady = Time(self.now.steady.0 + micros);
        self.now.calendar = Time(self.now.calendar.0 + micros);
        self.broker.tick(self.now, &mut self.said);
    }

    /// What `id` has heard since it was last asked.
    fn heard(&mut self, id: ConnId) -> Vec<String> {
        self.said.0.remove(&id).unwrap_or_default()
    }

    /// The handle in the first CREATED that `id` has heard.
    fn handle(&mut self, id: ConnId) -> String {
        let heard = self.heard(id);
        let created = heard.first().and_then(|s| s.strip_prefix("CREATED "));
        created.unwrap_or_else(|| panic!("no job was created: {heard:?}")).to_owned()
    }
}
