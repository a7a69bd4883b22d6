//! `testenv-worker` (origin.md 2.1): offers one environment as a `lockenv` worker of any broker. Without its defects:
//! no key in any log, a short timeout is kept, a client that dies frees the environment at once with gearmand too, and
//! there is no pause between two holders.
//!
//! ```text
//! Idle ──lockenv──▶ Locked: callback submitted ──ended, not started within 40 s, client lost, timeout──▶ lockenv completed
//!  ▲  USR2: out of service, USR1: back, INT: end                                                            │
//!  └────────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use super::args::WorkerArgs;
use super::log::Log;
use crate::gearman::{Client, LinkOptions, Submission, Task, TaskEvent, Worker, WorkerJob};
use clap::Parser as _;
use serde::Deserialize;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A callback that nobody has taken after this, and still not [`PROBE_PAUSE`] later, frees the environment.
const START_LIMIT: Duration = Duration::from_secs(30);
/// See [`START_LIMIT`].
const PROBE_PAUSE: Duration = Duration::from_secs(10);
/// How often the broker is asked whether the callback has begun to run, so that its end can be told from a wait.
const FIRST_WATCH_PERIOD: Duration = Duration::from_millis(200);
/// How often the broker is asked whether the callback still runs.
const WATCH_PERIOD: Duration = Duration::from_secs(2);

/// What a client asks for.
#[derive(Debug, Deserialize)]
struct LockRequest {
    callback_name: String,
    #[serde(default)]
    timeout: Option<Seconds>,
}

/// A number, or a number in quotes.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(u64),
    Text(String),
}

impl Seconds {
    fn duration(&self) -> Option<Duration> {
        match self {
            Seconds::Number(n) => Some(Duration::from_secs(*n)),
            Seconds::Text(text) => text.trim().parse().ok().map(Duration::from_secs),
        }
    }
}

