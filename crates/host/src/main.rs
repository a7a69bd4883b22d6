//! The binary `toci-host`.

fn main() -> std::process::ExitCode {
    toci_host::commands::main()
}
