//! `testenv-client` (origin.md 2.2), without its defects: only the command's own group is ever killed, waiting is not
//! running, no key is logged, and it does not hang when the broker goes away.
//!
//! ```text
//! Waiting ──callback comes──▶ Running ──command ends──▶ callback completed, lockenv awaited ──▶ command's code
//!    │ lockenv failed or lost: asked again     │ lockenv ended, or a connection lost: TERM, KILL ──▶ 137
//!    └ lockenv refused with a reason ──▶ 2
//! ```

use super::args::ClientArgs;
use super::log::Log;
use crate::command::{CommandSpec, DataFile, Ended, Running};
use crate::gearman::{Client, LinkOptions, Submission, Task, TaskEvent, Worker, WorkerJob};
use clap::Parser as _;
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A wait longer than this is told, as in 2014.
const WAIT_WARNING: Duration = Duration::from_secs(10);
/// Pause before a request that failed is made again.
const ASK_AGAIN_PAUSE: Duration = Duration::from_secs(1);
/// So many requests in a row that fail at once, without a callback, and we give up.
const ASKED_IN_VAIN_MAX: u32 = 60;
/// How long the broker may take to say that it has heard of the start, before the command starts anyway.
const TOLD_LIMIT: Duration = Duration::from_secs(5);
/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(10);
/// How long the end of `lockenv` is awaited after the command.
const LOCKENV_END_LIMIT: Duration = Duration::from_secs(10);

/// No environment, or the command cannot be run: 2, as in 2014.
const EXIT_CANNOT: u8 = 2;
/// The environment was taken away: what a shell saw in 2014, when the client killed itself with -9.
const EXIT_TAKEN_AWAY: u8 = 137;

/// Runs as `testenv-client` with these arguments, the program's name first. Call it on the main thread.
#[must_use]
pub fn client_main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args = match ClientArgs::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_CANNOT));
        }
    };
    let log = Log { name: "testenv-client", debug: args.debug };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => ExitCode::from(runtime.block_on(async {
            match Signals::listen() {
                Ok(signals) => run(&args, log, signals).await,
                Err(e) => cannot(log, &format!("cannot listen for signals: {e}")),
            }
        })),
        Err(e) => ExitCode::from(cannot(log, &format!("cannot start: {e}"))),
    }
}

fn cannot(log: Log, message: &str) -> u8 {
    log.error(message);
    EXIT_CANNOT
}

