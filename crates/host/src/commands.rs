//! The command line of `toci-host`.

use crate::agent::{self, AgentError, Ended, run_agent};
use crate::bench;
use crate::config::{Config, DEFAULT_PATH, Mode};
use crate::first_boot::{Files, FirstBootError, first_boot};
use crate::host::{Host, HostError};
use crate::probe;
use crate::sandbox::{
    EXIT_REFUSED, Payload, SandboxError, SandboxHandle, StateLock, enter_and_run, own_program,
    run_sandbox, sandbox_enter, sandbox_init,
};
use crate::state::StateDir;
use crate::successor;
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// The agent on a TE host: carves the machine into test environments and serves them to leases.
#[derive(Debug, Parser)]
#[command(name = "toci-host", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Debug, Args)]
struct Configured {
    /// The configuration.
    #[arg(short, long, default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// This process is in the sandbox already.
    #[arg(long, hide = true)]
    inside: bool,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Run the host: everything in place, TEs served, until SIGTERM.
    Run {
        #[command(flatten)]
        c: Configured,
        /// Without a server: every TE is served at once, its JSON written to
        /// <state>/test_env_<N>.json.
        #[arg(long)]
        standalone: bool,
    },
    /// Show the difference between what should be on the host and what is.
    Plan {
        #[command(flatten)]
        c: Configured,
    },
    /// Make it so; safe to repeat.
    Apply {
        #[command(flatten)]
        c: Configured,
    },
    /// Remove everything of ours: machines, disks, bridges.
    Destroy {
        #[command(flatten)]
        c: Configured,
    },
    /// Check the configuration, and nothing else.
    Check {
        #[command(flatten)]
        c: Configured,
    },
    /// Say whether KVM works here; boots a kernel under a time limit the first time.
    Probe {
        #[command(flatten)]
        c: Configured,
    },
    /// Trade a one-time token (`toci host enrol`) for this host's credential.
    Enrol {
        #[command(flatten)]
        c: Configured,
        /// The server, if it is reached otherwise than the configuration says.
        #[arg(long)]
        server: Option<String>,
        /// File with the token.
        #[arg(long)]
        token_file: PathBuf,
    },
    /// Become the TE host that a cloud's user data say, once.
    FirstBoot {
        #[command(flatten)]
        c: Configured,
        #[command(flatten)]
        files: Files,
    },
    /// Run a command inside the running sandbox, for example `virsh list --all`.
    Enter {
        #[command(flatten)]
        c: Configured,
        /// The command.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<OsString>,
    },
    /// Time resets of TE 1 in a sandbox made for it; prints JSON (for `cargo xtask bench`).
    #[command(hide = true)]
    BenchReset {
        #[command(flatten)]
        c: Configured,
        /// Resets with the machines off, and as many with all of them running.
        #[arg(long, default_value_t = 5)]
        rounds: u32,
    },
    /// Make the namespaces (internal).
    #[command(hide = true)]
    SandboxEnter(InitArgs),
    /// Pid 1 of a sandbox (internal).
    #[command(hide = true)]
    SandboxInit(InitArgs),
}

#[derive(Debug, Args)]
struct InitArgs {
    #[arg(long)]
    config: PathBuf,
    /// What to run inside, when it is there.
    #[arg(long)]
    program: Option<PathBuf>,
    /// `restart` or `once`.
    restart: String,
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Runs the program with the process's arguments, under either of its names.
#[must_use]
pub fn main() -> ExitCode {
    let name = std::env::args_os().next().map(PathBuf::from);
    let name = name.as_deref().and_then(Path::file_name);
    if name.is_some_and(|n| n == "testenv-worker") {
        // The program of 2014, with its flags and behaviour (origin.md 2.1).
        return toci_client::testenv::worker_main(std::env::args_os());
    }
    let cli = Cli::parse();
    log_to_stderr();
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("toci-host: {e:#}");
            let refused = e.downcast_ref::<crate::config::ConfigError>().is_some()
                || e.downcast_ref::<Refusal>().is_some()
                || e.downcast_ref::<FirstBootError>().is_some_and(FirstBootError::is_refusal)
                || matches!(e.downcast_ref(), Some(SandboxError::Running(_)))
                || e.downcast_ref::<HostError>().is_some_and(HostError::is_refusal)
                || e.downcast_ref::<AgentError>().is_some_and(AgentError::is_refusal);
            ExitCode::from(if refused { EXIT_REFUSED } else { 1 })
        }
    }
}

/// The caller's fault, with what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refusal(String);

fn log_to_stderr() {
    use tracing_subscriber::{EnvFilter, fmt};
    let filter =
        EnvFilter::try_from_env("TOCI_LOG").unwrap_or_else(|_| EnvFilter::new("info,russh=warn"));
    let _ = fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .try_init();
}

