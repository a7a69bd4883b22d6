//! The task of one TE: feeds its fence with wishes, time and results, and executes the effects in
//! their order, each done before the next.

use super::clock::{boot_now, wall_now};
use super::gate::Gate;
use super::json::te_json;
use super::keys::LeaseKey;
use super::record::Record;
use super::reset::{power_off, reset};
use crate::host::Host;
use crate::machines::TeMachines;
use crate::plan::TeSpec;
use crate::state::StateError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use toci_core::chain::Chain;
use toci_core::id::{Generation, LeaseId};
use toci_core::lease::fence::{Fence, FenceEffect, FenceEvent, Open, Standing, Task};
use toci_core::time::Time;
use toci_wire::api::{DesiredTe, ServingReport, TeTask};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

/// Results of resets that may wait for a TE's task; there is one reset at a time.
const INBOX_MAX: usize = 4;
/// Attempts of a reset before the TE is called broken: what fails at first is often a daemon that
/// is being started again.
const RESET_ATTEMPTS: u32 = 3;
/// Pause before the next attempt.
const RESET_PAUSE: Duration = Duration::from_secs(2);
/// Pause before an effect that failed is tried again.
const EFFECT_PAUSE: Duration = Duration::from_secs(1);

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a TE needs of the gateway.
pub trait GatewayPort: std::fmt::Debug + Send + Sync {
    /// Its public key in OpenSSH's form.
    fn host_key(&self) -> String;
    /// Lets the holder of this key at these machines, until closed.
    fn open(
        &self,
        lease: LeaseId,
        generation: Generation,
        public_key: &str,
        machines: TeMachines,
    ) -> Boxed<'_, ()>;
    /// Refuses this generation and everything older, cuts their sessions, and returns when they
    /// are dead.
    fn close(&self, te: &TeSpec, generation: Generation) -> Boxed<'_, ()>;
    /// Returns in a moment in which no holder runs a command.
    fn quiet(&self) -> Boxed<'_, ()>;
}

/// A wish of the server, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    generation: Generation,
    task: Task,
    came: Instant,
}

impl Wish {
    /// From the wire; `None` when it is not to be understood.
    #[must_use]
    pub fn new(d: &DesiredTe) -> Option<Wish> {
        let task = match &d.task {
            TeTask::Serve { lease, left_s } => {
                Task::Serve { lease: lease.parse().ok()?, left: Duration::from_secs(*left_s) }
            }
            TeTask::Vacate => Task::Vacate,
            TeTask::BurnIn => Task::BurnIn,
            TeTask::Quarantine => Task::Quarantine,
        };
        Some(Wish { generation: Generation(d.generation), task, came: Instant::now() })
    }

    /// As an event now: what is left has become less since it came.
    fn event(&self) -> FenceEvent {
        let task = match self.task {
            Task::Serve { lease, left } => {
                Task::Serve { lease, left: left.saturating_sub(self.came.elapsed()) }
            }
            Task::Vacate | Task::BurnIn | Task::Quarantine => self.task,
        };
        FenceEvent::Desired { generation: self.generation, task }
    }
}

/// Where a TE stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TeStatus {
    /// Newest generation seen.
    pub generation: Generation,
    /// Where it stands.
    pub standing: Standing,
    /// While serving: what the holder gets. Secret.
    pub serving: Option<Arc<ServingReport>>,
}

/// A TE's task, as others see it.
#[derive(Clone, Debug)]
pub struct TeTaskHandle {
    /// The TE.
    pub te: Arc<TeSpec>,
    /// Its gate.
    pub gate: Arc<Gate>,
    /// Where it stands.
    pub status: watch::Receiver<TeStatus>,
    wishes: Arc<watch::Sender<Option<Wish>>>,
}

impl TeTaskHandle {
    /// Passes on a wish. The newest counts, however many come while the task is busy; one of an
    /// older generation that was overtaken on the way does not displace it.
    pub fn wish(&self, wish: Wish) {
        self.wishes.send_if_modified(|newest| {
            let newer = newest.as_ref().is_none_or(|w| w.generation <= wish.generation);
            if newer {
                *newest = Some(wish);
            }
            newer
        });
    }
}

struct ResetEnded {
    generation: Generation,
    failed: Option<String>,
}

