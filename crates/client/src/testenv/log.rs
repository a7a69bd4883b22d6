//! Log lines as Python's logging wrote them: `asctime - name - level - message`, on standard error.

use std::io::Write as _;

/// Writes log lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Log {
    pub(super) name: &'static str,
    pub(super) debug: bool,
}

impl Log {
    fn line(self, level: &str, message: &str) {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S,%3f");
        // Nowhere is left to complain when this fails.
        let _ = writeln!(std::io::stderr(), "{now} - {} - {level} - {message}", self.name);
    }

    pub(super) fn debug(self, message: &str) {
        if self.debug {
            self.line("DEBUG", message);
        }
    }

    pub(super) fn info(self, message: &str) {
        self.line("INFO", message);
    }

    pub(super) fn warning(self, message: &str) {
        self.line("WARNING", message);
    }

    pub(super) fn error(self, message: &str) {
        self.line("ERROR", message);
    }
}