fn dispatch(command: Sub) -> anyhow::Result<ExitCode> {
    match command {
        Sub::Run { c, standalone } => run(&c, standalone),
        Sub::Plan { c } => on_host(&c, "plan", &[], |host| async move {
            print!("{}", host.plan().await?);
            Ok(())
        }),
        Sub::Apply { c } => on_host(&c, "apply", &[], |host| async move {
            host.prepare_folders()?;
            let done = host.converge().await?;
            if done.is_empty() {
                println!("nothing to do");
            }
            for p in done {
                print!("{p}");
            }
            Ok(())
        }),
        Sub::Destroy { c } => on_host(&c, "destroy", &[], |host| async move {
            print!("{}", host.destroy().await?);
            Ok(())
        }),
        Sub::BenchReset { c, rounds } => {
            let extra = ["--rounds".to_owned(), rounds.to_string()];
            on_host(&c, "bench-reset", &extra, |host| bench::reset_times(host, rounds))
        }
        Sub::Check { c } => check(&c),
        Sub::Probe { c } => {
            let config = Config::load(&c.config)?;
            let state = StateDir::open(&config.state)?;
            let answer = runtime()?.block_on(probe::kvm(&config, &state))?;
            println!("{}: {}", if answer.kvm { "kvm" } else { "qemu" }, answer.because);
            Ok(ExitCode::SUCCESS)
        }
        Sub::Enrol { c, server, token_file } => {
            let config = Config::load(&c.config)?;
            let state = StateDir::open(&config.state)?;
            let enrolled = agent::enrol(&config, &state, server.as_deref(), &token_file);
            runtime()?.block_on(enrolled)?;
            println!("{} is enrolled", config.name);
            Ok(ExitCode::SUCCESS)
        }
        Sub::FirstBoot { c, files } => {
            let name = runtime()?.block_on(first_boot(&c.config, &files))?;
            println!("{name} is enrolled");
            Ok(ExitCode::SUCCESS)
        }
        Sub::Enter { c, command } => {
            let config = Config::load(&c.config)?;
            let handle = running(&config)?;
            let mut inside = Command::new(&command[0]);
            inside.args(&command[1..]);
            Ok(enter_and_run(handle, &mut inside)?)
        }
        Sub::SandboxEnter(a) => {
            let mut arguments = vec!["sandbox-init".to_owned(), "--config".to_owned()];
            arguments.push(a.config.display().to_string());
            arguments.extend(a.program.map(|p| format!("--program={}", p.display())));
            arguments.extend([a.restart, "--".to_owned()]);
            arguments.extend(a.arguments);
            Ok(sandbox_enter(&arguments)?)
        }
        Sub::SandboxInit(a) => {
            let restart = a.restart == "restart";
            let payload = Payload { arguments: a.arguments, restart, program: a.program };
            Ok(sandbox_init(&Config::load(&a.config)?, &payload)?)
        }
    }
}

fn check(c: &Configured) -> anyhow::Result<ExitCode> {
    let config = Config::load(&c.config)?;
    let state = config.state.display();
    println!("{}: mode {}, state {state}", config.name, config.mode.as_str());
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

fn running(config: &Config) -> anyhow::Result<SandboxHandle> {
    if config.mode == Mode::Host {
        let refusal = "mode is \"host\": there is no sandbox to enter, run the command as it is";
        return Err(Refusal(refusal.into()).into());
    }
    SandboxHandle::find(&StateDir::open(&config.state)?)?.ok_or_else(|| {
        let state = config.state.display();
        Refusal(format!("no sandbox runs on {state}; start one with `toci-host run`")).into()
    })
}

/// Runs `f` where the host is: here in host mode, in the running sandbox, or, for what makes
/// sense without one, in a sandbox that is made for it and ends with it.
fn on_host<F, Fut>(c: &Configured, verb: &str, extra: &[String], f: F) -> anyhow::Result<ExitCode>
where
    F: FnOnce(Host) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let config = Config::load(&c.config)?;
    if c.inside || config.mode == Mode::Host {
        return runtime()?.block_on(async {
            let host = Host::open(config).await?;
            host.ready().await?;
            f(host).await?;
            Ok(ExitCode::SUCCESS)
        });
    }
    let path = std::fs::canonicalize(&c.config)?;
    let mut arguments =
        vec![verb.to_owned(), "--inside".into(), "--config".into(), path.display().to_string()];
    arguments.extend_from_slice(extra);
    match SandboxHandle::find(&StateDir::open(&config.state)?)? {
        Some(handle) => {
            let mut inside = Command::new(own_program()?);
            inside.args(&arguments);
            Ok(enter_and_run(handle, &mut inside)?)
        }
        None if verb == "apply" => Err(running(&config).err().unwrap_or_else(|| {
            Refusal("the sandbox has just been started; try again".into()).into()
        })),
        None => {
            let payload = Payload { arguments, restart: false, program: None };
            Ok(run_sandbox(&config, &path, &payload)?)
        }
    }
}

fn run(c: &Configured, standalone: bool) -> anyhow::Result<ExitCode> {
    let config = Config::load(&c.config)?;
    let program = successor::called_as();
    if c.inside || config.mode == Mode::Host {
        let mode = config.mode;
        let lock = match mode {
            Mode::Host => Some(StateLock::take(&StateDir::open(&config.state)?)?),
            Mode::Sandbox => None,
        };
        let ended = runtime()?.block_on(async {
            let host = Host::open(config).await?;
            anyhow::Ok(run_agent(host, standalone).await?)
        })?;
        return match (ended, mode) {
            (Ended::Terminated, _) => Ok(ExitCode::SUCCESS),
            // Pid 1 of the sandbox starts the successor.
            (Ended::HandOver, Mode::Sandbox) => Ok(ExitCode::from(successor::EXIT_HAND_OVER)),
            (Ended::HandOver, Mode::Host) => {
                drop(lock);
                Err(successor::become_it(program.as_deref()).into())
            }
        };
    }
    let path = std::fs::canonicalize(&c.config)?;
    let mut arguments =
        vec!["run".to_owned(), "--inside".into(), "--config".into(), path.display().to_string()];
    if standalone {
        arguments.push("--standalone".into());
    }
    Ok(run_sandbox(&config, &path, &Payload { arguments, restart: true, program })?)
}