struct Worker {
    host: Arc<Host>,
    te: Arc<TeSpec>,
    gate: Arc<Gate>,
    gateway: Arc<dyn GatewayPort>,
    incarnation: String,
    record: Option<Record>,
    /// The newest wish.
    wish: watch::Receiver<Option<Wish>>,
    /// The reset that is under way; the next one waits for it.
    resetting: Option<JoinHandle<()>>,
    serving: Option<Arc<ServingReport>>,
    status: watch::Sender<TeStatus>,
    inbox: mpsc::Receiver<ResetEnded>,
    to_self: mpsc::Sender<ResetEnded>,
}

/// Starts the task of a TE from its record. It ends when its handle and all clones are gone. On
/// return the status is true: a TE that was being served is served again, or it is being reset.
pub async fn start_te(
    host: &Arc<Host>,
    te: &Arc<TeSpec>,
    gateway: &Arc<dyn GatewayPort>,
    incarnation: &str,
) -> Result<TeTaskHandle, StateError> {
    let record = Record::read(&host.state.te(te.number))?;
    let (fence, effects) = match &record {
        Some(r) => Fence::restored(r.mark(), r.incarnation == incarnation, boot_now()),
        None => Fence::new(),
    };
    let generation = fence.generation();
    let gate = Arc::new(Gate::new(fence));
    let standing = Standing::Resetting;
    let (status, watched) = watch::channel(TeStatus { generation, standing, serving: None });
    let (to_self, inbox) = mpsc::channel(INBOX_MAX);
    let (wishes, wish) = watch::channel(None);
    let handle = TeTaskHandle {
        te: Arc::clone(te),
        gate: Arc::clone(&gate),
        status: watched,
        wishes: Arc::new(wishes),
    };
    let mut worker = Worker {
        host: Arc::clone(host),
        te: Arc::clone(te),
        gate,
        gateway: Arc::clone(gateway),
        incarnation: incarnation.to_owned(),
        record,
        wish,
        resetting: None,
        serving: None,
        status,
        inbox,
        to_self,
    };
    worker.execute(effects).await;
    worker.publish();
    tokio::spawn(worker.run());
    Ok(handle)
}

impl Worker {
    async fn run(mut self) {
        loop {
            self.publish();
            let due = self.gate.with_fence(|f| f.next_due());
            tokio::select! {
                wished = self.wish.changed() => {
                    if wished.is_err() {
                        return;
                    }
                    self.feed_wish().await;
                }
                () = until(due) => self.feed(FenceEvent::Tick).await,
                Some(ResetEnded { generation, failed }) = self.inbox.recv() => {
                    let event = match failed {
                        None => FenceEvent::ResetDone { generation },
                        Some(reason) => FenceEvent::ResetFailed { generation, reason },
                    };
                    self.feed(event).await;
                    self.publish();
                    // A grant that came during the reset is taken up now.
                    self.feed_wish().await;
                }
            }
        }
    }

    async fn feed_wish(&mut self) {
        let wish = self.wish.borrow_and_update().clone();
        if let Some(wish) = wish {
            self.feed(wish.event()).await;
        }
    }

    async fn feed(&mut self, event: FenceEvent) {
        let te = &self.te.id;
        match self.gate.with_fence(|f| f.on(event, boot_now())) {
            Ok(effects) => self.execute(effects).await,
            Err(stale) => tracing::warn!(%te, "{stale}"),
        }
    }

    async fn execute(&mut self, effects: Vec<FenceEffect>) {
        for effect in effects {
            tracing::info!(te = %self.te.id, effect = ?Words(&effect), "fence");
            self.publish();
            match effect {
                FenceEffect::CutOff { generation } => self.cut_off(generation).await,
                FenceEffect::Persist(mark) => self.persist(mark).await,
                FenceEffect::Open { lease, generation } => self.open(lease, generation).await,
                FenceEffect::Reset { generation, burn_in } => self.reset(generation, burn_in),
                FenceEffect::PowerOff { .. } => self.power_off(),
            }
        }
    }

    async fn cut_off(&mut self, generation: Generation) {
        self.serving = None;
        self.gateway.close(&self.te, generation).await;
        // Commands that passed before the fence closed may still be at work on a machine.
        self.gate.drained().await;
        if let Err(e) = self.host.dismiss(self.te.number).await {
            // The reset does it again.
            tracing::warn!(te = %self.te.id, error = %Chain(&e), "the seed's guests stay for a moment");
        }
    }

    /// Until it is on disk: nothing may go on before.
    async fn persist(&mut self, mark: toci_core::lease::fence::Mark) {
        let path = self.host.state.te(self.te.number);
        loop {
            let written = Record::of(mark, self.record.as_ref(), &self.incarnation)
                .and_then(|r| r.write(&path).map(|()| r));
            match written {
                Ok(record) => {
                    self.record = Some(record);
                    return;
                }
                Err(e) => {
                    tracing::error!(te = %self.te.id, error = %Chain(&e), "cannot keep the record")
                }
            }
            sleep(EFFECT_PAUSE).await;
        }
    }

