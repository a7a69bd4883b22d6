//! A zone file and the files that it names.

use sha2::{Digest as _, Sha512};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use toci_core::cloud::{Local, Password, Value, Zone};
use toci_core::hex::hex;
use toci_wire::zone::{ZONE_FILE_MAX_BYTES, ZoneError, normal_key, read};

/// Longest public key file and longest user data, in bytes: Nova takes 65535 of the latter after base64.
const SMALL_FILE_MAX_BYTES: u64 = 48 << 10;
/// Bytes of an image that are hashed at once.
const PIECE_BYTES: usize = 1 << 20;

/// A zone with everything that it needs from this machine.
#[derive(Clone, Debug)]
pub struct ZoneAtHand {
    /// Of clouds.yaml.
    pub cloud: Option<String>,
    /// What should be there; images have their hashes, key pairs their keys.
    pub zone: Zone,
}

/// Why a zone cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadZone {
    /// A file could not be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The zone file says things that cannot be used.
    #[error("use {path}: {} errors in it", errors.len())]
    Wrong {
        /// Which.
        path: String,
        /// Its text.
        text: String,
        /// Each with its place.
        errors: Vec<ZoneError>,
    },
    /// A file holds something else than it should.
    #[error("use {path}: {why}")]
    Unfit {
        /// Which.
        path: String,
        /// What was expected.
        why: &'static str,
    },
}

impl ZoneAtHand {
    /// Reads the zone file alone.
    pub fn check(path: &Path) -> Result<ZoneAtHand, BadZone> {
        let limit = u64::try_from(ZONE_FILE_MAX_BYTES).unwrap_or(u64::MAX);
        let bytes = small_file(path, limit)?;
        let name = path.display().to_string();
        let text = String::from_utf8(bytes)
            .map_err(|_| BadZone::Unfit { path: name.clone(), why: "it is no text" })?;
        match read(&name, &text) {
            Ok(file) => Ok(ZoneAtHand { cloud: file.cloud, zone: file.zone }),
            Err(errors) => Err(BadZone::Wrong { path: name, text, errors }),
        }
    }

    /// Reads the zone file, and the public keys and images that it names; paths count from the zone file's folder.
    pub fn load(path: &Path) -> Result<ZoneAtHand, BadZone> {
        let mut at_hand = ZoneAtHand::check(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        for thing in &mut at_hand.zone.things {
            match &mut thing.local {
                None | Some(Local::Password(Password::Environment(_))) => {}
                Some(Local::Password(Password::File(file)) | Local::UserData(file)) => {
                    *file = folder.join(&*file);
                }
                Some(Local::Content(file)) => {
                    *file = folder.join(&*file);
                    let hash = Value::Text(content(file)?);
                    thing.fields.insert("content".to_owned(), hash);
                }
                Some(Local::PublicKey(file)) => {
                    let file = folder.join(&*file);
                    let key = public_key(&file)?;
                    thing.fields.insert("public_key".to_owned(), Value::Text(key));
                }
            }
        }
        Ok(at_hand)
    }
}

fn named(path: &Path) -> impl Fn(std::io::Error) -> BadZone {
    let path = path.display().to_string();
    move |source| BadZone::Read { path: path.clone(), source }
}

/// A file as a whole.
pub(super) fn small_file(path: &Path, max: u64) -> Result<Vec<u8>, BadZone> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(named(path))?;
    file.take(max.saturating_add(1)).read_to_end(&mut bytes).map_err(named(path))?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > max {
        return Err(BadZone::Unfit { path: path.display().to_string(), why: "it is too long" });
    }
    Ok(bytes)
}

/// What a new server is told.
pub(super) fn user_data(path: &Path) -> Result<Vec<u8>, BadZone> {
    small_file(path, SMALL_FILE_MAX_BYTES)
}

fn public_key(path: &Path) -> Result<String, BadZone> {
    let bytes = small_file(path, SMALL_FILE_MAX_BYTES)?;
    normal_key(&String::from_utf8_lossy(&bytes)).ok_or_else(|| BadZone::Unfit {
        path: path.display().to_string(),
        why: "it is no public key as ssh-keygen writes it",
    })
}

/// An image's hash, as Glance tells it.
fn content(path: &Path) -> Result<String, BadZone> {
    let mut file = File::open(path).map_err(named(path))?;
    let mut hash = Sha512::new();
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        match file.read(&mut piece).map_err(named(path))? {
            0 => break,
            read => hash.update(&piece[..read]),
        }
    }
    Ok(format!("sha512:{}", hex(&hash.finalize())))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ZONE: &str = "owner: o\nimages: [{name: i, file: disk.raw, disk-format: raw}]\nkey-pairs: [{name: k, public-key-file: k.pub}]\n";

    #[test]
    fn files_are_read_beside_the_zone() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("z.yaml"), ZONE).unwrap();
        let missing = ZoneAtHand::load(&at("z.yaml")).unwrap_err();
        assert!(missing.to_string().ends_with("k.pub"), "{missing}");
        std::fs::write(at("disk.raw"), "abc").unwrap();
        std::fs::write(at("k.pub"), "no key").unwrap();
        let unfit = ZoneAtHand::load(&at("z.yaml")).unwrap_err().to_string();
        assert!(unfit.contains("k.pub: it is no public key"), "{unfit}");
        let key = format!("ssh-ed25519 {}", "A".repeat(68));
        std::fs::write(at("k.pub"), format!("{key} me@here\n")).unwrap();
        let things = ZoneAtHand::load(&at("z.yaml")).unwrap().zone.things;
        assert_eq!(things[0].fields["public_key"], Value::Text(key));
        // FIPS 180-4: SHA-512 of "abc".
        let hash = things[1].fields["content"].to_string();
        assert!(hash.starts_with("sha512:ddaf35a193617aba") && hash.ends_with("2a9ac94fa54ca49f"));
        assert_eq!(things[1].local, Some(Local::Content(at("disk.raw"))));
    }

    #[test]
    fn a_zone_that_is_wrong_is_told_with_every_place() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("z.yaml");
        std::fs::write(&file, "a: 1\nb: 2\n").unwrap();
        match ZoneAtHand::check(&file).unwrap_err() {
            BadZone::Wrong { errors, .. } => assert_eq!(errors.len(), 3),
            other => panic!("{other}"),
        }
        std::fs::write(&file, [0xff]).unwrap();
        assert!(matches!(ZoneAtHand::check(&file), Err(BadZone::Unfit { .. })));
    }
}
