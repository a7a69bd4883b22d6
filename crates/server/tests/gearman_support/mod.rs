//! What the Gearman tests share: a broker on a free port, a peer that speaks raw bytes, and real
//! peers as processes. Every wait has a limit.

// Each test binary uses its own part of this.
#![allow(dead_code, clippy::allow_attributes)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use toci_core::broker::{GrabStyle, Message, Precedence, Request, Submit, When, WorkKind};
use toci_server::broker::{BrokerHandle, BrokerOptions, BrokerServer, start};
use toci_wire::gearman::{Frame, PACKET_MAX_BYTES, decode_message, encode_request, frame};

/// Longest wait for anything; the machine may be busy.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// A broker in this process; stopped at the end.
pub(crate) struct Served {
    server: Option<BrokerServer>,
    pub(crate) address: SocketAddr,
}

impl Served {
    pub(crate) fn start(change: impl FnOnce(&mut BrokerOptions)) -> Served {
        let mut options = BrokerOptions::new("127.0.0.1:0".parse().unwrap());
        change(&mut options);
        let server = start(options).unwrap();
        let address = server.addresses()[0];
        Served { server: Some(server), address }
    }

    pub(crate) fn handle(&self) -> BrokerHandle {
        self.server.as_ref().unwrap().handle()
    }

    pub(crate) fn join(mut self) {
        self.server.take().unwrap().join().unwrap();
    }

    pub(crate) fn port(&self) -> String {
        self.address.port().to_string()
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer::connect(self.address)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.stop().unwrap();
        }
    }
}

