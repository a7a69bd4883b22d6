//! Routes of runs.

use super::client::{ApiClient, Call, part};
use super::error::ClientError;
use super::sse::{ConsoleStream, SSE};
use hyper::Method;
use toci_wire::api::{Run, RunTrouble};

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

    /// Jobs and providers that fail by the infrastructure again and again.
    pub async fn run_troubles(&self) -> Result<Vec<RunTrouble>, ClientError> {
        self.ask(Call::new(Method::GET, "/run-troubles".to_owned())).await
    }
}
