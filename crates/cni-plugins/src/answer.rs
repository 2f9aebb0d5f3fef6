//! What goes out of a call: the answer on standard output, once, and words for people to the log file, or to standard
//! error.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use cni_spec::{LogConf, LogLevel};

/// The way out of one call.
#[derive(Debug)]
pub(crate) struct Answer {
    log: LogConf,
    /// Verb, container and interface, in front of every line.
    call: String,
    began: Instant,
}

impl Answer {
    /// For a call that is described by `call` in the log.
    pub(crate) fn new(call: String) -> Self {
        Self { log: LogConf::default(), call, began: Instant::now() }
    }

    /// From now on, log there.
    pub(crate) fn log_to(&mut self, log: LogConf) {
        self.log = log;
    }

    /// Writes the answer of the call. Not through the standard library's buffer: that keeps what could not be written,
    /// and would send it off in front of the error that follows.
    pub(crate) fn give(&mut self, json: &str) -> io::Result<()> {
        let line = format!("{json}\n");
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(io::stdout(), rest))?;
            rest = &rest[written..];
        }
        Ok(())
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

    /// Why something is as it is, and how long after the call's beginning; made up only where it is logged.
    pub(crate) fn explain(&mut self, message: impl FnOnce() -> String) {
        if self.log.level >= LogLevel::Debug && self.log.file.is_some() {
            let after = self.began.elapsed();
            self.line(LogLevel::Debug, "debug", &format!("{} (after {} µs)", message(), after.as_micros()));
        }
    }

    /// A log that cannot be written must not fail a pod. What goes to standard error is what a person must hear of:
    /// failures are in the answer, and runtimes log this at their own level.
    fn line(&mut self, level: LogLevel, name: &str, message: &str) {
        if level > self.log.level {
            return;
        }
        let message = printable(message);
        let unwritten = match &self.log.file {
            Some(path) => append(path, &format!("{} {name} {} {message}\n", now(), self.call)).err(),
            None => None,
        };
        if let (Some(error), Some(path)) = (&unwritten, &self.log.file) {
            // Told once.
            tell(&self.call, &format!("`logFile` {} cannot be written: {error}", path.display()));
            self.log.file = None;
        }
        if level == LogLevel::Warn && self.log.file.is_none() {
            tell(&self.call, &message);
        }
    }
}

fn tell(call: &str, message: &str) {
    let line = format!("hostgw: warn {call} {}\n", printable(message));
    // Nobody is left to tell where standard error is gone.
    io::stderr().lock().write_all(line.as_bytes()).ok();
}

/// One line, whatever it quotes.
fn printable(message: &str) -> String {
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Seconds since 1970, with microseconds.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    format!("{}.{:06}", since.as_secs(), since.subsec_micros())
}

/// One `write` to a file opened for appending, so that lines of concurrent calls do not mix. A FIFO that nobody reads
/// would hold the call for ever, so it is neither waited for nor written.
fn append(path: &Path, line: &str) -> io::Result<()> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let mut file = OpenOptions::new().create(true).append(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file; name one"));
    }
    file.write_all(line.as_bytes())
}
