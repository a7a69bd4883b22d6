//! Addresses as settings write them. What is none is told in words that stand behind the key's place.

use serde::Deserialize;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 address with its prefix length, `198.18.1.2/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Cidr {
    /// The address.
    pub address: Ipv4Addr,
    /// 0 to 32.
    pub prefix: u8,
}

impl Cidr {
    /// The netmask.
    #[must_use]
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))
    }

    /// The network's address.
    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.address) & u32::from(self.netmask()))
    }

    /// Whether some address lies in both networks.
    #[must_use]
    pub fn overlaps(self, other: Cidr) -> bool {
        self.contains(other.network()) || other.contains(self.network())
    }

    /// Whether `a` lies in the network.
    #[must_use]
    pub fn contains(self, a: Ipv4Addr) -> bool {
        u32::from(a) & u32::from(self.netmask()) == u32::from(self.network())
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{s}` is not an IPv4 address with prefix, such as 198.18.1.2/24");
        let (a, p) = s.split_once('/').ok_or_else(bad)?;
        let prefix: u8 = p.parse().map_err(|_| bad())?;
        if prefix > 32 {
            return Err(bad());
        }
        Ok(Cidr { address: a.parse().map_err(|_| bad())?, prefix })
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        s.parse()
    }
}

/// `198.18.1.101-198.18.1.199`, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct AddressRange {
    /// The first.
    pub first: Ipv4Addr,
    /// The last.
    pub last: Ipv4Addr,
}

impl AddressRange {
    /// How many.
    #[must_use]
    pub fn len(self) -> u32 {
        (u32::from(self.last) - u32::from(self.first)).saturating_add(1)
    }

    /// Never: a range has at least one address.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }

    /// The `n`th, counted from 1.
    #[must_use]
    pub fn nth(self, n: u32) -> Option<Ipv4Addr> {
        (1..=self.len()).contains(&n).then(|| Ipv4Addr::from(u32::from(self.first) + n - 1))
    }
}

impl TryFrom<String> for AddressRange {
    type Error = String;
    fn try_from(s: String) -> Result<Self, String> {
        let bad = || format!("`{s}` is not a range such as 198.18.1.101-198.18.1.199");
        let (a, b) = s.split_once('-').ok_or_else(bad)?;
        let first: Ipv4Addr = a.trim().parse().map_err(|_| bad())?;
        let last: Ipv4Addr = b.trim().parse().map_err(|_| bad())?;
        if first > last { Err(bad()) } else { Ok(AddressRange { first, last }) }
    }
}
