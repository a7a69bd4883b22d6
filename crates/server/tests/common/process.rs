//! A server as a process of its own, that can be killed and signalled: the test program, started once more.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names its folder to the process that is the server.
const FOLDER: &str = "TOCI_TEST_SERVER_FOLDER";

/// The folder of the server that this process is to be, if it is to be one.
pub(crate) fn told_to_serve() -> Option<PathBuf> {
    std::env::var_os(FOLDER).map(PathBuf::from)
}

/// What the test `the_server_process` of a program does: it is the server, when it was started by [`server`].
pub(crate) fn serve_if_told() {
    let Some(folder) = told_to_serve() else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(toci_server::run(super::config(&folder))).unwrap();
}

/// The command of a server with everything in `folder` (see [`super::config`]), started by the words before it, if any.
pub(crate) fn server(before: &[&str], folder: &Path) -> Command {
    let program = std::env::current_exe().unwrap();
    let mut command = match before {
        [] => Command::new(program),
        [first, more @ ..] => {
            let mut command = Command::new(first);
            command.args(more).arg(program);
            command
        }
    };
    command.args(["--exact", "the_server_process", "--nocapture"]).env(FOLDER, folder);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}
