//! What virsh 9 prints, and what the stages of the power drivers' pipelines make of it. Clients look for
//! words and columns in these texts, so they are virsh's to the byte; a test compares them with virsh.

use core::fmt::Write as _;

/// Where a machine stands, in libvirt's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DomainState {
    /// It runs.
    Running,
    /// It is paused.
    Paused,
    /// It was asked to end.
    InShutdown,
    /// It is off.
    ShutOff,
    /// It ended badly.
    Crashed,
}

impl DomainState {
    /// virsh's words.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            DomainState::Running => "running",
            DomainState::Paused => "paused",
            DomainState::InShutdown => "in shutdown",
            DomainState::ShutOff => "shut off",
            DomainState::Crashed => "crashed",
        }
    }

    /// Whether it has a process: libvirt calls such a domain active.
    #[must_use]
    pub fn is_active(self) -> bool {
        match self {
            DomainState::Running | DomainState::Paused | DomainState::InShutdown => true,
            DomainState::ShutOff | DomainState::Crashed => false,
        }
    }
}

/// One row of `virsh list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// libvirt's id; only active domains have one.
    pub id: Option<u32>,
    /// Domain name.
    pub name: String,
    /// Where it stands.
    pub state: DomainState,
}

fn sorted(rows: &[Row], all: bool) -> Vec<&Row> {
    let mut rows: Vec<&Row> = rows.iter().filter(|r| all || r.state.is_active()).collect();
    // virsh: active ones by id, then the others by name.
    rows.sort_by(|a, b| {
        let key = |r: &Row| (!r.state.is_active(), r.id);
        key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
    });
    rows
}

/// `virsh list [--all]`, with the empty line that virsh ends every command with.
#[must_use]
pub fn list(rows: &[Row], all: bool) -> String {
    let mut table = vec![["Id".to_owned(), "Name".to_owned(), "State".to_owned()]];
    for r in sorted(rows, all) {
        let id = r.id.map_or_else(|| "-".to_owned(), |i| i.to_string());
        table.push([id, r.name.clone(), r.state.as_str().to_owned()]);
    }
    let width = |c: usize| table.iter().map(|row| row[c].len()).max().unwrap_or(0);
    let (id, name, state) = (width(0), width(1), width(2));
    let mut out = String::new();
    for (n, row) in table.iter().enumerate() {
        let _ = writeln!(out, " {:<id$}   {:<name$}   {}", row[0], row[1], row[2]);
        if n == 0 {
            let _ = writeln!(out, "{}", "-".repeat(id + name + state + 9));
        }
    }
    out.push('\n');
    out
}

/// `virsh list [--all] --name`.
#[must_use]
pub fn list_names(rows: &[Row], all: bool) -> String {
    let mut out: String = sorted(rows, all).iter().map(|r| format!("{}\n", r.name)).collect();
    out.push('\n');
    out
}

/// `virsh list --all | tail -n +2 | awk -F" " '{print $2}'`: an empty line for the ruler, the names, an
/// empty line for virsh's last.
#[must_use]
pub fn names_by_awk(rows: &[Row]) -> String {
    list(rows, true).lines().skip(1).map(|l| format!("{}\n", second_field(l))).collect()
}

/// `virsh list --all | grep running | awk -v qc='"' -F" " '{print qc$2qc}'`.
#[must_use]
pub fn running_quoted(rows: &[Row]) -> String {
    let all = list(rows, true);
    let running = all.lines().filter(|l| l.contains("running"));
    running.map(|l| format!("\"{}\"\n", second_field(l))).collect()
}

fn second_field(line: &str) -> &str {
    line.split_ascii_whitespace().nth(1).unwrap_or_default()
}

/// `virsh dumpxml NAME | grep "mac address" | awk -F"'" '{print $2}' | tr -d ':'`, in the case of the XML.
#[must_use]
pub fn macs(xml: &str) -> String {
    let lines = xml.lines().filter(|l| l.contains("mac address"));
    lines
        .map(|l| format!("{}\n", l.split('\'').nth(1).unwrap_or_default().replace(':', "")))
        .collect()
}

/// `virsh dumpxml NAME | awk '/boot dev=/ …' | head -1`: the first boot device; nothing when there is none.
#[must_use]
pub fn boot_device(xml: &str) -> String {
    let record = xml.split(['<', '>']).find(|r| r.contains("boot dev="));
    let Some(record) = record else { return String::new() };
    // The first gsub is greedy: up to the last `dev='`.
    let value = record.rfind("dev='").map_or(record, |at| &record[at + 5..]);
    format!("{}\n", value.split('\'').next().unwrap_or_default())
}

/// A message of success, e.g. `Domain 'seed_1' started`.
#[must_use]
pub fn done(machine: &str, what: &str) -> String {
    format!("Domain '{machine}' {what}\n\n")
}

/// virsh's errors, one a line.
#[must_use]
pub fn errors(lines: &[&str]) -> String {
    lines.iter().map(|l| format!("error: {l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Row> {
        let row = |id, name: &str, state| Row { id, name: name.into(), state };
        vec![
            row(None, "baremetalbrbm1_1", DomainState::ShutOff),
            row(Some(12), "seed_1", DomainState::Running),
            row(None, "baremetalbrbm1_0", DomainState::ShutOff),
        ]
    }

    #[test]
    fn the_table_is_virshs() {
        assert_eq!(
            list(&rows(), true),
            " Id   Name               State\n\
             -----------------------------------\n \
             12   seed_1             running\n \
             -    baremetalbrbm1_0   shut off\n \
             -    baremetalbrbm1_1   shut off\n\n"
        );
        assert_eq!(list(&[], false), " Id   Name   State\n--------------------\n\n");
        assert_eq!(list_names(&rows(), false), "seed_1\n\n");
    }

    #[test]
    fn pipelines_print_what_awk_would() {
        assert_eq!(names_by_awk(&rows()), "\nseed_1\nbaremetalbrbm1_0\nbaremetalbrbm1_1\n\n");
        assert_eq!(running_quoted(&rows()), "\"seed_1\"\n");
        let xml = "<os>\n    <boot dev='network'/>\n    <boot dev='hd'/>\n  </os>\n\
                   <mac address='00:11:aa:BB:22:33'/>\n  <mac address='00:11:aa:BB:22:34'/>\n";
        assert_eq!(macs(xml), "0011aaBB2233\n0011aaBB2234\n");
        assert_eq!(boot_device(xml), "network\n");
        assert_eq!(boot_device("<os/>"), "");
    }
}
