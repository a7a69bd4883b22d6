//! libvirt: a few threads with a connection each, work over a bounded channel, answers under a
//! time limit. The only file that uses the `virt` crate.

use crate::plan::{self, DomainWorld};
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use toci_wire::ssh_command::output::{DomainState, Row};
use tokio::sync::oneshot;
use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error as VirtError, ErrorNumber};
use virt::stream::Stream;

/// Threads, so connections: this many slow calls (a QEMU that is slow to leave) run at once.
pub const THREADS: usize = 6;
/// Calls that may wait for a thread.
pub const QUEUE_MAX: usize = 256;
/// Longest wait for a call, queueing included.
pub const CALL_MAX: Duration = Duration::from_secs(30);
/// Longest wait for a libvirtd that has just been started.
const START_MAX: Duration = Duration::from_secs(20);
const START_POLL: Duration = Duration::from_millis(50);
/// Largest screenshot, bytes.
pub const SCREENSHOT_MAX_BYTES: usize = 16 << 20;

/// Why libvirt did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// It said no.
    #[error("{doing}: {message}")]
    Call {
        /// What was asked.
        doing: String,
        /// libvirt's text.
        message: String,
    },
    /// There is no such domain.
    #[error("there is no domain {0}")]
    NoDomain(String),
    /// The domain is not in a state for this.
    #[error("{doing}: {message}")]
    WrongState {
        /// What was asked.
        doing: String,
        /// libvirt's text.
        message: String,
    },
    /// No answer in time.
    #[error("{0}: libvirt did not answer within {limit} s", limit = CALL_MAX.as_secs())]
    TooSlow(String),
    /// Too many calls wait already.
    #[error("{0}: {QUEUE_MAX} calls are waiting for libvirt")]
    Busy(String),
}

type Job = Box<dyn FnOnce(&mut Option<Connect>) + Send>;

/// A way to libvirt. Cloning shares the threads; they end with the last clone.
#[derive(Clone)]
pub struct Libvirt {
    jobs: SyncSender<Job>,
}

impl std::fmt::Debug for Libvirt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Libvirt").finish_non_exhaustive()
    }
}

/// What a domain answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// It runs (or is paused).
    On,
    /// It does not.
    Off,
}