/// A peer that speaks bytes.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    input: Vec<u8>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A message in one line.
fn describe(message: Message<'_>) -> String {
    match message {
        Message::Noop => "NOOP".to_owned(),
        Message::NoJob => "NO_JOB".to_owned(),
        Message::JobCreated { handle } => format!("CREATED {}", text(handle)),
        Message::JobAssign(a) => {
            let reducer = a.reducer.map(|r| format!(" by {}", text(r))).unwrap_or_default();
            let words = [a.handle, a.function, a.unique, a.payload].map(text).join(" ");
            format!("ASSIGN {words}{reducer}")
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
        Message::Text(_) | Message::JobAbandoned { .. } => unreachable!("not a packet"),
    }
}

impl Peer {
    pub(crate) fn connect(address: SocketAddr) -> Peer {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Peer { stream, input: Vec::new() }
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    pub(crate) fn say(&mut self, request: Request<'_>) {
        let mut bytes = Vec::new();
        encode_request(&mut bytes, &request).unwrap();
        self.bytes(&bytes);
    }

    pub(crate) fn can_do(&mut self, function: &str) {
        self.say(Request::CanDo { function: function.as_bytes(), timeout_ms: 0 });
    }

    pub(crate) fn grab(&mut self) {
        self.say(Request::Grab(GrabStyle::Unique));
    }

    /// Submit and take the handle from the answer.
    pub(crate) fn submit(&mut self, function: &str, payload: &[u8]) -> String {
        self.say(Request::Submit(Submit {
            function: function.as_bytes(),
            unique: b"",
            payload,
            precedence: Precedence::Normal,
            background: false,
            reducer: None,
            when: When::Now,
        }));
        let heard = self.hear();
        heard.strip_prefix("CREATED ").unwrap_or_else(|| panic!("{heard}")).to_owned()
    }

    pub(crate) fn done(&mut self, kind: WorkKind, handle: &str, data: &[u8]) {
        self.say(Request::Work { kind, handle: handle.as_bytes(), data });
    }

    /// The next packet in one line, or `END`.
    pub(crate) fn hear(&mut self) -> String {
        loop {
            match frame(&self.input, PACKET_MAX_BYTES).unwrap() {
                Frame::Packet { packet, length } => {
                    let heard = describe(decode_message(packet).unwrap());
                    self.input.drain(..length);
                    return heard;
                }
                Frame::Line { line, length } => {
                    let heard = text(line);
                    self.input.drain(..length);
                    return heard;
                }
                Frame::Partial { .. } => {}
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return "END".to_owned(),
                Ok(n) => self.input.extend_from_slice(&chunk[..n]),
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return "END".to_owned(),
                Err(e) => panic!("nothing within {LIMIT:?}: {e}"),
            }
        }
    }

    /// An admin command that is answered with one line.
    pub(crate) fn line(&mut self, command: &str) -> String {
        self.bytes(format!("{command}\n").as_bytes());
        self.hear()
    }

    /// An admin command that is answered with a list.
    pub(crate) fn list(&mut self, command: &str) -> Vec<String> {
        self.bytes(format!("{command}\n").as_bytes());
        let mut lines = Vec::new();
        loop {
            match self.hear().as_str() {
                "." => return lines,
                "END" => panic!("the list ended without its full stop: {lines:?}"),
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// All that comes until the end.
    pub(crate) fn rest(mut self) -> Vec<u8> {
        let mut all = std::mem::take(&mut self.input);
        self.stream.read_to_end(&mut all).unwrap();
        all
    }
}

/// A worker that answers `function` with its payload, as often as it is asked to.
pub(crate) fn echo_worker(
    address: SocketAddr,
    function: &'static str,
) -> std::thread::JoinHandle<()> {
    let mut peer = Peer::connect(address);
    peer.can_do(function);
    std::thread::spawn(move || {
        loop {
            peer.grab();
            let heard = peer.hear();
            let words: Vec<&str> = heard.splitn(5, ' ').collect();
            match words[0] {
                "ASSIGN" => peer.done(WorkKind::Complete, words[1], words[4].as_bytes()),
                "NO_JOB" => {
                    peer.say(Request::PreSleep);
                    if peer.hear() == "END" {
                        return;
                    }
                }
                _ => return,
            }
        }
    })
}

/// Wait for a condition; panics with the last state.
pub(crate) fn wait_for<T: std::fmt::Debug>(
    what: &str,
    mut state: impl FnMut() -> T,
    ok: impl Fn(&T) -> bool,
) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        let now = state();
        if ok(&now) {
            return now;
        }
        assert!(Instant::now() < end, "{what} did not come within {LIMIT:?}; last: {now:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process that ends with the test.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program of a Debian package; the panic names the package when it is missing.
pub(crate) fn program(name: &str, package: &str) -> Command {
    let found = std::env::var("PATH")
        .unwrap_or_default()
        .split(':')
        .any(|d| PathBuf::from(d).join(name).exists())
        || PathBuf::from("/usr/sbin").join(name).exists();
    assert!(found, "{name} is missing: apt-get install {package}");
    let path = PathBuf::from("/usr/sbin").join(name);
    Command::new(if path.exists() { path } else { PathBuf::from(name) })
}

/// Run to the end within the limit, with text on stdin; stdout, or a panic with both outputs.
pub(crate) fn output(command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let pid = child.id();
    let (done, ended) = std::sync::mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if ended.recv_timeout(LIMIT * 2).is_err() {
            // SIGKILL to our own child, which has not been waited for.
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
    });
    let out = child.wait_with_output().unwrap();
    let _ = done.send(());
    guard.join().unwrap();
    let (stdout, stderr) = (text(&out.stdout), text(&out.stderr));
    assert!(out.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", out.status);
    stdout
}

/// A python with PyPI's gear, installed once under target/.
pub(crate) fn python_with_gear() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let venv = target.parent().unwrap().join("gear-venv");
    let python = venv.join("bin/python");
    let lock = std::fs::File::create(target.join("gear-venv.lock")).unwrap();
    lock.lock().unwrap();
    let works = |python: &PathBuf| {
        Command::new(python).args(["-c", "import gear"]).output().is_ok_and(|o| o.status.success())
    };
    if !works(&python) {
        let made = program("python3", "python3-venv").args(["-m", "venv"]).arg(&venv).status();
        assert!(
            made.is_ok_and(|s| s.success()),
            "python3 -m venv failed: apt-get install python3-venv"
        );
        let pip =
            Command::new(&python).args(["-m", "pip", "-q", "install", "gear==0.16.0"]).status();
        assert!(pip.is_ok_and(|s| s.success()), "pip install gear==0.16.0 (PyPI) failed");
        assert!(works(&python), "gear of PyPI does not import");
    }
    python
}
