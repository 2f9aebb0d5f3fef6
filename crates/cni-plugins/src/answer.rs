//! What goes out of a call: the answer on standard output, once, and words for people to the log file.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use cni_spec::{LogConf, LogLevel};

/// The way out of one call.
#[derive(Debug)]
pub(crate) struct Answer {
    log: LogConf,
    /// Verb, container and interface, in front of every line.
    call: String,
}

impl Answer {
    /// For a call that is described by `call` in the log.
    pub(crate) fn new(call: String) -> Self {
        Self { log: LogConf::default(), call }
    }

    /// From now on, log there.
    pub(crate) fn log_to(&mut self, log: LogConf) {
        self.log = log;
    }

    /// Writes the answer of the call.
    pub(crate) fn give(&mut self, json: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(json.as_bytes())?;
        out.write_all(b"\n")?;
        out.flush()
    }

    /// Something went wrong that does not fail the call.
    pub(crate) fn warn(&mut self, message: &str) {
        self.line(LogLevel::Warn, "warn", message);
    }

    /// The call failed.
    pub(crate) fn error(&mut self, message: &str) {
        self.line(LogLevel::Error, "error", message);
    }

    /// Something was done.
    pub(crate) fn inform(&mut self, message: &str) {
        self.line(LogLevel::Info, "info", message);
    }

    /// One `write` to a file opened for appending, so that lines of concurrent calls do not mix. A log that cannot be
    /// written must not fail a pod.
    fn line(&mut self, level: LogLevel, name: &str, message: &str) {
        let Some(path) = self.log.file.as_ref().filter(|_| level <= self.log.level) else { return };
        let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line =
            format!("{}.{:06} {name} {} {message}\n", since.as_secs(), since.subsec_micros(), self.call);
        Self::append(path, line.as_bytes()).ok();
    }

    fn append(path: &PathBuf, line: &[u8]) -> io::Result<()> {
        OpenOptions::new().create(true).append(true).open(path)?.write_all(line)
    }
}
