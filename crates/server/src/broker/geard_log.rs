//! Where geard logs. Its `--log-config` is python's logging INI file, of which only the first
//! file handler's path and the root logger's level mean something here.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tracing_subscriber::filter::LevelFilter;

/// Where a daemon logs without `--log-config`.
const DEFAULT_FILE: &str = "/var/log/geard/geard.log";

/// Why the log cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    /// The configuration cannot be read.
    #[error("Unable to read logging config file at {path}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
    /// The log file cannot be opened.
    #[error("opening the log file {path} failed; name another with --log-config")]
    Open {
        /// The file.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: std::io::Error,
    },
}

/// An opened destination.
#[derive(Debug)]
pub(super) struct Destination {
    file: Option<File>,
    level: LevelFilter,
}

/// Open what the arguments name: a file for a daemon, else stderr.
pub(super) fn destination(config: Option<&Path>, nodaemon: bool) -> Result<Destination, LogError> {
    let (path, level) = match config {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|source| LogError::Config { path: path.to_owned(), source })?;
            parse_config(&text)
        }
        None if nodaemon => (None, LevelFilter::DEBUG),
        None => (Some(PathBuf::from(DEFAULT_FILE)), LevelFilter::INFO),
    };
    let open = |path: PathBuf| {
        let opened = File::options().create(true).append(true).open(&path);
        opened.map_err(|source| LogError::Open { path, source })
    };
    Ok(Destination { file: path.map(open).transpose()?, level })
}

/// The first file handler's path and the root logger's level.
fn parse_config(text: &str) -> (Option<PathBuf>, LevelFilter) {
    let (mut section, mut is_file) = ("", false);
    let (mut path, mut level) = (None, LevelFilter::INFO);
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
            (section, is_file) = (name, false);
        } else if let Some((key, value)) = line.split_once('=') {
            let (key, value) = (key.trim(), value.trim());
            let handler = section.starts_with("handler_");
            if handler && key == "class" {
                is_file = value.ends_with("FileHandler");
            } else if handler && is_file && key == "args" && path.is_none() {
                let quoted = value.split(['\'', '"']).nth(1);
                path = quoted.map(PathBuf::from);
            } else if section == "logger_root" && key == "level" {
                level = match value {
                    "DEBUG" | "NOTSET" => LevelFilter::DEBUG,
                    "WARNING" | "WARN" => LevelFilter::WARN,
                    "ERROR" | "CRITICAL" => LevelFilter::ERROR,
                    _ => LevelFilter::INFO,
                };
            }
        }
    }
    (path, level)
}

/// Log there from now on. A second call, as in tests, changes nothing.
pub(super) fn start(destination: Destination) {
    let builder = tracing_subscriber::fmt().with_max_level(destination.level).with_ansi(false);
    let started = match destination.file {
        Some(file) => builder.with_writer(Mutex::new(file)).try_init(),
        None => builder.with_writer(std::io::stderr).try_init(),
    };
    drop(started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pythons_file_names_path_and_level() {
        let text = "[loggers]\nkeys=root\n[logger_root]\nlevel=WARNING\nhandlers=console,debug\n\
                    [handler_console]\nclass=StreamHandler\nargs=(sys.stdout,)\n\
                    [handler_debug]\nlevel=DEBUG\nclass=logging.handlers.RotatingFileHandler\n\
                    args=('/var/log/geard/debug.log', 'a', 100)\n";
        let (path, level) = parse_config(text);
        assert_eq!(path, Some(PathBuf::from("/var/log/geard/debug.log")));
        assert_eq!(level, LevelFilter::WARN);
        assert_eq!(parse_config(""), (None, LevelFilter::INFO));
    }
}
