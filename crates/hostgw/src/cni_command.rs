//! `hostgw cni install`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use crate::output::{fail, print_text};

const EXAMPLES: &str = "\
Example:
  hostgw cni install --to /opt/cni/bin

Installs hostgw-cni as DIR/hostgw, and as DIR/loopback where nobody else's is there. A file is replaced as a whole: a
runtime that executes it meanwhile gets the old one or the new one. What is there already is not written again.

Exit codes: 0 installed; 1 a file could not be written; 2 usage.";

/// The plugin's files.
#[derive(Debug, Args)]
pub(crate) struct Cni {
    #[command(subcommand)]
    command: CniCommand,
}

#[derive(Debug, Subcommand)]
enum CniCommand {
    /// Put the plugin where the container runtime looks for it.
    #[command(after_help = EXAMPLES)]
    Install {
        /// The runtime's folder of plugins, such as /opt/cni/bin.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// The program; `hostgw-cni` beside this one by default.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
    },
}

/// Runs the command and gives the contract's exit code.
pub(crate) fn run(cni: &Cni) -> ExitCode {
    let CniCommand::Install { to, from } = &cni.command;
    let from = match from {
        Some(from) => from.clone(),
        None => match beside_this_program("hostgw-cni") {
            Ok(from) => from,
            Err(error) => return fail("cni install", &error, 1),
        },
    };
    let installed = match agent::install_plugin(&from, to) {
        Ok(installed) => installed,
        Err(error) => return fail("cni install", &error, 1),
    };
    let lines = |what: &str, files: &[PathBuf]| -> String {
        files.iter().map(|file| format!("{what} {}\n", file.display())).collect()
    };
    let text = lines("installed", &installed.written)
        + &lines("up to date:", &installed.kept)
        + &lines("left alone, it is not ours:", &installed.foreign);
    match print_text(&text) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("cni install", &error, 1),
    }
}

fn beside_this_program(name: &str) -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().unwrap_or(Path::new("/")).join(name))
}
