//! Images: made ([`build`]), kept and tried ([`keeper`]). What is done when is [`toci_core::node::Images`]'s decision.

pub mod build;
pub(super) mod keeper;
