//! The Gearman client and worker with every broker: ours in both dialects, Debian's gearmand and
//! PyPI's geard.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../server/tests/gearman_support/mod.rs"]
mod gearman_support;

use gearman_support::{LIMIT, Peer, Process, Served, program, python_with_gear, wait_for};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;
use toci_client::gearman::{
    Client, LinkOptions, Precedence, Submission, SubmitError, TaskEvent, Worker, parse_brokers,
};
use toci_core::broker::Settings;

/// A broker of any kind.
enum Broker {
    Ours(Served),
    Other { address: SocketAddr, _process: Process },
}

impl Broker {
    fn address(&self) -> SocketAddr {
        match self {
            Broker::Ours(served) => served.address,
            Broker::Other { address, .. } => *address,
        }
    }
}

/// A port that was free a moment ago; another process may take it, so starting is tried again.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(command: &mut Command, port: u16) -> Broker {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let _process = Process(quiet.spawn().unwrap());
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("the broker to listen", || TcpStream::connect(address).is_ok(), |up| *up);
    Broker::Other { address, _process }
}

fn gearmand() -> Broker {
    let port = free_port();
    let mut command = program("gearmand", "gearman-job-server");
    let arguments = ["-L", "127.0.0.1", "-l", "stderr", "-p"];
    spawn(command.args(arguments).arg(port.to_string()), port)
}

fn geard() -> Broker {
    let port = free_port();
    let geard = python_with_gear().with_file_name("geard");
    spawn(
        Command::new(geard)
            .args(["-d", "--listen-address", "127.0.0.1", "-p"])
            .arg(port.to_string()),
        port,
    )
}

fn all_brokers() -> Vec<(&'static str, Broker)> {
    vec![
        ("ours", Broker::Ours(Served::start(|_| {}))),
        ("ours as gearmand", Broker::Ours(Served::start(|o| o.settings = Settings::gearmand("h")))),
        ("gearmand", gearmand()),
        ("geard", geard()),
    ]
}

fn options(addresses: &[SocketAddr], name: &str) -> LinkOptions {
    let text = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    LinkOptions::new(parse_brokers(&text).unwrap(), name)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("nothing within the limit")
}

#[tokio::test]
async fn every_broker_carries_every_kind_of_end() {
    for (name, broker) in all_brokers() {
        let options = options(&[broker.address()], "test");
        let (worker, client) = (Worker::new(&options), Client::new(&options));
        worker.register(b"lockenv", None).await;
        within(async { tokio::join!(worker.connected(), client.connected()) }).await;
        let mut submission = Submission::new("lockenv", "payload");
        submission.precedence = Precedence::High;
        submission.unique = b"u1".to_vec();

        let mut task = within(client.submit(&submission)).await.unwrap();
        let job = within(worker.next_job()).await;
        assert_eq!((job.handle(), job.payload()), (task.handle(), &b"payload"[..]), "{name}");
        assert_eq!((job.function(), job.unique()), (&b"lockenv"[..], &b"u1"[..]), "{name}");
        job.status(1, 4).await.unwrap();
        job.data(b"part").await.unwrap();
        assert_eq!(within(task.next()).await, Some(TaskEvent::Status(b"1".into(), b"4".into())));
        assert_eq!(within(task.next()).await, Some(TaskEvent::Data(b"part".into())));
        let status = within(task.status()).await.unwrap();
        assert!(status.known && status.running && status.denominator == b"4", "{name}");
        job.complete(b"result").await.unwrap();
        assert_eq!(within(task.end()).await, TaskEvent::Complete(b"result".into()), "{name}");
        assert!(!within(task.status()).await.unwrap().known, "{name}");

        let mut task = within(client.submit(&submission)).await.unwrap();
        within(worker.next_job()).await.fail().await.unwrap();
        assert_eq!(within(task.end()).await, TaskEvent::Fail, "{name}");

        let mut task = within(client.submit(&submission)).await.unwrap();
        within(worker.next_job()).await.exception(b"boom").await.unwrap();
        assert_eq!(within(task.end()).await, TaskEvent::Exception(b"boom".into()), "{name}");
    }
}

