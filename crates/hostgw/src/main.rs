//! The `hostgw` program: one subcommand a file.

mod lab_command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Kubernetes pod networking with plain Linux routes.
#[derive(Debug, Parser)]
#[command(name = "hostgw", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Lab(lab_command::Lab),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Lab(lab) => lab_command::run(lab),
    }
}
