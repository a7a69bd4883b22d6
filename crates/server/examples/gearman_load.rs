//! A load generator for Gearman brokers: one thread, epoll. `cargo xtask bench gearman` runs it
//! against three brokers; it prints one line of JSON.
//!
//!     gearman_load pairs ADDRESS PID WORKERS CLIENTS SECONDS PAYLOAD
//!     gearman_load idle  ADDRESS PID CONNECTIONS       (holds them until its stdin ends)
//!     gearman_load storm ADDRESS PID CONNECTIONS LIMIT_SECONDS

#![expect(clippy::print_stdout, reason = "the result is what it prints")]

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use toci_core::broker::{GrabStyle, Message, Precedence, Request, Submit, When, WorkKind};
use toci_wire::gearman::{Frame, PACKET_MAX_BYTES, decode_message, encode_request, frame};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What load is measured with; nobody else registers it.
const FUNCTION: &[u8] = b"bench";
/// Before measuring begins.
const WARM_UP: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 256 * 1024;

/// Which end of the protocol a connection plays.
enum Role {
    Worker,
    Client { submitted: Instant },
}

/// A connection with what it has not read or written yet.
struct Conn {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    role: Role,
}

impl Conn {
    fn say(&mut self, request: &Request<'_>) -> Result<()> {
        Ok(encode_request(&mut self.output, request)?)
    }

    fn flush(&mut self) -> Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(written) => drop(self.output.drain(..written)),
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }
}

/// CPU time of a process in clock ticks, and its resident bytes.
fn process(pid: u32) -> Result<(u64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(") ").ok_or("no name in stat")?.1;
    let field = |n: usize| after_name.split(' ').nth(n).and_then(|f| f.parse::<u64>().ok());
    let ticks = field(11).ok_or("no utime")? + field(12).ok_or("no stime")?;
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm.split(' ').nth(1).ok_or("no rss")?.parse()?;
    Ok((ticks, pages * 4096))
}

fn microseconds(ticks: u64) -> f64 {
    // 100 ticks a second on every Linux that we run on.
    f64::from(u32::try_from(ticks).unwrap_or(u32::MAX)) * 10_000.0
}

struct Load {
    poll: Poll,
    conns: Vec<Conn>,
    scratch: Vec<u8>,
    payload: Vec<u8>,
    /// Latencies in nanoseconds.
    latencies: Vec<u64>,
}

impl Load {
    fn new(payload_bytes: usize) -> Result<Load> {
        Ok(Load {
            poll: Poll::new()?,
            conns: Vec::new(),
            scratch: vec![0; READ_BYTES],
            payload: vec![b'x'; payload_bytes],
            latencies: Vec::new(),
        })
    }

    fn add(&mut self, address: SocketAddr, role: Role) -> Result<()> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(self.conns.len()), interest)?;
        self.conns.push(Conn { stream, input: Vec::new(), output: Vec::new(), role });
        Ok(())
    }

    fn submit(conn: &mut Conn, payload: &[u8]) -> Result<()> {
        conn.role = Role::Client { submitted: Instant::now() };
        conn.say(&Request::Submit(Submit {
            function: FUNCTION,
            unique: b"",
            payload,
            precedence: Precedence::Normal,
            background: false,
            reducer: None,
            when: When::Now,
        }))
    }

    /// Serve one round of readiness.
    fn round(&mut self, events: &mut Events) -> Result<()> {
        self.poll.poll(events, Some(Duration::from_millis(20)))?;
        for event in &*events {
            let Load { conns, scratch, payload, latencies, .. } = self;
            let conn = &mut conns[event.token().0];
            loop {
                let taken = match conn.stream.read(scratch) {
                    Ok(0) => return Err("the broker closed a connection".into()),
                    Ok(taken) => taken,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(e) => return Err(e.into()),
                };
                hear(conn, &scratch[..taken], payload, latencies)?;
                if taken < scratch.len() {
                    break;
                }
            }
            conn.flush()?;
        }
        Ok(())
    }
}

fn hear(conn: &mut Conn, fresh: &[u8], payload: &[u8], latencies: &mut Vec<u64>) -> Result<()> {
    let mut input = std::mem::take(&mut conn.input);
    input.extend_from_slice(fresh);
    let mut used = 0;
    while let Frame::Packet { packet, length } = frame(&input[used..], PACKET_MAX_BYTES)? {
        used += length;
        match decode_message(packet)? {
            Message::Noop => conn.say(&Request::Grab(GrabStyle::Unique))?,
            Message::NoJob => conn.say(&Request::PreSleep)?,
            Message::JobAssign(a) => {
                let kind = WorkKind::Complete;
                conn.say(&Request::Work { kind, handle: a.handle, data: a.payload })?;
                conn.say(&Request::Grab(GrabStyle::Unique))?;
            }
            Message::Work { kind: WorkKind::Complete, .. } => {
                if let Role::Client { submitted } = conn.role {
                    let took = submitted.elapsed().as_nanos();
                    latencies.push(u64::try_from(took).unwrap_or(u64::MAX));
                    Load::submit(conn, payload)?;
                }
            }
            Message::JobCreated { .. } => {}
            other => return Err(format!("unexpected {other:?}").into()),
        }
    }
    input.drain(..used);
    conn.input = input;
    Ok(())
}

fn register(conn: &mut Conn, function: &[u8]) -> Result<()> {
    conn.say(&Request::CanDo { function, timeout_ms: 0 })?;
    conn.say(&Request::Grab(GrabStyle::Unique))
}

