//! What is said: a line for each thing that was proven, with how long it took, and at the end a verdict.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

use crate::error::{Outcome, TierError};

/// The version of the document.
const SCHEMA_VERSION: u32 = 1;

/// One scenario's outcome.
#[derive(Clone, Debug, Serialize)]
struct Line {
    name: String,
    ok: bool,
    seconds: f64,
    /// What was proven, or what was wrong.
    detail: String,
}

/// The document, also written as report.json beside the logs.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    schema_version: u32,
    ok: bool,
    lines: Vec<Line>,
    #[serde(skip)]
    logs: PathBuf,
    #[serde(skip)]
    began: Instant,
}

impl Report {
    /// An empty one, of which nothing is wrong.
    #[must_use]
    pub fn new(logs: &Path) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            ok: true,
            lines: Vec::new(),
            logs: logs.to_owned(),
            began: Instant::now(),
        }
    }

    /// Tells the outcome of a scenario: what it proved.
    pub fn tell(&mut self, name: &str, began: Instant, outcome: &Outcome<String>) {
        let (ok, detail) = match outcome {
            Ok(proven) => (true, proven.clone()),
            Err(error) => (false, error.to_string()),
        };
        let seconds = began.elapsed().as_secs_f64();
        self.say(&format!("{}  {seconds:6.1} s  {name}: {detail}", if ok { "ok    " } else { "FAILED" }));
        self.ok &= ok;
        self.lines.push(Line { name: name.to_owned(), ok, seconds, detail });
    }

    /// Tells the outcome of a step without which nothing else can be done.
    pub fn step<T>(&mut self, name: &str, began: Instant, outcome: Outcome<T>) -> Outcome<T> {
        match outcome {
            Ok(value) => {
                self.tell(name, began, &Ok("up".to_owned()));
                Ok(value)
            }
            Err(error) => {
                self.say(&format!("logs are in {}", self.logs.display()));
                Err(error)
            }
        }
    }

    /// Writes the document and gives the exit code.
    pub fn end(&self) -> Outcome<u8> {
        let file = self.logs.join("report.json");
        let text = serde_json::to_string_pretty(self).map_err(|error| TierError::Wrong(error.to_string()))?;
        fs::write(&file, text + "\n").map_err(TierError::io(format!("write {}", file.display())))?;
        let failed = self.lines.iter().filter(|line| !line.ok).count();
        self.say(&format!(
            "{} proven, {failed} failed, in {:.0} s{}",
            self.lines.len() - failed,
            self.began.elapsed().as_secs_f64(),
            if failed == 0 { String::new() } else { format!("; logs are in {}", self.logs.display()) }
        ));
        Ok(u8::from(!self.ok))
    }

    /// Prints a line.
    pub fn say(&self, text: &str) {
        // Whoever does not listen any more is not told.
        let _ = writeln!(std::io::stdout(), "{text}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failure_among_successes_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let mut report = Report::new(folder.path());
        report.tell("one", Instant::now(), &Ok("well".to_owned()));
        assert_eq!(report.end().unwrap(), 0);
        report.tell("two", Instant::now(), &Err(TierError::Wrong("not well".to_owned())));
        report.tell("three", Instant::now(), &Ok("well".to_owned()));
        assert_eq!(report.end().unwrap(), 1);
        let written = fs::read_to_string(folder.path().join("report.json")).unwrap();
        assert!(written.contains("not well"), "{written}");
    }
}
