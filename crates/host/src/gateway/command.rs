//! Runs one command and says on the channel what virsh, or the whole pipeline, would have said.

use super::copyseed;
use super::doors::{Inside, Open};
use super::limits::OUTPUT_MAX;
use super::machines::{MachineError, Machines, PowerVerb};
use super::session::STDERR;
use russh::server::{Handle, Msg};
use russh::{Channel, ChannelWriteHalf};
use std::sync::Arc;
use toci_wire::ssh_command::output::{self, Row};
use toci_wire::ssh_command::{ALLOWED, BootDevice, Command, MachineName, parse};

/// A command line, and on whose behalf.
pub(super) struct Run {
    pub(super) open: Arc<Open>,
    pub(super) inside: Inside,
    pub(super) line: Vec<u8>,
}

/// What a command says, and its exit code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) out: String,
    pub(super) err: String,
    pub(super) code: u32,
}

impl Said {
    fn ok(out: String) -> Said {
        Said { out, ..Said::default() }
    }

    /// Ours to say no: not a text of virsh.
    pub(super) fn refused(why: &str) -> Said {
        Said { err: format!("toci: {why}\n"), code: 1, ..Said::default() }
    }

    /// A virsh that failed: errors on standard error, its empty line on standard output.
    fn virsh_failed(errors: &[&str]) -> Said {
        Said { out: "\n".into(), err: output::errors(errors), code: 1 }
    }

    /// Through a pipeline whose last stage succeeds whatever it is fed, and prints `out`.
    fn piped(self, out: String) -> Said {
        Said { out, err: self.err, code: 0 }
    }
}

/// Runs a command line on its channel to the end.
pub(super) async fn serve(run: Run, channel: Channel<Msg>, handle: Handle) {
    let id = channel.id();
    // A task of its own, so that a panic in a command becomes its exit code.
    let code = tokio::spawn(answer(run, channel)).await.unwrap_or_else(|e| {
        tracing::error!(error = %e, "a gateway command panicked");
        255
    });
    let _ = handle.exit_status_request(id, code).await;
    let _ = handle.eof(id).await;
    let _ = handle.close(id).await;
}

async fn answer(run: Run, channel: Channel<Msg>) -> u32 {
    let Run { open, inside, line } = run;
    let (read, write) = channel.split();
    let said = match parse(&line) {
        Err(refused) => {
            tracing::info!(te = %open.grant.te, %refused, "gateway refused a command");
            Said::refused(&format!("{refused}; {ALLOWED}"))
        }
        // Checked for every command: a session may have been let in long ago.
        Ok(_) if !open.is_open() => Said::refused("the lease is over"),
        Ok(command) => {
            let line = String::from_utf8_lossy(&line);
            tracing::info!(te = %open.grant.te, lease = %open.grant.lease, %line, "gateway command");
            print(&write, STDERR, format!("Calling {}\n", line.trim())).await;
            match command {
                Command::CopySeed { number } => copyseed::run(number, &open, read, &write).await,
                other => on_machines(other, &open).await,
            }
        }
    };
    // From here on nothing acts for the lease any more; whoever waits for that need not wait for a
    // client that does not read.
    drop(inside);
    print(&write, STDERR, said.err).await;
    print(&write, 0, said.out).await;
    said.code
}

/// Prints; a client that does not read, or is gone, misses it.
pub(super) async fn print(write: &ChannelWriteHalf<Msg>, stream: u32, text: String) {
    let text = text.into_bytes();
    let sent = async {
        match stream {
            STDERR => write.extended_data_bytes(STDERR, text).await,
            _ => write.data_bytes(text).await,
        }
    };
    let _ = tokio::time::timeout(OUTPUT_MAX, sent).await;
}

