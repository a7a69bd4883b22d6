//! HTTP out of the control plane: one small client for the REST of Gerrit and GitHub, for webhooks and for S3.
//!
//! HTTP/1.1 by hyper, TLS by rustls with the system's certificate authorities or a file of one's own. Time and size of
//! every answer are limited; redirects are followed only to the same server; credentials show up nowhere.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use toci_edge::http::{Http, Request, Secret, Trust, Url};
//! let http = Http::new(&Trust::System)?;
//! let base = Url::parse("https://review.example.org/prefix")?;
//! let request = Request::get(&base.join("/a/accounts/self").query("o", "DETAILS"))
//!     .basic("jenkins", &Secret::new("password"));
//! let answer = http.send(request).await?.well()?;
//! println!("{}", answer.text());
//! # Ok(())
//! # }
//! ```

mod client;
mod connect;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod request;
mod secret;
#[cfg(test)]
mod tests;
mod url;

pub use client::{Answer, Answering, Http, IDLE_CONNECTIONS_MAX, REDIRECTS_MAX, STALL_LIMIT};
pub use connect::{CONNECT_LIMIT, SYSTEM_CA_FILE, Trust};
pub use error::HttpError;
pub use hyper::{Method, StatusCode};
pub use request::{ANSWER_LIMIT, ANSWER_MAX_BYTES, Request};
pub use secret::{BadSecret, SECRET_MAX_BYTES, Secret, secret_in};
pub use url::{Url, quote};
