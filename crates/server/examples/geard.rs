//! The broker alone, with geard's flags: what `geard` is when `toci` is called by that name.
fn main() -> std::process::ExitCode {
    toci_server::broker::geard_main(std::env::args_os())
}