#[tokio::test]
async fn a_sleeping_worker_is_woken_and_a_cancelled_wait_loses_no_job() {
    for (name, broker) in all_brokers() {
        let options = options(&[broker.address()], "test");
        let (worker, client) = (Worker::new(&options), Client::new(&options));
        worker.register(b"f", None).await;
        within(client.connected()).await;
        // Some waits are cancelled at any moment of a round; each job must still come, once.
        for n in 0..20 {
            let early = Duration::from_millis(n % 4);
            let _ = tokio::time::timeout(early, worker.next_job()).await.map(drop);
            let submission = Submission::new("f", n.to_string());
            let mut task = within(client.submit(&submission)).await.unwrap();
            let job = within(worker.next_job()).await;
            assert_eq!(job.payload(), n.to_string().as_bytes(), "{name}");
            job.complete(b"").await.unwrap();
            assert_eq!(within(task.end()).await, TaskEvent::Complete(Vec::new()), "{name}");
        }
        worker.unregister(b"f").await;
        assert!(within(worker.last_job()).await.is_none(), "{name}");
    }
}

#[tokio::test]
async fn loss_of_the_broker_is_told_and_it_is_found_again() {
    let port = free_port();
    let start = |port: u16| {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Served::start(|o| o.listen = vec![address])
    };
    let served = start(port);
    let options = options(&[served.address], "test");
    let (worker, client) = (Worker::new(&options), Client::new(&options));
    worker.register(b"f", None).await;
    within(client.connected()).await;
    let mut task = within(client.submit(&Submission::new("f", ""))).await.unwrap();
    let job = within(worker.next_job()).await;
    drop(served);
    assert_eq!(within(task.end()).await, TaskEvent::Lost);
    within(job.lost()).await;
    assert!(job.complete(b"").await.is_err());
    let refused = client.submit(&Submission::new("f", "")).await.unwrap_err();
    assert!(matches!(refused, SubmitError::NotConnected(_)), "{refused:?}");

    let _served = start(port);
    within(client.connected()).await;
    let mut task = within(client.submit(&Submission::new("f", "again"))).await.unwrap();
    let job = within(worker.next_job()).await;
    assert_eq!(job.payload(), b"again");
    job.complete(b"").await.unwrap();
    assert_eq!(within(task.end()).await, TaskEvent::Complete(Vec::new()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_brokers_share_a_worker_that_takes_one_job_at_a_time() {
    let (one, two) = (Served::start(|_| {}), Served::start(|_| {}));
    let gone = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let all = options(&[one.address, gone, two.address], "test");
    let worker = Worker::new(&all);
    worker.register(b"f", None).await;
    let (mut first, mut second) = (Peer::connect(one.address), Peer::connect(two.address));
    for served in [&one, &two] {
        let mut admin = served.peer();
        wait_for("the worker", || admin.list("status"), |s| s == &["f\t0\t0\t1"]);
    }
    let handles = [first.submit("f", b"1"), second.submit("f", b"2")];
    let job = within(worker.next_job()).await;
    let running = |served: &Served| served.peer().list("status") == ["f\t1\t1\t1"];
    assert!(running(&one) != running(&two), "one job, not one of each broker");
    job.complete(b"").await.unwrap();
    within(worker.next_job()).await.complete(b"").await.unwrap();
    assert_eq!(first.hear(), format!("Complete {}", handles[0]));
    assert_eq!(second.hear(), format!("Complete {}", handles[1]));

    let client = Client::new(&all);
    within(async {
        while client.submit(&Submission::new("g", "")).await.is_err() {
            client.connected().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_told_with_its_reason() {
    let served = Served::start(|o| o.settings.limits.jobs = 0);
    let client = Client::new(&options(&[served.address], ""));
    within(client.connected()).await;
    let refused = within(client.submit(&Submission::new("f", ""))).await.unwrap_err();
    assert!(refused.to_string().contains("QUEUE_ERROR Job queue is full"), "{refused}");
}
