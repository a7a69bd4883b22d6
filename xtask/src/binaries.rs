//! Test binaries: cargo builds them, they run here, as many at once as there are cores. Most of what they do is waiting,
//! for machines to boot and limits to pass, so one after the other would leave half of the machine idle.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::cargo::{cargo, target_dir};
use crate::shell;
use crate::test::Count;

/// One binary.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Binary {
    /// Package and target, such as `toci-server http`.
    name: String,
    program: PathBuf,
    /// Folder of its package: where cargo would run it.
    folder: PathBuf,
    /// Tests of a whole crate or program, rather than unit tests: these take longest, so they begin first.
    whole: bool,
}

/// How one ended.
struct Ended {
    took: Duration,
    text: String,
    count: Count,
}

/// Builds all test binaries of the workspace but those of `without`, runs them, prints what each says when it has ended.
///
/// # Errors
/// Something does not compile, or a binary cannot be started.
pub(crate) fn run(without: &[&str]) -> Result<Count> {
    let queue = Mutex::new(built(without)?);
    let logs = target_dir().join("test-logs");
    std::fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    let count = Mutex::new(Count::default());
    let work = || -> Result<()> {
        loop {
            let next = locked(&queue, Vec::pop);
            let Some(binary) = next else { return Ok(()) };
            let ended = run_one(&binary, &logs)?;
            // Under the lock, so that nobody's lines come between.
            locked(&count, |count| {
                let seconds = ended.took.as_secs_f64();
                println!("{}: {}, {seconds:.1} s", binary.name, ended.count);
                if ended.count.failed > 0 {
                    println!("{}", ended.text);
                }
                count.merge(&ended.count);
            });
        }
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(result) => result,
            Err(_) => bail!("a thread that ran tests has panicked"),
        })
    })?;
    Ok(locked(&count, std::mem::take))
}

fn locked<T, R>(mutex: &Mutex<T>, act: impl FnOnce(&mut T) -> R) -> R {
    act(&mut mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}

/// Builds them. The last one begins first.
fn built(without: &[&str]) -> Result<Vec<Binary>> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--locked", "--no-run", "--quiet"]);
    command.arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    for package in without {
        command.args(["--exclude", package]);
    }
    let line = shell::describe(&command);
    let output = command.output().with_context(|| format!("starting `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}`: {}", output.status);
    }
    let messages = String::from_utf8(output.stdout).context("cargo's messages")?;
    let mut binaries =
        messages.lines().filter_map(|line| read(line).transpose()).collect::<Result<Vec<_>>>()?;
    binaries.sort_by_key(|binary| binary.whole);
    Ok(binaries)
}

/// The test binary that a message of cargo tells of, if it does.
fn read(message: &str) -> Result<Option<Binary>> {
    let message: Value = serde_json::from_str(message).with_context(|| message.to_owned())?;
    let (target, text) = (&message["target"], |value: &Value| value.as_str().map(str::to_owned));
    let tests = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
    let (Some(program), true) = (text(&message["executable"]), tests) else { return Ok(None) };
    let manifest = text(&message["manifest_path"]).context("cargo names no manifest")?;
    let folder = Path::new(&manifest).parent().context("a manifest lies in a folder")?.to_owned();
    let package = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let kind = text(&target["kind"][0]).unwrap_or_default();
    let name = text(&target["name"]).unwrap_or_default();
    let whole = kind == "test";
    let name =
        if whole { format!("{package} {name}") } else { format!("{package} {name} ({kind})") };
    Ok(Some(Binary { name, program: program.into(), folder, whole }))
}

/// Runs one; what it says goes to a file of `logs` as well, as it comes.
fn run_one(binary: &Binary, logs: &Path) -> Result<Ended> {
    let begun = Instant::now();
    let path = logs.join(format!("{}.log", binary.name.replace(' ', "-")));
    let failed = || path.display().to_string();
    let log = File::create(&path).with_context(failed)?;
    let status = Command::new(&binary.program)
        .current_dir(&binary.folder)
        .env("CARGO_MANIFEST_DIR", &binary.folder)
        .stdin(Stdio::null())
        .stdout(log.try_clone().with_context(failed)?)
        .stderr(log)
        .status()
        .with_context(|| format!("starting {}", binary.program.display()))?;
    let text = String::from_utf8_lossy(&std::fs::read(&path).with_context(failed)?).into_owned();
    let mut count = Count::default();
    text.lines().for_each(|line| count.add(line));
    // It was killed, or ended before it could say which test failed.
    if !status.success() && count.failed == 0 {
        count.failed = 1;
    }
    Ok(Ended { took: begun.elapsed(), text, count })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn test_binaries_are_told_from_the_rest_of_what_cargo_builds() {
        let message = |test: bool, kind: &str| {
            let target = json!({ "kind": [kind], "name": "http" });
            json!({
                "reason": "compiler-artifact", "profile": { "test": test }, "target": target,
                "manifest_path": "/t/crates/server/Cargo.toml", "executable": "/t/target/http-1",
            })
            .to_string()
        };
        let whole = read(&message(true, "test")).unwrap().unwrap();
        assert_eq!((whole.name.as_str(), whole.whole), ("server http", true));
        assert_eq!(whole.folder, Path::new("/t/crates/server"));
        assert!(!read(&message(true, "lib")).unwrap().unwrap().whole);
        assert_eq!(read(&message(false, "bin")).unwrap(), None);
        assert_eq!(read(r#"{"reason":"build-finished","success":true}"#).unwrap(), None);
        assert!(read("no JSON").is_err());
    }

    #[test]
    fn a_binary_that_dies_has_failed() {
        let logs = std::env::temp_dir();
        let mut binary = Binary {
            name: format!("dies {}", std::process::id()),
            program: "/bin/false".into(),
            folder: "/".into(),
            whole: false,
        };
        assert_eq!(run_one(&binary, &logs).unwrap().count.failed, 1);
        binary.program = "/bin/true".into();
        assert_eq!(run_one(&binary, &logs).unwrap().count, Count::default());
        std::fs::remove_file(logs.join(format!("dies-{}.log", std::process::id()))).unwrap();
    }
}
