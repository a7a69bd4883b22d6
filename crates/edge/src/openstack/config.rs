//! Finding and reading the files that describe clouds.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use toci_wire::clouds::{
    CLOUDS_FILE_MAX_BYTES, CloudSettings, CloudsError, CloudsFile, CloudsInput, CloudsText, cloud,
    places,
};

/// Where settings of clouds are looked for.
#[derive(Clone, Debug)]
pub struct Place {
    /// The environment.
    pub variables: BTreeMap<String, String>,
    /// The folder that relative paths begin in.
    pub folder: PathBuf,
}

impl Place {
    /// Environment and folder of this process.
    #[must_use]
    pub fn here() -> Place {
        // What is not text is of no use here, and no reason to fail.
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Place {
            variables: std::env::vars_os().filter_map(text).collect(),
            folder: PathBuf::from("."),
        }
    }
}

/// Why a cloud's settings could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LoadCloud {
    /// A file that is there cannot be read.
    #[error("read {path}")]
    Read {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// What they say cannot be used.
    #[error(transparent)]
    Settings(#[from] CloudsError),
}

/// The settings of one cloud: the one named, else by `OS_CLOUD`, else of `OS_*`, else the only one there is.
pub fn load(
    place: &Place,
    name: Option<&str>,
    region: Option<&str>,
) -> Result<CloudSettings, LoadCloud> {
    let clouds = first(place, CloudsFile::Clouds)?;
    let secure = first(place, CloudsFile::Secure)?;
    let public = first(place, CloudsFile::Public)?;
    fn text(found: &Option<(String, String)>) -> Option<CloudsText<'_>> {
        found.as_ref().map(|(file, text)| CloudsText { file, text })
    }
    let input = CloudsInput {
        clouds: text(&clouds),
        secure: text(&secure),
        public: text(&public),
        variables: &place.variables,
    };
    Ok(cloud(&input, name, region)?)
}

/// The first of a kind of file that is there: its name and its text.
fn first(place: &Place, file: CloudsFile) -> Result<Option<(String, String)>, LoadCloud> {
    for path in places(file, &place.variables) {
        let path = place.folder.join(path);
        match read(&path) {
            Ok(text) => return Ok(Some((path.display().to_string(), text))),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {}
            Err(source) => {
                return Err(LoadCloud::Read { path: path.display().to_string(), source });
            }
        }
    }
    Ok(None)
}

fn read(path: &Path) -> std::io::Result<String> {
    // One byte more than may be: what is too long is then refused where its limit is known.
    let limit = u64::try_from(CLOUDS_FILE_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    let mut text = String::new();
    std::fs::File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_in_their_order() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("home/.config/openstack");
        std::fs::create_dir_all(&home).unwrap();
        let at_home = "clouds: {a: {auth: {auth_url: 'http://home', token: x}}}";
        std::fs::write(home.join("clouds.yml"), at_home).unwrap();
        let home = folder.path().join("home").display().to_string();
        let place = Place {
            variables: [("HOME".to_owned(), home)].into(),
            folder: folder.path().to_owned(),
        };
        assert_eq!(load(&place, None, None).unwrap().auth_url, "http://home");
        std::fs::write(folder.path().join("clouds.yaml"), at_home.replace("home", "here")).unwrap();
        assert_eq!(load(&place, Some("a"), Some("r")).unwrap().auth_url, "http://here");
        std::fs::write(folder.path().join("clouds.yaml"), "clouds: 5").unwrap();
        let error = load(&place, None, None).unwrap_err().to_string();
        assert!(error.contains("clouds.yaml:1:9: clouds: it must be a map"), "{error}");
        std::fs::write(folder.path().join("clouds.yaml"), [0xff]).unwrap();
        assert!(matches!(load(&place, None, None), Err(LoadCloud::Read { .. })));
    }
}