    async fn open(&mut self, lease: LeaseId, generation: Generation) {
        let open = self.record.as_ref().and_then(|r| r.open.clone());
        let Some(open) = open.filter(|o| o.key.generation == generation.0) else {
            tracing::error!(te = %self.te.id, "no key for generation {generation}");
            return;
        };
        let machines = TeMachines::holder(&self.host, &self.te, &self.gate, generation);
        self.gateway.open(lease, generation, &open.key.public, machines).await;
        self.serving = Some(Arc::new(self.serving_report(lease, &open.key, open.until)));
    }

    fn serving_report(&self, lease: LeaseId, key: &LeaseKey, until: Time) -> ServingReport {
        let expires = wall_now().after(until.since(boot_now()));
        let host_key = self.gateway.host_key();
        let json = te_json(&self.host.config, &self.te, lease, key, expires, &host_key);
        ServingReport { generation: key.generation, te_json: json.to_value() }
    }

    fn reset(&mut self, generation: Generation, burn_in: bool) {
        let (host, te) = (Arc::clone(&self.host), Arc::clone(&self.te));
        let (before, answer) = (self.resetting.take(), self.to_self.clone());
        self.resetting = Some(tokio::spawn(async move {
            finished(before).await;
            let failed = reset_stubbornly(&host, &te, burn_in).await;
            let _ = answer.send(ResetEnded { generation, failed }).await;
        }));
    }

    fn power_off(&mut self) {
        let (host, te) = (Arc::clone(&self.host), Arc::clone(&self.te));
        let before = self.resetting.take();
        self.resetting = Some(tokio::spawn(async move {
            finished(before).await;
            for _ in 0..RESET_ATTEMPTS {
                match power_off(&host, &te).await {
                    Ok(()) => return,
                    Err(e) => tracing::warn!(te = %te.id, error = %Chain(&e), "power off"),
                }
                sleep(RESET_PAUSE).await;
            }
        }));
    }

    fn publish(&self) {
        let (generation, standing) = self.gate.with_fence(|f| (f.generation(), f.report()));
        // "Serving" is said when the gateway is open, not before.
        let standing = match standing {
            Standing::Serving if self.serving.is_none() => return,
            other => other,
        };
        let status = TeStatus { generation, standing, serving: self.serving.clone() };
        self.status.send_if_modified(|s| {
            let changed = *s != status;
            *s = status;
            changed
        });
    }
}

async fn reset_stubbornly(host: &Host, te: &TeSpec, burn_in: bool) -> Option<String> {
    let mut failed = None;
    for attempt in 1..=RESET_ATTEMPTS {
        let began = Instant::now();
        match reset(host, te, burn_in).await {
            Ok(()) => {
                tracing::info!(te = %te.id, ms = began.elapsed().as_millis(), "reset");
                return None;
            }
            Err(e) => {
                let reason = Chain(&e).to_string();
                tracing::warn!(te = %te.id, attempt, %reason, "reset failed");
                failed = Some(reason);
            }
        }
        if attempt < RESET_ATTEMPTS {
            sleep(RESET_PAUSE).await;
        }
    }
    failed
}

async fn finished(task: Option<JoinHandle<()>>) {
    if let Some(task) = task {
        let _ = task.await;
    }
}

/// Until the fence has something to do; for ever when it has not.
async fn until(due: Option<Time>) {
    match due {
        Some(due) => sleep_until(Instant::now() + due.since(boot_now())).await,
        None => std::future::pending().await,
    }
}

/// An effect for the log, in words.
struct Words<'a>(&'a FenceEffect);

impl std::fmt::Debug for Words<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            FenceEffect::CutOff { generation } => write!(f, "cut off {generation}"),
            FenceEffect::Persist(mark) => {
                write!(f, "persist {}", mark.generation)?;
                match mark.open {
                    Some(Open { lease, .. }) => write!(f, " open for {lease}"),
                    None => write!(f, " closed"),
                }
            }
            FenceEffect::Open { lease, generation } => write!(f, "open {generation} for {lease}"),
            FenceEffect::Reset { generation, burn_in: false } => write!(f, "reset at {generation}"),
            FenceEffect::Reset { generation, burn_in: true } => {
                write!(f, "burn in at {generation}")
            }
            FenceEffect::PowerOff { generation } => write!(f, "power off at {generation}"),
        }
    }
}