/// The signals that are passed on to the command.
struct Signals {
    int: Signal,
    term: Signal,
    hup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Signals> {
        Ok(Signals {
            int: signal(SignalKind::interrupt())?,
            term: signal(SignalKind::terminate())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.int.recv() => SignalKind::interrupt().as_raw_value(),
            _ = self.term.recv() => SignalKind::terminate().as_raw_value(),
            _ = self.hup.recv() => SignalKind::hangup().as_raw_value(),
        }
    }
}

/// How the wait for an environment ended.
enum Got {
    Callback(WorkerJob, Task),
    Nothing(u8),
}

async fn run(args: &ClientArgs, log: Log, mut signals: Signals) -> u8 {
    let callback = format!("callback_{}", args.jobnum);
    let options = LinkOptions::new(args.geard.0.clone(), format!("testenv-client-{callback}"));
    let worker = Worker::new(&options);
    worker.register(callback.as_bytes(), None).await;
    let client = Client::new(&options);
    let wish = serde_json::json!({
        "callback_name": callback,
        "timeout": args.timeout.to_string(),
    });
    let request = Submission::new("lockenv", wish.to_string());
    let asked = Instant::now();
    let got = tokio::select! {
        got = wait_for_environment(&client, &worker, &request, log) => got,
        number = signals.next() => Got::Nothing(u8::try_from(128 + number).unwrap_or(255)),
    };
    let (job, lockenv) = match got {
        Got::Callback(job, lockenv) => (job, lockenv),
        Got::Nothing(code) => return code,
    };
    // With gearmand, this is how a worker can tell our death from a wait: it has to be there before the command is.
    let told = async { job.status(0, 1).await.and(job.heard().await) };
    if !matches!(tokio::time::timeout(TOLD_LIMIT, told).await, Ok(Ok(()))) {
        log.debug("the broker does not say that it has heard of the start");
    }
    let waited = asked.elapsed();
    if waited > WAIT_WARNING {
        log.info(&format!("{} seconds waiting for a worker.", waited.as_secs()));
    }
    let file = match DataFile::create("testenv", job.payload()) {
        Ok(file) => file,
        Err(e) => {
            let _ = job.fail().await;
            return cannot(log, &format!("{e}: {}", e.source));
        }
    };
    let spec = CommandSpec {
        command: args.command.clone(),
        environment: vec![("TE_DATAFILE".into(), file.path().into())],
    };
    let files = [file];
    let running = match Running::start(&spec, &files) {
        Ok(running) => running,
        Err(e) => {
            let _ = job.complete(b"").await;
            return cannot(log, &format!("Error calling command: {e}"));
        }
    };
    log.debug(&format!("the command runs as process group {}", running.group()));
    hold(running, &worker, job, lockenv, signals, log).await
}

/// Asks for an environment until the callback comes. A request that fails without one (its worker died, the broker
/// was restarted) is made again: nothing has run yet.
async fn wait_for_environment(
    client: &Client,
    worker: &Worker,
    request: &Submission,
    log: Log,
) -> Got {
    let mut in_vain = 0;
    while in_vain < ASKED_IN_VAIN_MAX {
        client.connected().await;
        let asked = Instant::now();
        match client.submit(request).await {
            Ok(mut lockenv) => {
                log.debug(&format!("lockenv is submitted to {}", lockenv.broker()));
                let end = tokio::select! {
                    biased;
                    job = worker.next_job() => return Got::Callback(job, lockenv),
                    end = lockenv.end() => end,
                };
                if let TaskEvent::Exception(text) = &end {
                    let text = String::from_utf8_lossy(text);
                    return Got::Nothing(cannot(log, &format!("no environment: {text}")));
                }
                // A worker that ended the request after having called back: the callback is on its way.
                if let Some(job) = worker.last_job().await {
                    let _ = job.fail().await;
                }
                log.warning(&format!(
                    "lockenv ended without an environment ({}); asking again",
                    word(&end)
                ));
            }
            Err(e) => log.warning(&format!("lockenv was not taken: {e}; asking again")),
        }
        in_vain = if asked.elapsed() > WAIT_WARNING { 0 } else { in_vain + 1 };
        tokio::time::sleep(ASK_AGAIN_PAUSE).await;
    }
    Got::Nothing(cannot(
        log,
        "no environment could be had; is there a testenv-worker or a TE host?",
    ))
}

fn word(event: &TaskEvent) -> &'static str {
    match event {
        TaskEvent::Complete(_) => "complete",
        TaskEvent::Exception(_) => "exception",
        TaskEvent::Fail => "its worker failed or was lost",
        TaskEvent::Lost => "the connection to the broker was lost",
        TaskEvent::Data(_) | TaskEvent::Warning(_) | TaskEvent::Status(..) => "unfinished",
    }
}

/// The command runs: until it ends, the environment is taken away, or we are told to end.
async fn hold(
    mut running: Running,
    worker: &Worker,
    job: WorkerJob,
    mut lockenv: Task,
    mut signals: Signals,
    log: Log,
) -> u8 {
    let mut kill_at: Option<Instant> = None;
    let mut taken_away = false;
    let ended = loop {
        tokio::select! {
            biased;
            ended = running.ended() => break ended,
            number = signals.next() => {
                running.signal(number);
                kill_at.get_or_insert_with(|| Instant::now() + GRACE);
            }
            end = lockenv.end(), if !taken_away => {
                taken_away = true;
                log.error(&format!(
                    "The command hasn't completed but the testenv worker has released the environment ({}). \
                     Ending the command.",
                    word(&end)
                ));
                running.terminate();
                kill_at = Some(Instant::now() + GRACE);
            }
            () = job.lost(), if !taken_away => {
                taken_away = true;
                log.error("The connection to the broker was lost, and with it the environment. Ending the command.");
                running.terminate();
                kill_at = Some(Instant::now() + GRACE);
            }
            // A broker that gave the request to a second worker (gearmand, when the first dies): its environment
            // is not needed, and must not wait for us.
            second = worker.next_job() => {
                let _ = second.fail().await;
            }
            () = at(kill_at) => {
                log.error("The command did not end in time: killed.");
                running.kill();
                kill_at = None;
            }
        }
    };
    running.finish(GRACE).await;
    if taken_away {
        let _ = job.complete(b"").await;
        return EXIT_TAKEN_AWAY;
    }
    if let Ended::Code(code) = ended {
        log.debug(&format!("the command ended with {code}"));
    }
    // The environment goes back now; when the broker is gone, its worker frees it by itself.
    if job.complete(b"").await.is_ok() {
        match tokio::time::timeout(LOCKENV_END_LIMIT, lockenv.end()).await {
            Ok(TaskEvent::Complete(_)) => {}
            Ok(end) => log.warning(&format!("lockenv did not end well: {}", word(&end))),
            Err(_) => log.warning("the worker did not end lockenv; going anyway"),
        }
    }
    ended.shell_code()
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
