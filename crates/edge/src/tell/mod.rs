//! Telling results to others than sources: mail and webhooks.

pub mod smtp;
pub mod webhook;
