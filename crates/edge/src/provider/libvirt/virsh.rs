//! virsh: the calls, and what its answers mean. Nothing here decides.

use crate::program::Call;
use crate::provider::ProviderError;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Longest answer to a question, or small change.
pub const VIRSH_LIMIT: Duration = Duration::from_secs(60);
/// Longest transfer of an image to libvirt's host.
pub const UPLOAD_LIMIT: Duration = Duration::from_secs(3600);

/// A connection to libvirt by its URI.
#[derive(Clone, Debug)]
pub(super) struct Virsh {
    uri: String,
}

impl Virsh {
    pub(super) fn new(uri: &str) -> Virsh {
        Virsh { uri: uri.to_owned() }
    }

    /// What virsh says; an error when it does not like it.
    pub(super) async fn ask(&self, arguments: &[&str]) -> Result<String, ProviderError> {
        self.ask_in(arguments, b"", VIRSH_LIMIT).await
    }

    pub(super) async fn ask_in(
        &self,
        arguments: &[&str],
        input: &[u8],
        limit: Duration,
    ) -> Result<String, ProviderError> {
        let what = || format!("virsh {}", arguments.join(" "));
        let ended = Call::new("virsh", limit)
            .args(["--quiet", "--connect", &self.uri])
            .args(arguments)
            .run(input)
            .await
            .map_err(|e| ProviderError::new(what(), &e))?;
        if ended.is_well() {
            return Ok(ended.text());
        }
        let why = ended.complaint.lines().map(|l| l.trim_start_matches("error: "));
        Err(ProviderError::said(what(), why.collect::<Vec<_>>().join("; ")))
    }

    /// Names of machines that are there in any state, or only of those that run.
    pub(super) async fn machines(&self, running_only: bool) -> Result<Vec<String>, ProviderError> {
        let said = match running_only {
            true => self.ask(&["list", "--name"]).await?,
            false => self.ask(&["list", "--all", "--name"]).await?,
        };
        Ok(words(&said))
    }

    pub(super) async fn upload(
        &self,
        pool: &str,
        volume: &str,
        file: &Path,
    ) -> Result<(), ProviderError> {
        let file = file.display().to_string();
        self.ask_in(&["vol-upload", "--pool", pool, volume, &file], b"", UPLOAD_LIMIT).await?;
        Ok(())
    }
}

/// The lines that are not empty.
fn words(said: &str) -> Vec<String> {
    said.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// Names in the first column of `vol-list`.
pub(super) fn first_column(said: &str) -> Vec<String> {
    said.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// The first IPv4 address, otherwise the first one, in the answer to `domifaddr`.
pub(super) fn leased(said: &str) -> Option<IpAddr> {
    let addresses = said.split_whitespace().filter_map(|word| {
        let (address, prefix) = word.split_once('/')?;
        prefix.parse::<u8>().ok()?;
        address.parse::<IpAddr>().ok()
    });
    addresses.min_by_key(|address| !address.is_ipv4())
}

/// What a machine said of itself on its console: `toci-node: address A.B.C.D`. The last one counts.
pub(super) fn announced(console: &str) -> Option<IpAddr> {
    let said = console.lines().filter_map(|line| line.split_once("toci-node: address "));
    said.filter_map(|(_, rest)| rest.split_whitespace().next()?.parse().ok()).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let lease = " vnet0      52:54:00:aa:bb:cc    ipv4         192.168.122.7/24\n";
        assert_eq!(leased(lease), Some([192, 168, 122, 7].into()));
        let both = " vnet0  52:54:00:aa:bb:cc  ipv6  fd00::2/64\n -  -  ipv4  10.0.0.3/8\n";
        assert_eq!(leased(both), Some([10, 0, 0, 3].into()));
        assert_eq!(leased(""), None);
        let console = "[1.0] x\r\ntoci-node: address 10.0.0.3\r\n[9] toci-node: address 10.0.0.4 eth0\r\nlogin: ";
        assert_eq!(announced(console), Some([10, 0, 0, 4].into()));
        assert_eq!(announced("toci-node: address\n"), None);
    }

    #[test]
    fn names_are_read() {
        assert_eq!(words("a\nb-1\n\n"), ["a", "b-1"]);
        assert_eq!(first_column(" a.qcow2   /f/a.qcow2\n b   /f/b\n"), ["a.qcow2", "b"]);
    }
}
