//! Routes for TE hosts: enrolment and the host link (see `toci_wire::api` for its rules).

use super::body::{Download, Upload};
use super::client::{ApiClient, Call, part};
use super::error::ClientError;
use super::sse::{HostStream, SSE};
use hyper::Method;
use toci_wire::api::{EnrolRequest, Enrolled, HostReport, OperationResult, ServingReport};

impl ApiClient {
    /// Introduces a host with its one-time token; needs no other token.
    pub async fn enrol(&self, request: &EnrolRequest) -> Result<Enrolled, ClientError> {
        self.tell(Call::new(Method::POST, "/hosts/enrol".to_owned()), request).await
    }

    /// What the server wants of the host: the whole wish at once, then after each change.
    pub async fn host_stream(&self, host: &str) -> Result<HostStream, ClientError> {
        let call = Call::new(Method::GET, format!("/hosts/{}/stream", part(host)));
        self.download(call, SSE).await.map(HostStream::new)
    }

    /// Tells all that is.
    pub async fn report(&self, host: &str, report: &HostReport) -> Result<(), ClientError> {
        let call = Call::new(Method::POST, format!("/hosts/{}/report", part(host)));
        self.notify(call, report).await
    }

    /// Acknowledges a grant: the gateway is open.
    pub async fn serving(
        &self,
        host: &str,
        te: &str,
        report: &ServingReport,
    ) -> Result<(), ClientError> {
        let path = format!("/hosts/{}/testenvs/{}/serving", part(host), part(te));
        self.notify(Call::new(Method::POST, path), report).await
    }

    /// Tells how an operation ended.
    pub async fn operation_result(
        &self,
        host: &str,
        operation: &str,
        result: &OperationResult,
    ) -> Result<(), ClientError> {
        let path = format!("/hosts/{}/operations/{}/result", part(host), part(operation));
        self.notify(Call::new(Method::POST, path), result).await
    }

    /// Sends the bytes that an operation asked for (console, screenshot). An error with code
    /// `operation_gone` means that nobody listens any more.
    pub async fn operation_output(
        &self,
        host: &str,
        operation: &str,
        output: Upload,
    ) -> Result<(), ClientError> {
        let path = format!("/hosts/{}/operations/{}/output", part(host), part(operation));
        self.upload_stream(Call::new(Method::POST, path), output).await
    }

    /// The bytes that belong to an operation (image).
    pub async fn operation_input(
        &self,
        host: &str,
        operation: &str,
    ) -> Result<Download, ClientError> {
        let path = format!("/hosts/{}/operations/{}/input", part(host), part(operation));
        self.download(Call::new(Method::GET, path), "application/octet-stream").await
    }
}