/// Runs as `testenv-worker` with these arguments, the program's name first.
#[must_use]
pub fn worker_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match WorkerArgs::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let log = Log { name: "testenv-worker", debug: args.debug };
    if let Err(e) = std::fs::read(&args.datafile) {
        log.error(&format!("cannot read {}: {e}", args.datafile.display()));
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.and_then(|runtime| {
        runtime.block_on(async {
            serve(&args, Control::listen()?, log).await;
            Ok(())
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log.error(&format!("cannot start: {e}"));
            ExitCode::FAILURE
        }
    }
}

/// USR1, USR2 and INT. TERM keeps its default: the end, at once.
struct Control {
    enable: Signal,
    disable: Signal,
    stop: Signal,
}

/// Whether new jobs are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    /// Yes.
    In,
    /// Not until USR1.
    Out,
    /// Never again.
    Ending,
}

impl Control {
    fn listen() -> std::io::Result<Control> {
        Ok(Control {
            enable: signal(SignalKind::user_defined1())?,
            disable: signal(SignalKind::user_defined2())?,
            stop: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Service {
        tokio::select! {
            _ = self.enable.recv() => Service::In,
            _ = self.disable.recv() => Service::Out,
            _ = self.stop.recv() => Service::Ending,
        }
    }
}

async fn serve(args: &WorkerArgs, mut control: Control, log: Log) {
    let id = format!("testenv-worker-{}", args.tenum);
    let options = LinkOptions::new(args.geard.0.clone(), id);
    let mut service = Service::In;
    loop {
        match service {
            Service::Ending => return,
            Service::Out => service = control.next().await,
            Service::In => service = in_service(args, &options, &mut control, log).await,
        }
    }
}

/// Serves until told otherwise.
async fn in_service(
    args: &WorkerArgs,
    options: &LinkOptions,
    control: &mut Control,
    log: Log,
) -> Service {
    let worker = Worker::new(options);
    worker.register(b"lockenv", None).await;
    log.info("waiting for a job");
    let mut service = Service::In;
    while service == Service::In {
        tokio::select! {
            // No other job is asked for while this one runs. The registration stays: gearmand takes a job away from
            // a worker that takes its function back.
            job = worker.next_job() => service = lock(args, options, job, control, log).await,
            told = control.next() => service = told,
        }
    }
    log.info("no new jobs are taken");
    // One that was on its way is served all the same, or its client would have waited for nothing.
    match worker.last_job().await {
        Some(job) => match lock(args, options, job, control, log).await {
            Service::In => service,
            told => told,
        },
        None => service,
    }
}

/// Serves one job to its end, hearing signals meanwhile.
async fn lock(
    args: &WorkerArgs,
    options: &LinkOptions,
    job: WorkerJob,
    control: &mut Control,
    log: Log,
) -> Service {
    let mut service = Service::In;
    let mut held = std::pin::pin!(hold(args, options, job, log));
    loop {
        tokio::select! {
            () = &mut held => return service,
            told = control.next() => {
                service = told;
                log.info("the running job goes on");
            }
        }
    }
}

async fn hold(args: &WorkerArgs, options: &LinkOptions, job: WorkerJob, log: Log) {
    let started = Instant::now();
    let request: LockRequest = match serde_json::from_slice(job.payload()) {
        Ok(request) => request,
        Err(e) => {
            return refuse(job, log, &format!("lockenv's arguments are no JSON object: {e}")).await;
        }
    };
    let timeout = match request.timeout.as_ref().map(Seconds::duration) {
        None => Duration::from_secs(args.timeout),
        Some(Some(timeout)) => timeout,
        Some(None) => return refuse(job, log, "timeout is no number of seconds").await,
    };
    let data = match tokio::fs::read(&args.datafile).await {
        Ok(data) => data,
        Err(e) => {
            return refuse(job, log, &format!("cannot read {}: {e}", args.datafile.display()))
                .await;
        }
    };
    log.info(&format!("locked for {}, for at most {} s", request.callback_name, timeout.as_secs()));
    // A client of its own: when it goes, a callback that nobody took goes from the broker's queue.
    let client = Client::new(options);
    client.connected().await;
    let callback = Submission::new(request.callback_name.as_str(), data);
    match client.submit(&callback).await {
        Ok(mut task) => {
            let end = started + timeout;
            let outcome = tokio::select! {
                outcome = watch(&mut task, end) => outcome,
                () = job.lost() => "the connection to the broker was lost",
            };
            log.info(&format!("{outcome}; freeing the environment"));
        }
        Err(e) => log.warning(&format!("the callback was not taken: {e}; freeing the environment")),
    }
    if let Err(e) = job.complete(b"").await {
        log.warning(&format!("lockenv: {e}"));
    }
}

async fn refuse(job: WorkerJob, log: Log, message: &str) {
    log.error(message);
    let _ = job.exception(message.as_bytes()).await;
}

/// Waits for the end of the callback, or for a sign that it will never come.
async fn watch(task: &mut Task, end: Instant) -> &'static str {
    let submitted = Instant::now();
    let mut seen_running = false;
    loop {
        let period = if seen_running { WATCH_PERIOD } else { FIRST_WATCH_PERIOD };
        let pause = tokio::time::sleep_until((Instant::now() + period).min(end).into());
        tokio::select! {
            event = task.next() => match event {
                Some(TaskEvent::Complete(_)) => return "the callback has ended",
                Some(TaskEvent::Exception(_)) => return "the callback ended with an exception",
                Some(TaskEvent::Fail) => return "the callback failed or its client is gone",
                Some(TaskEvent::Lost) | None => return "the connection to the broker was lost",
                // Our own client says so when its command starts.
                Some(TaskEvent::Data(_) | TaskEvent::Warning(_) | TaskEvent::Status(..)) => {
                    seen_running = true;
                    continue;
                }
            },
            () = pause => {}
        }
        if Instant::now() >= end {
            return "no sign of the job completing within its timeout";
        }
        let Ok(status) = task.status().await else {
            return "the broker does not answer";
        };
        match (status.running, seen_running) {
            (true, _) => seen_running = true,
            // gearmand says nothing when the client dies: it puts the callback back into its queue.
            (false, true) => return "the client is gone",
            (false, false) if submitted.elapsed() >= START_LIMIT + PROBE_PAUSE => {
                return "no sign of the callback job starting";
            }
            (false, false) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read_as_in_2014() {
        let parse = |text: &str| serde_json::from_str::<LockRequest>(text);
        let timeout = |text: &str| parse(text).unwrap().timeout.and_then(|t| t.duration());
        assert_eq!(timeout(r#"{"callback_name":"c"}"#), None);
        let minute = Some(Duration::from_secs(60));
        assert_eq!(timeout(r#"{"callback_name":"c","timeout":"60"}"#), minute);
        assert_eq!(timeout(r#"{"callback_name":"c","timeout":60,"x":1}"#), minute);
        assert!(parse(r#"{"timeout":"60"}"#).is_err());
        assert!(parse(r#"{"callback_name":"c","timeout":[]}"#).is_err());
    }
}