impl Libvirt {
    /// Starts the threads; they connect when first used, and again after libvirtd went away.
    #[must_use]
    pub fn start(uri: &str) -> Libvirt {
        // libvirt would print every error to standard error by itself.
        virt::error::clear_error_callback();
        let (jobs, queue) = sync_channel::<Job>(QUEUE_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..THREADS {
            let (queue, uri) = (Arc::clone(&queue), uri.to_owned());
            let spawned = std::thread::Builder::new()
                .name(format!("libvirt-{n}"))
                .spawn(move || serve(&queue, &uri));
            if let Err(e) = spawned {
                tracing::error!(error = %e, "cannot start a libvirt thread");
            }
        }
        Libvirt { jobs }
    }

    async fn call<T, F>(&self, doing: String, f: F) -> Result<T, LibvirtError>
    where
        T: Send + 'static,
        F: FnOnce(&Connect) -> Result<T, VirtError> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = match connection {
                Some(c) => f(c),
                None => Err(VirtError::last_error()),
            };
            if result.as_ref().is_err_and(connection_is_gone) {
                close(connection);
            }
            let _ = answer.send(result);
        });
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                return Err(LibvirtError::Busy(doing));
            }
        }
        match tokio::time::timeout(CALL_MAX, answered).await {
            Ok(Ok(result)) => result.map_err(|e| explain(doing, &e)),
            Ok(Err(_)) | Err(_) => Err(LibvirtError::TooSlow(doing)),
        }
    }

    async fn on_domain<T, F>(&self, verb: &str, name: &str, f: F) -> Result<T, LibvirtError>
    where
        T: Send + 'static,
        F: FnOnce(&Connect, &Domain) -> Result<T, VirtError> + Send + 'static,
    {
        let n = name.to_owned();
        self.call(format!("{verb} {name}"), move |c| {
            let d = Domain::lookup_by_name(c, &n)?;
            f(c, &d)
        })
        .await
        .map_err(|e| match e {
            LibvirtError::NoDomain(_) => LibvirtError::NoDomain(name.to_owned()),
            LibvirtError::Call { .. }
            | LibvirtError::WrongState { .. }
            | LibvirtError::TooSlow(_)
            | LibvirtError::Busy(_) => e,
        })
    }

    /// Waits until libvirtd answers.
    pub async fn ready(&self) -> Result<(), LibvirtError> {
        let deadline = tokio::time::Instant::now() + START_MAX;
        loop {
            match self.call("connect to libvirt".into(), |c| c.get_lib_version()).await {
                Ok(_) => return Ok(()),
                Err(e) if tokio::time::Instant::now() > deadline => return Err(e),
                Err(_) => tokio::time::sleep(START_POLL).await,
            }
        }
    }

    /// The domains whose name is one of ours.
    pub async fn domains(&self) -> Result<BTreeMap<String, DomainWorld>, LibvirtError> {
        self.call("list domains".into(), |c| {
            let mut found = BTreeMap::new();
            for d in c.list_all_domains(0)? {
                let name = d.get_name()?;
                if !crate::names::is_machine(&name) {
                    continue;
                }
                // A domain may vanish between the list and the question.
                let Ok(xml) = d.get_xml_desc(virt_sys::VIR_DOMAIN_XML_INACTIVE) else { continue };
                let world = DomainWorld {
                    fingerprint: plan::fingerprint_in(&xml),
                    boot: plan::boot_device(&xml),
                    on: d.is_active()?,
                };
                found.insert(name, world);
            }
            Ok(found)
        })
        .await
    }

    /// How each of these is; one that does not exist is off.
    pub async fn rows(&self, names: Vec<String>) -> Result<Vec<Row>, LibvirtError> {
        self.call("look at domains".into(), move |c| {
            let flags = virt_sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE;
            let active: BTreeMap<String, Domain> = c
                .list_all_domains(flags)?
                .into_iter()
                .filter_map(|d| Some((d.get_name().ok()?, d)))
                .collect();
            let row = |name: String| {
                let domain = active.get(&name);
                let state = domain.map(|d| d.get_state().map_or(0, |(s, _)| s));
                Row { id: domain.and_then(Domain::get_id), name, state: domain_state(state) }
            };
            Ok(names.into_iter().map(row).collect())
        })
        .await
    }

    /// Defines a domain or replaces its definition.
    pub async fn define(&self, name: &str, xml: String) -> Result<(), LibvirtError> {
        self.call(format!("define {name}"), move |c| Domain::define_xml(c, &xml).map(drop)).await
    }

    /// Forgets a domain, with its NVRAM; one that is not there is fine.
    pub async fn undefine(&self, name: &str) -> Result<(), LibvirtError> {
        let flags =
            virt_sys::VIR_DOMAIN_UNDEFINE_NVRAM | virt_sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE;
        let r = self.on_domain("undefine", name, move |_, d| d.undefine_flags(flags)).await;
        match r {
            Err(LibvirtError::NoDomain(_)) => Ok(()),
            other => other,
        }
    }

    /// Starts a domain.
    pub async fn create(&self, name: &str) -> Result<(), LibvirtError> {
        self.on_domain("start", name, |_, d| d.create().map(drop)).await
    }

    /// Pulls the plug, orderly for the disk images.
    pub async fn destroy(&self, name: &str) -> Result<(), LibvirtError> {
        self.on_domain("destroy", name, |_, d| d.destroy()).await
    }

    /// Presses reset.
    pub async fn reset(&self, name: &str) -> Result<(), LibvirtError> {
        self.on_domain("reset", name, |_, d| d.reset().map(drop)).await
    }

    /// The definition as it will be at the next start, or as it runs.
    pub async fn xml(&self, name: &str, inactive: bool) -> Result<String, LibvirtError> {
        let flags = if inactive { virt_sys::VIR_DOMAIN_XML_INACTIVE } else { 0 };
        self.on_domain("dumpxml", name, move |_, d| d.get_xml_desc(flags)).await
    }

    /// Whether a domain runs.
    pub async fn power(&self, name: &str) -> Result<Power, LibvirtError> {
        self.on_domain("look at", name, |_, d| {
            Ok(if d.is_active()? { Power::On } else { Power::Off })
        })
        .await
    }

    /// CPU time that a running domain has used, in nanoseconds.
    pub async fn cpu_time_ns(&self, name: &str) -> Result<u64, LibvirtError> {
        self.on_domain("look at", name, |_, d| Ok(d.get_info()?.cpu_time)).await
    }

    /// What is on the screen: libvirt's MIME type and the bytes.
    pub async fn screenshot(&self, name: &str) -> Result<(String, Vec<u8>), LibvirtError> {
        self.on_domain("screenshot", name, |c, d| {
            let stream = Stream::new(c, 0)?;
            let mime = d.screenshot(&stream, 0, 0)?;
            let mut picture = Vec::new();
            let mut chunk = vec![0; 64 << 10];
            loop {
                let n = stream.recv(&mut chunk)?;
                if n == 0 || picture.len() + n > SCREENSHOT_MAX_BYTES {
                    break;
                }
                picture.extend_from_slice(&chunk[..n]);
            }
            let _ = stream.finish();
            Ok((mime, picture))
        })
        .await
    }
}

fn serve(queue: &Mutex<Receiver<Job>>, uri: &str) {
    let mut connection = None;
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if !connection.as_ref().is_some_and(|c: &Connect| c.is_alive().unwrap_or(false)) {
            close(&mut connection);
            connection = Connect::open(Some(uri)).ok();
        }
        job(&mut connection);
    }
}

/// libvirt's state of an active domain in virsh's terms; `None` is an inactive one.
fn domain_state(state: Option<u32>) -> DomainState {
    match state {
        None | Some(virt_sys::VIR_DOMAIN_SHUTOFF) => DomainState::ShutOff,
        Some(virt_sys::VIR_DOMAIN_PAUSED) => DomainState::Paused,
        Some(virt_sys::VIR_DOMAIN_SHUTDOWN) => DomainState::InShutdown,
        Some(virt_sys::VIR_DOMAIN_CRASHED) => DomainState::Crashed,
        Some(_) => DomainState::Running,
    }
}

/// The crate does not close a connection that is dropped.
fn close(connection: &mut Option<Connect>) {
    if let Some(mut gone) = connection.take() {
        let _ = gone.close();
    }
}

fn connection_is_gone(e: &VirtError) -> bool {
    matches!(e.code(), ErrorNumber::Rpc | ErrorNumber::NoConnect | ErrorNumber::SystemError)
}

fn explain(doing: String, e: &VirtError) -> LibvirtError {
    match e.code() {
        ErrorNumber::NoDomain => LibvirtError::NoDomain(String::new()),
        ErrorNumber::OperationInvalid => {
            LibvirtError::WrongState { doing, message: e.message().to_owned() }
        }
        _ => LibvirtError::Call { doing, message: e.message().to_owned() },
    }
}
