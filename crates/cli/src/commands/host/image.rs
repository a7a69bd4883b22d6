//! `toci host image build`.

use super::deploy::unit;
use super::program::Program;
use super::story::Story;
use super::template::STATE;
use crate::args::ImageBuildArgs;
use crate::error::{CliError, Result};
use crate::exit::Exit;
use crate::output;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use toci_server::te_image::{ELEMENT, TeImage, build as build_image};

pub(super) async fn build(json: bool, args: ImageBuildArgs) -> Result<ExitCode> {
    let (folder, name) = place(&args.output)?;
    let program = Program::open(args.binary.as_deref())?;
    let elements_path = elements(args.elements)?;
    let failed = |e| CliError::failed("write the unit of the image", &e);
    std::fs::create_dir_all(&folder).map_err(failed)?;
    let unit_file = folder.join(format!(".{name}.service"));
    std::fs::write(&unit_file, unit(STATE)).map_err(failed)?;
    let log = folder.join(format!("{name}.log"));
    let mut story = Story::new(&name);
    story.tell(&format!("building; its log is {}", log.display()));
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let image = TeImage {
        program: absolute(&program.path),
        version: program.version.to_string(),
        unit: absolute(&unit_file),
        elements_path,
        release: args.release,
        elements: args.element,
    };
    let built = build_image(image, &folder, &name, &log).await;
    // It is in the image.
    let _ = std::fs::remove_file(&unit_file);
    let built = built.map_err(|e| CliError::new(Exit::Failed, e.to_string(), ""))?;
    let seconds = story.seconds();
    if json {
        let version = program.version;
        output::json(
            &serde_json::json!({ "image": built, "version": version, "seconds": seconds }),
        )?;
    } else {
        output::text_line(&format!("{} with toci-host {}", built.display(), program.version))?;
    }
    Ok(Exit::Ok.into())
}

fn place(output: &Path) -> Result<(PathBuf, String)> {
    let bad =
        || CliError::usage("--output is no name of a qcow2 file", "for example te-host.qcow2");
    let path = std::path::absolute(output).map_err(|e| CliError::failed("find --output", &e))?;
    let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".qcow2"));
    let name = name.filter(|n| !n.is_empty()).ok_or_else(bad)?.to_owned();
    Ok((path.parent().ok_or_else(bad)?.to_owned(), name))
}

/// The folder that our element is in.
fn elements(named: Option<PathBuf>) -> Result<PathBuf> {
    const NAME: &str = "elements";
    let around = std::env::current_exe().ok();
    let around = around.iter().flat_map(|exe| exe.ancestors()).map(|folder| folder.join(NAME));
    let mut candidates: Vec<PathBuf> = match named {
        Some(folder) => vec![folder],
        None => std::iter::once(PathBuf::from(NAME)).chain(around).collect(),
    };
    candidates.retain(|folder| folder.join(ELEMENT).is_dir());
    let found = candidates.first().and_then(|folder| folder.canonicalize().ok());
    found.ok_or_else(|| {
        let hint = "run it in the source tree, or name its folder `elements` with --elements";
        CliError::usage(format!("the element {ELEMENT} is not there"), hint)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use toci_core::deploy::PACKAGES;

    #[test]
    fn the_element_installs_what_deploy_does() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../elements");
        assert_eq!(
            elements(Some(folder.into())).unwrap(),
            Path::new(folder).canonicalize().unwrap()
        );
        let list =
            std::fs::read_to_string(format!("{folder}/{ELEMENT}/package-installs.yaml")).unwrap();
        for package in PACKAGES {
            assert!(list.lines().any(|l| l == format!("{package}:")), "{package}");
        }
        assert!(elements(Some("/nowhere".into())).unwrap_err().hint.contains("--elements"));
    }

    #[test]
    fn an_image_has_a_name_and_a_folder() {
        let (folder, name) = place(Path::new("/a/b.qcow2")).unwrap();
        assert_eq!((folder.as_path(), name.as_str()), (Path::new("/a"), "b"));
        assert!(place(Path::new("/a/.qcow2")).is_err() && place(Path::new("/a/b.raw")).is_err());
    }
}
