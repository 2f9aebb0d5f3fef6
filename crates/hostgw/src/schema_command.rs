//! `hostgw schema`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use crate::output::{fail, print_text};

const EXAMPLES: &str = "\
Examples:
  hostgw schema status
  hostgw schema lab > lab.schema.json

Exit codes: 0 printed; 2 usage.";

/// Print the JSON Schema of a document that another command prints with `-o json`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Schema {
    /// Which command's document.
    #[arg(value_enum)]
    document: Document,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Document {
    /// Of `hostgw-bench`.
    Bench,
    /// Of `hostgw lab`.
    Lab,
    /// Of `hostgw plan`.
    Plan,
    /// Of `hostgw status`.
    Status,
}

/// Runs the command and gives the contract's exit code.
pub(crate) fn run(command: &Schema) -> ExitCode {
    let schema = match command.document {
        Document::Bench => bench::SCHEMA,
        Document::Lab => lab::report::SCHEMA,
        Document::Plan => node_network::plan::PLAN_SCHEMA,
        Document::Status => agent::STATE_SCHEMA,
    };
    match print_text(schema) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("schema", &error, 1),
    }
}