fn pairs(address: SocketAddr, pid: u32, numbers: &[usize]) -> Result<()> {
    let [workers, clients, seconds, payload] = numbers else { return Err("four numbers".into()) };
    let mut load = Load::new(*payload)?;
    for _ in 0..*workers {
        load.add(address, Role::Worker)?;
    }
    for conn in &mut load.conns {
        register(conn, FUNCTION)?;
        conn.flush()?;
    }
    let submitted = Instant::now();
    for _ in 0..*clients {
        load.add(address, Role::Client { submitted })?;
    }
    for conn in &mut load.conns[*workers..] {
        Load::submit(conn, &load.payload)?;
        conn.flush()?;
    }
    let mut events = Events::with_capacity(1024);
    let warm = Instant::now();
    while warm.elapsed() < WARM_UP {
        load.round(&mut events)?;
    }
    load.latencies.clear();
    let own = std::process::id();
    let (before, own_before) = (process(pid)?.0, process(own)?.0);
    let began = Instant::now();
    let wanted = Duration::from_secs(u64::try_from(*seconds)?);
    while began.elapsed() < wanted {
        load.round(&mut events)?;
    }
    let took = began.elapsed().as_secs_f64();
    let (after, own_after) = (process(pid)?.0, process(own)?.0);
    load.latencies.sort_unstable();
    let jobs = load.latencies.len();
    let at = |per_mille: usize| {
        let place = (jobs * per_mille / 1000).min(jobs.saturating_sub(1));
        load.latencies.get(place).map_or(0.0, |n| Duration::from_nanos(*n).as_secs_f64() * 1e6)
    };
    let count = f64::from(u32::try_from(jobs)?.max(1));
    println!(
        "{{\"jobs_per_s\":{:.1},\"p50_us\":{:.1},\"p99_us\":{:.1},\"cpu_us_per_job\":{:.2},\
         \"generator_cpu_percent\":{:.1}}}",
        count / took,
        at(500),
        at(990),
        microseconds(after - before) / count,
        microseconds(own_after - own_before) / took / 1e4
    );
    Ok(())
}

/// Connect one at a time, each registered and asleep before the next one, then hold.
fn idle(address: SocketAddr, pid: u32, connections: usize) -> Result<()> {
    let before = process(pid)?.1;
    let began = Instant::now();
    let mut held = Vec::with_capacity(connections);
    for _ in 0..connections {
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut bytes = Vec::new();
        encode_request(&mut bytes, &Request::CanDo { function: b"idle", timeout_ms: 0 })?;
        encode_request(&mut bytes, &Request::Grab(GrabStyle::Unique))?;
        stream.write_all(&bytes)?;
        stream.read_exact(&mut [0; 12])?;
        bytes.clear();
        encode_request(&mut bytes, &Request::PreSleep)?;
        stream.write_all(&bytes)?;
        held.push(stream);
    }
    let took = began.elapsed().as_secs_f64();
    std::thread::sleep(Duration::from_millis(500));
    let (ticks, after) = process(pid)?;
    std::thread::sleep(Duration::from_secs(2));
    let idle_ticks = process(pid)?.0 - ticks;
    let bytes = after.saturating_sub(before) / u64::try_from(connections.max(1))?;
    println!(
        "{{\"seconds\":{took:.3},\"rss_before\":{before},\"rss\":{after},\
         \"bytes_per_connection\":{bytes},\"idle_cpu_percent\":{:.1}}}",
        microseconds(idle_ticks) / 2.0 / 1e4
    );
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// All at once: how long until the last one has been answered.
fn storm(address: SocketAddr, connections: usize, limit: Duration) -> Result<()> {
    let mut poll = Poll::new()?;
    let began = Instant::now();
    let mut streams = Vec::with_capacity(connections);
    let mut request = Vec::new();
    encode_request(&mut request, &Request::CanDo { function: FUNCTION, timeout_ms: 0 })?;
    encode_request(&mut request, &Request::Grab(GrabStyle::Unique))?;
    for n in 0..connections {
        let mut stream = TcpStream::connect(address)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        poll.registry().register(&mut stream, Token(n), interest)?;
        streams.push((stream, false, 0));
    }
    let mut events = Events::with_capacity(1024);
    let mut served = 0;
    while served < connections && began.elapsed() < limit {
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            let (stream, asked, heard) = &mut streams[event.token().0];
            if event.is_writable() && !*asked && stream.peer_addr().is_ok() {
                stream.write_all(&request)?;
                *asked = true;
            }
            let mut answer = [0; 64];
            while *heard < 12 {
                match stream.read(&mut answer) {
                    Ok(0) => return Err("the broker closed a connection".into()),
                    Ok(taken) => {
                        *heard += taken;
                        if *heard >= 12 {
                            served += 1;
                        }
                    }
                    Err(e)
                        if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                    {
                        break;
                    }
                    Err(e) => return Err(e.into()),
                }
            }
        }
    }
    println!("{{\"served\":{served},\"seconds\":{:.3}}}", began.elapsed().as_secs_f64());
    Ok(())
}

fn main() -> Result<()> {
    let usage = "gearman_load pairs|idle|storm ADDRESS PID NUMBER...";
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, address, pid, numbers @ ..] = arguments.as_slice() else { return Err(usage.into()) };
    let (address, pid) = (address.parse()?, pid.parse()?);
    let numbers =
        numbers.iter().map(|n| n.parse()).collect::<std::result::Result<Vec<usize>, _>>()?;
    match (mode.as_str(), numbers.as_slice()) {
        ("pairs", numbers) => pairs(address, pid, numbers),
        ("idle", [connections]) => idle(address, pid, *connections),
        ("storm", [connections, limit]) => {
            storm(address, *connections, Duration::from_secs(u64::try_from(*limit)?))
        }
        _ => Err(usage.into()),
    }
}
