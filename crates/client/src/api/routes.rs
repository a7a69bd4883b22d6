//! Routes for clients and operators: leases, test environments, hosts, tokens.

use super::body::{Download, Upload};
use super::client::{ApiClient, Call, OPERATION_LIMIT, part};
use super::error::ClientError;
use super::sse::{ChangeStream, LeaseStream, SSE};
use hyper::Method;
use serde_json::Value;
use toci_wire::api::{
    EnrolTokenRequest, EnrolTokenResponse, Extend, Hold, Host, ImagePushed, Lease, LeaseRequest,
    LeaseTestenv, MachineState, NewToken, PowerRequest, Quarantine, Release, Revoke, TestEnv,
    TokenInfo, TokenRequest,
};

fn get(path: String) -> Call {
    Call::new(Method::GET, path)
}

fn post(path: String) -> Call {
    Call::new(Method::POST, path)
}

/// Leases.
impl ApiClient {
    /// Asks for a lease. Set `idempotency_key` to be able to repeat the call safely.
    pub async fn request_lease(&self, request: &LeaseRequest) -> Result<Lease, ClientError> {
        self.tell(post("/leases".to_owned()), request).await
    }

    /// Asks for a lease and waits up to `wait_s` seconds (at most 20) until it is active or over; the answer is the
    /// lease as it stands then.
    pub async fn request_lease_within(
        &self,
        request: &LeaseRequest,
        wait_s: u64,
    ) -> Result<Lease, ClientError> {
        self.tell(post(format!("/leases?wait_s={wait_s}")), request).await
    }

    /// All leases that are not over, and those that ended lately when `ended` is set.
    pub async fn leases(&self, ended: bool) -> Result<Vec<Lease>, ClientError> {
        self.ask(get(format!("/leases?ended={ended}"))).await
    }

    /// One lease.
    pub async fn lease(&self, id: &str) -> Result<Lease, ClientError> {
        self.ask(get(format!("/leases/{}", part(id)))).await
    }

    /// One lease, now and after each change, until it is over.
    pub async fn lease_stream(&self, id: &str) -> Result<LeaseStream, ClientError> {
        let call = get(format!("/leases/{}/stream", part(id)));
        self.download(call, SSE).await.map(LeaseStream::new)
    }

    /// The TEs of an active lease with their credentials; only for its holder.
    pub async fn lease_testenvs(&self, id: &str) -> Result<Vec<LeaseTestenv>, ClientError> {
        self.ask(get(format!("/leases/{}/testenvs", part(id)))).await
    }

    /// Says that the holder lives.
    pub async fn heartbeat(&self, id: &str) -> Result<Lease, ClientError> {
        self.ask(post(format!("/leases/{}/heartbeat", part(id)))).await
    }

    /// Asks for more time.
    pub async fn extend(&self, id: &str, extend: &Extend) -> Result<Lease, ClientError> {
        self.tell(post(format!("/leases/{}/extend", part(id))), extend).await
    }

    /// Gives a lease back, or withdraws a request.
    pub async fn release(&self, id: &str, release: &Release) -> Result<Lease, ClientError> {
        self.tell(post(format!("/leases/{}/release", part(id))), release).await
    }

    /// Keeps a lease for debugging.
    pub async fn hold(&self, id: &str, hold: &Hold) -> Result<Lease, ClientError> {
        self.tell(post(format!("/leases/{}/hold", part(id))), hold).await
    }

    /// Takes a lease away.
    pub async fn revoke(&self, id: &str, revoke: &Revoke) -> Result<Lease, ClientError> {
        self.tell(post(format!("/leases/{}/revoke", part(id))), revoke).await
    }

    /// Every change to leases, TEs and hosts from now on.
    pub async fn changes(&self) -> Result<ChangeStream, ClientError> {
        self.download(get("/events".to_owned()), SSE).await.map(ChangeStream::new)
    }
}

/// Test environments.
impl ApiClient {
    /// All TEs.
    pub async fn testenvs(&self) -> Result<Vec<TestEnv>, ClientError> {
        self.ask(get("/testenvs".to_owned())).await
    }

    /// One TE.
    pub async fn testenv(&self, te: &str) -> Result<TestEnv, ClientError> {
        self.ask(get(format!("/testenvs/{}", part(te)))).await
    }

    /// No new grants of it.
    pub async fn drain_testenv(&self, te: &str) -> Result<TestEnv, ClientError> {
        self.ask(post(format!("/testenvs/{}/drain", part(te)))).await
    }

    /// Grants again; also ends a quarantine, by burn-in.
    pub async fn undrain_testenv(&self, te: &str) -> Result<TestEnv, ClientError> {
        self.ask(post(format!("/testenvs/{}/undrain", part(te)))).await
    }

