//! The binary `toci`; also `geard`, `testenv-client` and `testenv-worker`, when called by these names.

use std::env::args_os;
use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let called = args_os().next().unwrap_or_default();
    match Path::new(&called).file_name().and_then(OsStr::to_str) {
        Some("geard") => toci_server::broker::geard_main(args_os()),
        Some("testenv-client") => toci_client::testenv::client_main(args_os()),
        Some("testenv-worker") => toci_client::testenv::worker_main(args_os()),
        Some(_) | None => toci_cli::commands::main(),
    }
}
