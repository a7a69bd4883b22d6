//! `toci host`: looking after hosts at the server ([`look`]), and setting machines up as hosts, over SSH or as servers of
//! a cloud.

mod apply;
mod cloud;
mod deploy;
mod image;
mod inventory;
mod look;
mod machine;
mod program;
mod remove;
mod settle;
mod story;
mod template;
mod upgrade;

pub(super) use look::dispatch;
