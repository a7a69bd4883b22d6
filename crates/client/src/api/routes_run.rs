//! Routes of runs.

use super::client::{ApiClient, Call, part};
use super::error::ClientError;
use super::sse::{ConsoleStream, SSE};
use hyper::Method;
use toci_wire::api::{Alerts, PauseOrder, Run, RunTrouble};

/// Runs.
impl ApiClient {
    /// All runs that are not over, then the newest that are.
    pub async fn runs(&self, ended: u32) -> Result<Vec<Run>, ClientError> {
        self.ask(Call::new(Method::GET, format!("/runs?ended={ended}"))).await
    }

    /// One run.
    pub async fn run(&self, id: &str) -> Result<Run, ClientError> {
        self.ask(Call::new(Method::GET, format!("/runs/{}", part(id)))).await
    }

    /// Stops a run.
    pub async fn cancel_run(&self, id: &str) -> Result<Run, ClientError> {
        self.ask(Call::new(Method::POST, format!("/runs/{}/cancel", part(id)))).await
    }

    /// A run's console from its start, then as it comes.
    pub async fn run_console(&self, id: &str) -> Result<ConsoleStream, ClientError> {
        let call = Call::new(Method::GET, format!("/runs/{}/console", part(id)));
        self.download(call, SSE).await.map(ConsoleStream::new)
    }

    /// What somebody has to look at.
    pub async fn alerts(&self) -> Result<Alerts, ClientError> {
        self.ask(Call::new(Method::GET, "/alerts".to_owned())).await
    }

    /// Begins no run of a job any more.
    pub async fn pause_job(&self, job: &str, reason: &str) -> Result<(), ClientError> {
        let order = PauseOrder { reason: reason.to_owned() };
        self.notify(Call::new(Method::POST, format!("/jobs/{}/pause", part(job))), &order).await
    }

    /// Lets runs of a job begin again.
    pub async fn resume_job(&self, job: &str) -> Result<(), ClientError> {
        self.order(Call::new(Method::POST, format!("/jobs/{}/resume", part(job)))).await
    }

    /// Jobs and providers that fail by the infrastructure again and again.
    pub async fn run_troubles(&self) -> Result<Vec<RunTrouble>, ClientError> {
        self.ask(Call::new(Method::GET, "/run-troubles".to_owned())).await
    }
}
