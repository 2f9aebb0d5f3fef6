//! What the commands print: for people, or one JSON document.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// What to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// One document.
    Json,
}

/// Prints a document. A reader that has seen enough is no failure.
pub(crate) fn print(document: &(impl Serialize + std::fmt::Display), output: Output) -> io::Result<()> {
    let text = match output {
        Output::Text => document.to_string(),
        Output::Json => serde_json::to_string_pretty(document).map_err(io::Error::from)? + "\n",
    };
    print_text(&text)
}

/// Prints a text.
pub(crate) fn print_text(text: &str) -> io::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Prints an error of a command, and gives its exit code.
pub(crate) fn fail(command: &str, error: &dyn std::fmt::Display, code: u8) -> std::process::ExitCode {
    eprintln!("hostgw {command}: {error}");
    std::process::ExitCode::from(code)
}
