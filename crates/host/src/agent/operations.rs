//! What a person asks for through the API and only the host can do: power, console, screenshot,
//! image. Refused when the TE is no longer at the generation that the person saw.

use super::reporter::Reporter;
use crate::console::ConsoleTail;
use crate::image::{ImageError, ImageInstall};
use crate::machines::{MachineError, TeMachines};
use crate::te::{Rule, TeTaskHandle};
use std::sync::Arc;
use toci_client::api::{ClientError, Upload};
use toci_core::chain::Chain;
use toci_core::id::Generation;
use toci_wire::api::{Operation, OperationKind, OperationResult, PowerAction};
use tokio::sync::Semaphore;

/// Operations under way at a time; more are refused.
pub(super) const OPERATIONS_MAX: usize = 32;

/// Carries out operations.
#[derive(Debug)]
pub(super) struct Operations {
    pub(super) reporter: Arc<Reporter>,
    pub(super) running: Semaphore,
}

/// What an operation came to, if its bytes have not said it already.
type Outcome = Result<Option<OperationResult>, Fault>;

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Machine(#[from] MachineError),
    #[error("{0}")]
    Image(#[source] ImageError),
    #[error(transparent)]
    Server(#[from] ClientError),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl From<ImageError> for Fault {
    fn from(e: ImageError) -> Fault {
        match e {
            ImageError::Machine(e) => Fault::Machine(e),
            e => Fault::Image(e),
        }
    }
}

fn refused(code: &str, message: String) -> OperationResult {
    OperationResult::Refused { code: code.into(), message }
}

impl Operations {
    /// Starts one in the background.
    pub(super) fn start(this: &Arc<Self>, operation: Operation) {
        let this = Arc::clone(this);
        tokio::spawn(async move {
            let result = match this.running.try_acquire() {
                Ok(_running) => this.carry_out(&operation).await,
                Err(_) => Some(refused(
                    "host_busy",
                    format!("{OPERATIONS_MAX} operations are under way on the host"),
                )),
            };
            let Some(result) = result else { return };
            let client = &this.reporter.client;
            let name = this.reporter.host.config.name.as_str();
            if let Err(e) = client.operation_result(name, &operation.id, &result).await {
                tracing::warn!(id = %operation.id, error = %Chain(&e), "nobody took the result");
            }
            this.reporter.news.notify_one();
        });
    }

    async fn carry_out(&self, o: &Operation) -> Option<OperationResult> {
        let Some(te) = self.reporter.tes.iter().find(|t| t.te.id.as_str() == o.testenv) else {
            return Some(refused("no_such_testenv", format!("{} is not here", o.testenv)));
        };
        match self.dispatch(te, o).await {
            Ok(result) => result,
            Err(Fault::Machine(e @ MachineError::NotYours(_))) => {
                Some(refused("no_such_machine", e.to_string()))
            }
            Err(Fault::Machine(e @ MachineError::CutOff(_))) => {
                Some(refused("stale_generation", e.to_string()))
            }
            Err(Fault::Machine(e @ MachineError::Free(_))) => {
                Some(refused("testenv_free", e.to_string()))
            }
            Err(Fault::Machine(e @ MachineError::WrongState(_))) => {
                Some(refused("wrong_state", e.to_string()))
            }
            Err(Fault::Image(ImageError::Refused(why))) => Some(refused("bad_image", why)),
            Err(e @ (Fault::Machine(MachineError::Failed(_)) | Fault::Image(_) | Fault::Io(_))) => {
                Some(OperationResult::Failed { message: Chain(&e).to_string() })
            }
            Err(Fault::Server(e)) => {
                tracing::debug!(id = %o.id, error = %Chain(&e), "the caller went away");
                None
            }
        }
    }

    async fn dispatch(&self, te: &TeTaskHandle, o: &Operation) -> Outcome {
        let generation = Generation(o.generation);
        let host = &self.reporter.host;
        let machines = TeMachines::operator(host, &te.te, &te.gate, generation);
        match &o.kind {
            OperationKind::Power { machine, action } => {
                power(&machines, machine.as_deref(), *action).await
            }
            OperationKind::Console { machine, follow } => {
                let spec = te.te.machine(machine);
                let spec = spec.ok_or_else(|| MachineError::NotYours(machine.clone()))?;
                machines.check().await?;
                let gate = Arc::clone(&te.gate);
                let rule = Rule::Operator(generation);
                let tail = ConsoleTail::open(&spec.console, *follow, move || gate.allows(rule));
                self.output(o, Upload::from_reader(tail.into_reader(), None)).await
            }
            OperationKind::Screenshot { machine } => {
                let png = machines.screenshot(machine).await?;
                self.output(o, Upload::from_bytes(png)).await
            }
            OperationKind::View => {
                let text = crate::view::view(&self.reporter.host, &machines).await?;
                self.output(o, Upload::from_bytes(text)).await
            }
            OperationKind::PushImage { machine } => self.push_image(&machines, machine, o).await,
        }
    }

    async fn output(&self, o: &Operation, upload: Upload) -> Outcome {
        let name = self.reporter.host.config.name.as_str();
        self.reporter.client.operation_output(name, &o.id, upload).await?;
        Ok(None)
    }

    async fn push_image(&self, machines: &TeMachines, machine: &str, o: &Operation) -> Outcome {
        if machine != machines.te().seed().name {
            return Ok(Some(refused(
                "not_a_seed",
                format!("{machine} takes no image: only the seed does; nodes are deployed by it"),
            )));
        }
        machines.check_change().await?;
        let name = self.reporter.host.config.name.as_str();
        let mut input = self.reporter.client.operation_input(name, &o.id).await?;
        let mut install = ImageInstall::begin(machines).await?;
        while let Some(chunk) = input.chunk().await? {
            install.write(&chunk).await?;
        }
        let done = install.finish(machines).await?;
        let (bytes, sha256, format) = (done.bytes, done.sha256, done.format);
        Ok(Some(OperationResult::Image { bytes, sha256, format }))
    }
}

async fn power(machines: &TeMachines, only: Option<&str>, action: PowerAction) -> Outcome {
    let concerned = match only {
        Some(name) => vec![name.to_owned()],
        None => machines.all_names().to_vec(),
    };
    for name in &concerned {
        let done = match action {
            PowerAction::On => machines.start(name).await,
            PowerAction::Off => machines.destroy(name).await,
            PowerAction::Reset => machines.reset(name).await,
            PowerAction::Status => Ok(()),
        };
        match (done, only, action) {
            (Ok(()), _, _) => {}
            // On to a machine that is on, off to one that is off: it is as was asked.
            (Err(MachineError::WrongState(_)), _, PowerAction::On | PowerAction::Off) => {}
            // "Reset all" means those that run.
            (Err(MachineError::WrongState(_)), None, PowerAction::Reset) => {}
            (Err(e), _, _) => return Err(e.into()),
        }
    }
    let mut all = machines.list().await?;
    all.retain(|m| concerned.contains(&m.name));
    if let (Some(name), true) = (only, all.is_empty()) {
        return Err(MachineError::NotYours(name.to_owned()).into());
    }
    Ok(Some(OperationResult::Machines { machines: all }))
}
