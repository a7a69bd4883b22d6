//! A real S3-compatible store on loopback: PyPI's moto behind botocore's check of signatures. It ends with its value.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use toci_server::{LogsStore, S3Config};

/// Its versions are fixed: a newer one may want other things.
const PACKAGES: [&str; 3] = ["moto[s3]==5.1.22", "flask==3.1.3", "flask-cors==6.0.5"];

pub(crate) struct S3Store {
    child: Child,
    ask: ChildStdin,
    said: BufReader<ChildStdout>,
    endpoint: String,
    key: String,
    secret: String,
}

impl Drop for S3Store {
    fn drop(&mut self) {
        // A child of ours that has not been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl S3Store {
    pub(crate) fn start() -> S3Store {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/s3_store/server.py");
        let mut child = Command::new(python_with_moto())
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let ask = child.stdin.take().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        let empty = String::new();
        let mut store = S3Store {
            child,
            ask,
            said,
            endpoint: empty.clone(),
            key: empty.clone(),
            secret: empty,
        };
        let who = store.hear();
        let text = |name: &str| who[name].as_str().unwrap().to_owned();
        (store.endpoint, store.key, store.secret) = (text("endpoint"), text("key"), text("secret"));
        store
    }

    fn hear(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("moto said {line:?}: {e}"))
    }

    /// What another client sees: `list`, or `head KEY`. And `hold NAME`, `held`, `go`: files of this name wait.
    pub(crate) fn ask(&mut self, line: &str) -> serde_json::Value {
        writeln!(self.ask, "{line}").unwrap();
        self.hear()
    }

    pub(crate) fn secret(&self) -> &str {
        &self.secret
    }

    /// Settings that lead there; files are sent in the smallest parts that a store takes.
    pub(crate) fn config(&self, folder: &std::path::Path) -> LogsStore {
        let file = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        LogsStore::S3(S3Config {
            bucket: "toci-logs".into(),
            prefix: "ci".into(),
            endpoint: self.endpoint.clone(),
            region: "eu-test-1".into(),
            access_key_file: file("access", &self.key),
            secret_key_file: file("secret", &format!("{}\n", self.secret)),
            ca_file: None,
            staging: folder.join("staging"),
            part_bytes: 5 << 20,
        })
    }
}

/// A python with moto, installed once under target/.
fn python_with_moto() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let venv = target.parent().unwrap().join("moto-venv");
    let python = venv.join("bin/python");
    let lock = std::fs::File::create(target.join("moto-venv.lock")).unwrap();
    lock.lock().unwrap();
    let works = || {
        let call = "import boto3, moto.server";
        Command::new(&python).args(["-c", call]).output().is_ok_and(|o| o.status.success())
    };
    if !works() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
        assert!(
            made.is_ok_and(|s| s.success()),
            "python3 -m venv failed: apt-get install python3-venv"
        );
        let install = ["-m", "pip", "-q", "install"];
        let pip = Command::new(&python).args(install).args(PACKAGES).status();
        assert!(pip.is_ok_and(|s| s.success()), "pip install {PACKAGES:?} (PyPI) failed");
        assert!(works(), "moto of PyPI does not import");
    }
    python
}