    /// Takes it out.
    pub async fn quarantine_testenv(
        &self,
        te: &str,
        why: &Quarantine,
    ) -> Result<TestEnv, ClientError> {
        self.tell(post(format!("/testenvs/{}/quarantine", part(te))), why).await
    }

    /// Makes it blank again; refused while it is leased.
    pub async fn reset_testenv(&self, te: &str) -> Result<TestEnv, ClientError> {
        self.ask(post(format!("/testenvs/{}/reset", part(te)))).await
    }

    /// Switches machines, or asks how they are.
    pub async fn power(
        &self,
        te: &str,
        request: &PowerRequest,
    ) -> Result<Vec<MachineState>, ClientError> {
        let call = post(format!("/testenvs/{}/power", part(te))).within(OPERATION_LIMIT);
        self.tell(call, request).await
    }

    /// A machine's serial console: what there is, and with `follow` what comes.
    pub async fn console(
        &self,
        te: &str,
        machine: &str,
        follow: bool,
    ) -> Result<Download, ClientError> {
        let path =
            format!("/testenvs/{}/machines/{}/console?follow={follow}", part(te), part(machine));
        self.download(get(path).within(OPERATION_LIMIT), "text/plain").await
    }

    /// A machine's screen as PNG.
    pub async fn screenshot(&self, te: &str, machine: &str) -> Result<Download, ClientError> {
        let path = format!("/testenvs/{}/machines/{}/screenshot", part(te), part(machine));
        self.download(get(path).within(OPERATION_LIMIT), "image/png").await
    }

    /// What its host sees of a test environment, as text.
    pub async fn view(&self, te: &str) -> Result<Download, ClientError> {
        let path = format!("/testenvs/{}/view", part(te));
        self.download(get(path).within(OPERATION_LIMIT), "text/plain").await
    }

    /// Puts an image (qcow2 or raw) on a machine's disk.
    pub async fn push_image(
        &self,
        te: &str,
        machine: &str,
        image: Upload,
    ) -> Result<ImagePushed, ClientError> {
        let path = format!("/testenvs/{}/machines/{}/image", part(te), part(machine));
        self.upload(Call::new(Method::PUT, path), image).await
    }
}

/// Hosts, tokens, the server itself.
impl ApiClient {
    /// All hosts.
    pub async fn hosts(&self) -> Result<Vec<Host>, ClientError> {
        self.ask(get("/hosts".to_owned())).await
    }

    /// One host.
    pub async fn host(&self, host: &str) -> Result<Host, ClientError> {
        self.ask(get(format!("/hosts/{}", part(host)))).await
    }

    /// No new grants on it.
    pub async fn drain_host(&self, host: &str) -> Result<Host, ClientError> {
        self.ask(post(format!("/hosts/{}/drain", part(host)))).await
    }

    /// Grants again.
    pub async fn undrain_host(&self, host: &str) -> Result<Host, ClientError> {
        self.ask(post(format!("/hosts/{}/undrain", part(host)))).await
    }

    /// Forgets a host; refused while it has leases.
    pub async fn delete_host(&self, host: &str) -> Result<(), ClientError> {
        self.order(Call::new(Method::DELETE, format!("/hosts/{}", part(host)))).await
    }

    /// A one-time token with which a host can introduce itself.
    pub async fn create_enrol_token(
        &self,
        request: &EnrolTokenRequest,
    ) -> Result<EnrolTokenResponse, ClientError> {
        self.tell(post("/hosts/enrol-tokens".to_owned()), request).await
    }

    /// A new token.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<NewToken, ClientError> {
        self.tell(post("/tokens".to_owned()), request).await
    }

    /// All tokens, without their secrets.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, ClientError> {
        self.ask(get("/tokens".to_owned())).await
    }

    /// Makes a token worthless.
    pub async fn delete_token(&self, id: &str) -> Result<(), ClientError> {
        self.order(Call::new(Method::DELETE, format!("/tokens/{}", part(id)))).await
    }

    /// Whether the server serves; needs no token.
    pub async fn health(&self) -> Result<(), ClientError> {
        self.order(get("/healthz".to_owned())).await
    }

    /// Figures in Prometheus' text format.
    pub async fn metrics(&self) -> Result<String, ClientError> {
        self.text(get("/metrics".to_owned())).await
    }

    /// The OpenAPI document.
    pub async fn openapi(&self) -> Result<Value, ClientError> {
        self.ask(get("/openapi.json".to_owned())).await
    }

    /// Has the server exit when what it runs is over.
    pub async fn exit(&self) -> Result<(), ClientError> {
        self.order(post("/system/exit".to_owned())).await
    }
}
