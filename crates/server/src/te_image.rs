//! Images of TE hosts: made like images of nodes, of an element of ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toci_edge::provider::ProviderError;
use toci_edge::provider::image::ImageSource;
use toci_edge::provider::image::build::build_file;

/// The element that makes a TE host of a Debian.
pub const ELEMENT: &str = "testenv-worker";

/// The distribution that it is put on.
const DISTRIBUTION: &str = "debian-minimal";
/// Where Debian's packages come from unless the environment says otherwise: variable and address.
const MIRROR: (&str, &str) = ("DIB_DISTRIBUTION_MIRROR", "http://deb.debian.org/debian");
/// Where its security updates do: the same host, so that one proxy or mirror serves for both.
const SECURITY_MIRROR: (&str, &str) =
    ("DIB_DEBIAN_SECURITY_MIRROR", "http://deb.debian.org/debian-security");
/// What apt reads in the image, for the element of the distribution. Its own default asks for the security updates of all
/// releases by the name that they had in Debian 10.
const SOURCES: &str = "DIB_APT_SOURCES_CONF";
/// What of the caller's environment reaches the elements, beside `DIB_*`.
const PASSED_ON: [&str; 4] = ["http_proxy", "https_proxy", "no_proxy", "ELEMENTS_PATH"];

/// An image to be made.
#[derive(Clone, Debug)]
pub struct TeImage {
    /// Its `toci-host`.
    pub program: PathBuf,
    /// `<version>-<begin of its SHA-256>`.
    pub version: String,
    /// The unit that runs it.
    pub unit: PathBuf,
    /// Folder with our elements.
    pub elements_path: PathBuf,
    /// Release of Debian.
    pub release: String,
    /// More elements than ours.
    pub elements: Vec<String>,
}

impl TeImage {
    fn source(self, caller: impl Iterator<Item = (String, String)>) -> ImageSource {
        let is_passed_on = |name: &str| name.starts_with("DIB_") || PASSED_ON.contains(&name);
        let mut environment: BTreeMap<String, String> =
            caller.filter(|(name, _)| is_passed_on(name)).collect();
        let [mirror, security] = [MIRROR, SECURITY_MIRROR].map(|(name, default)| {
            environment.get(name).cloned().unwrap_or_else(|| default.to_owned())
        });
        let release = &self.release;
        environment.entry(SOURCES.to_owned()).or_insert_with(|| {
            format!(
                "default:deb {mirror} {release} main\nupdates:deb {mirror} {release}-updates main\nsecurity:deb {security} {release}-security main"
            )
        });
        let ours = self.elements_path.display();
        let path = match environment.get("ELEMENTS_PATH") {
            Some(more) => format!("{ours}:{more}"),
            None => ours.to_string(),
        };
        for (name, value) in [
            ("DIB_RELEASE", self.release),
            ("DIB_TOCI_HOST", self.program.display().to_string()),
            ("DIB_TOCI_VERSION", self.version),
            ("DIB_TOCI_UNIT", self.unit.display().to_string()),
            ("ELEMENTS_PATH", path),
        ] {
            environment.insert(name.to_owned(), value);
        }
        let mut elements = vec![DISTRIBUTION.to_owned()];
        elements.extend(self.elements);
        elements.push(ELEMENT.to_owned());
        ImageSource::DiskImageBuilder { elements, environment }
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BuildTeImage(#[from] ProviderError);

/// Makes `<folder>/<name>.qcow2`; what is said meanwhile goes to `log`.
///
/// # Errors
/// With the last lines of the log.
pub async fn build(
    image: TeImage,
    folder: &Path,
    name: &str,
    log: &Path,
) -> Result<PathBuf, BuildTeImage> {
    // What is not text is of no use to a shell either.
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let source = image.source(std::env::vars_os().filter_map(text));
    Ok(build_file(source, folder, name, log).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_get_what_they_want_and_what_the_caller_says() {
        let image = TeImage {
            program: "/p/toci-host".into(),
            version: "1.0.0-aa".into(),
            unit: "/u".into(),
            elements_path: "/e".into(),
            release: "bookworm".into(),
            elements: vec!["vlan".into()],
        };
        let caller = [("DIB_X", "1"), ("ELEMENTS_PATH", "/mine"), ("SECRET", "s")];
        let own = |pairs: &[(&str, &str)]| {
            let pairs: Vec<_> =
                pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
            pairs.into_iter()
        };
        let source = image.clone().source(own(&caller));
        let ImageSource::DiskImageBuilder { elements, environment } = source else { panic!() };
        assert_eq!(elements, ["debian-minimal", "vlan", "testenv-worker"]);
        assert_eq!(environment["ELEMENTS_PATH"], "/e:/mine");
        let sources = &environment[SOURCES];
        assert!(sources.contains("deb http://deb.debian.org/debian-security bookworm-security "));
        assert!(environment["DIB_X"] == "1" && !environment.contains_key("SECRET"));
        let caller = [("DIB_DEBIAN_SECURITY_MIRROR", "http://m")];
        let ImageSource::DiskImageBuilder { environment, .. } = image.source(own(&caller)) else {
            panic!()
        };
        assert!(environment[SOURCES].ends_with("deb http://m bookworm-security main"));
        assert_eq!(environment["ELEMENTS_PATH"], "/e");
    }
}