async fn on_machines(command: Command, open: &Arc<Open>) -> Said {
    let Ok(_turn) = open.commands.acquire().await else { return Said::refused("shutting down") };
    if !open.is_open() {
        return Said::refused("the lease is over");
    }
    let machines = &*open.grant.machines;
    match command {
        Command::Power { verb, machine } => power(machines, verb, &machine).await,
        Command::List { all } => list(machines, |rows| output::list(rows, all)).await,
        Command::ListNames { all } => list(machines, |rows| output::list_names(rows, all)).await,
        Command::ListNamesByAwk => {
            let said = list(machines, output::names_by_awk).await;
            piped_unless_failed(said)
        }
        Command::ListRunningQuoted => {
            let said = list(machines, output::running_quoted).await;
            piped_unless_failed(said)
        }
        Command::DumpXml { machine, inactive } => {
            let said = xml(machines, &machine, inactive).await;
            if said.code == 0 { Said { out: said.out + "\n", ..said } } else { said }
        }
        Command::DomState { machine } => domstate(machines, &machine).await,
        Command::Macs { machine } => {
            let said = xml(machines, &machine, false).await;
            let macs = output::macs(&said.out);
            said.piped(macs)
        }
        Command::GetBootDevice { machine } => {
            let said = xml(machines, &machine, false).await;
            let device = output::boot_device(&said.out);
            said.piped(device)
        }
        Command::SetBootDevice { machine, device } => {
            set_boot_device(machines, &machine, device).await
        }
        Command::Admit { address } => match machines.admit(address).await {
            Ok(()) => Said::ok(format!("{address} may speak with the seed\n")),
            Err(e) => Said::refused(&e.to_string()),
        },
        Command::CopySeed { .. } => Said::refused("copyseed needs its standard input"),
    }
}

/// A failed virsh in front of a pipeline leaves nothing that passes it.
fn piped_unless_failed(said: Said) -> Said {
    let out = if said.code == 0 { said.out.clone() } else { String::new() };
    said.piped(out)
}

/// The lease's own machine of this name. Others do not exist as far as a lease can see.
fn own<'a>(machines: &'a dyn Machines, name: &MachineName) -> Result<&'a str, Said> {
    let own = machines.names().iter().find(|n| n.as_str() == name.as_str());
    own.map(String::as_str).ok_or_else(|| {
        let mut said = Said::virsh_failed(&[&format!("failed to get domain '{name}'")]);
        said.err.push_str(&format!("toci: this lease has {}\n", machines.names().join(", ")));
        said
    })
}

async fn list(machines: &dyn Machines, show: impl Fn(&[Row]) -> String) -> Said {
    match machines.list().await {
        Ok(rows) => Said::ok(show(&rows)),
        Err(e) => Said::virsh_failed(&["Failed to list domains", &e.to_string()]),
    }
}

async fn power(machines: &dyn Machines, verb: PowerVerb, name: &MachineName) -> Said {
    let machine = match own(machines, name) {
        Ok(m) => m,
        Err(said) => return said,
    };
    let (done, failed) = match verb {
        PowerVerb::Start => ("started", "start"),
        PowerVerb::Destroy => ("destroyed", "destroy"),
        PowerVerb::Reset => ("was reset", "reset"),
    };
    match machines.power(machine, verb).await {
        Ok(()) => Said::ok(output::done(machine, done)),
        Err(e @ (MachineError::AlreadyActive | MachineError::NoDomain(_))) => {
            Said::virsh_failed(&[&e.to_string()])
        }
        Err(
            e @ (MachineError::NotRunning | MachineError::SeedRuns(_) | MachineError::Failed(_)),
        ) => {
            Said::virsh_failed(&[&format!("Failed to {failed} domain '{machine}'"), &e.to_string()])
        }
    }
}

/// The definition, without virsh's last empty line.
async fn xml(machines: &dyn Machines, name: &MachineName, inactive: bool) -> Said {
    let machine = match own(machines, name) {
        Ok(m) => m,
        Err(said) => return said,
    };
    match machines.xml(machine, inactive).await {
        Ok(text) => Said::ok(text),
        Err(e) => Said::virsh_failed(&[&e.to_string()]),
    }
}

async fn domstate(machines: &dyn Machines, name: &MachineName) -> Said {
    let machine = match own(machines, name) {
        Ok(m) => m,
        Err(said) => return said,
    };
    match machines.list().await {
        Ok(rows) => match rows.iter().find(|r| r.name == machine) {
            Some(row) => Said::ok(format!("{}\n\n", row.state.as_str())),
            None => Said::virsh_failed(&[&format!("failed to get domain '{machine}'")]),
        },
        Err(e) => Said::virsh_failed(&["Failed to get domain state", &e.to_string()]),
    }
}

async fn set_boot_device(machines: &dyn Machines, name: &MachineName, device: BootDevice) -> Said {
    let machine = match own(machines, name) {
        Ok(m) => m,
        Err(said) => return said,
    };
    match machines.set_boot_device(machine, device).await {
        Ok(()) => Said::ok(output::done(machine, "XML configuration edited.")),
        Err(e) => Said::virsh_failed(&[&e.to_string()]),
    }
}
