//! A Gearman client and worker for original brokers and for ours: several brokers at once, each
//! reconnected by itself, with registrations made again.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use toci_client::gearman::{Client, LinkOptions, Submission, TaskEvent, Worker, parse_brokers};
//!
//! let options = LinkOptions::new(parse_brokers("127.0.0.1:4730")?, "example");
//! let worker = Worker::new(&options);
//! worker.register(b"reverse", None).await;
//! let job = worker.next_job().await;
//! job.complete(b"result").await?;
//!
//! let client = Client::new(&options);
//! client.connected().await;
//! let mut task = client.submit(&Submission::new("reverse", "text")).await?;
//! match task.end().await {
//!     TaskEvent::Complete(result) => println!("{}", String::from_utf8_lossy(&result)),
//!     other => println!("failed: {other:?}"),
//! }
//! # Ok(()) }
//! ```

mod client;
mod link;
mod options;
mod state;
mod task;
mod worker;

pub use client::{Client, SUBMIT_LIMIT, Submission, SubmitError};
pub use link::{CONNECT_LIMIT, RECONNECT_PAUSE};
pub use options::{
    BadBrokerAddress, BrokerAddress, GEARMAN_PORT, LinkOptions, TlsConfigError, parse_brokers,
    tls_config,
};
pub use state::JobStatus;
pub use task::{NoStatus, STATUS_LIMIT, TASK_EVENTS_MAX, Task, TaskEvent};
pub use toci_core::broker::Precedence;
pub use worker::{GRAB_LIMIT, JobLost, LOOK_AGAIN, Worker, WorkerJob};
