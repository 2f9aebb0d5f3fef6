//! `hostgw cni install` and `uninstall`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use agent::{DROP_IN_NAMES, Paths, PluginFiles, PluginFilesError};
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

use crate::output::{Output, fail, print};

const INSTALL: &str = "\
Examples:
  hostgw cni install --to /opt/cni/bin
  hostgw cni install --to /opt/cni/bin --drop-in all

Installs hostgw-cni as DIR/hostgw, as DIR/loopback where nobody else's is there, and under the names of --drop-in in any
case. What is replaced is kept in DIR/.hostgw, for `hostgw cni uninstall`. A file is replaced as a whole: a runtime that
executes it meanwhile gets the old one or the new one. What is there already is not written again; what an earlier install
replaced, and this one does not name, is put back.

Exit codes: 0 installed; 1 a file could not be written, or DIR holds what is not understood; 2 usage.";

const UNINSTALL: &str = "\
Example:
  hostgw cni uninstall --from /opt/cni/bin

Removes what `hostgw cni install` put into DIR, and puts back what it replaced. A name that somebody else has taken since
stays as it is. Refuses while pods of this node have records, because their removal executes the plugin.

Exit codes: 0 as it was before; 1 refused, or a file could not be written; 2 usage.";

/// The plugin's files.
#[derive(Debug, Args)]
pub(crate) struct Cni {
    #[command(subcommand)]
    command: CniCommand,
}

#[derive(Debug, Subcommand)]
enum CniCommand {
    /// Put the plugin where the container runtime looks for it.
    #[command(after_help = INSTALL)]
    Install {
        /// The runtime's folder of plugins, such as /opt/cni/bin.
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// The program; `hostgw-cni` beside this one by default.
        #[arg(long, value_name = "FILE")]
        from: Option<PathBuf>,
        /// Reference plugins to stand in for, or `all`.
        #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_parser = drop_in_names())]
        drop_in: Vec<String>,
        /// What to print.
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
    /// Take the plugin away again, and put back what it replaced.
    #[command(after_help = UNINSTALL)]
    Uninstall {
        /// The runtime's folder of plugins, such as /opt/cni/bin.
        #[arg(long, value_name = "DIR")]
        from: PathBuf,
        /// Also where pods have records: their removal will fail.
        #[arg(long)]
        force: bool,
        /// Put before the path of the records.
        #[arg(long, value_name = "DIR", default_value = "/")]
        root: PathBuf,
        /// What to print.
        #[arg(short, long, value_enum, default_value = "text")]
        output: Output,
    },
}

fn drop_in_names() -> PossibleValuesParser {
    PossibleValuesParser::new(["all"].into_iter().chain(DROP_IN_NAMES))
}

/// Runs the command and gives the contract's exit code.
pub(crate) fn run(cni: &Cni) -> ExitCode {
    match &cni.command {
        CniCommand::Install { to, from, drop_in, output } => {
            let from = match from {
                Some(from) => from.clone(),
                None => match beside_this_program("hostgw-cni") {
                    Ok(from) => from,
                    Err(error) => return fail("cni install", &error, 1),
                },
            };
            tell("cni install", agent::install_plugin(&from, to, &chosen(drop_in)), *output)
        }
        CniCommand::Uninstall { from, force, root, output } => {
            let pods = agent::recorded_pods(&Paths::below(root));
            if pods > 0 && !force {
                let refused = format!(
                    "{pods} pods of this node have records, and their removal executes the plugin: drain the node first, or give --force"
                );
                return fail("cni uninstall", &refused, 1);
            }
            tell("cni uninstall", agent::uninstall_plugin(from), *output)
        }
    }
}

fn tell(command: &str, done: Result<PluginFiles, PluginFilesError>, output: Output) -> ExitCode {
    let done = match done {
        Ok(done) => done,
        Err(error) => return fail(command, &error, 1),
    };
    match print(&done, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(command, &error, 1),
    }
}

fn chosen(drop_in: &[String]) -> BTreeSet<String> {
    if drop_in.iter().any(|name| name == "all") {
        return DROP_IN_NAMES.map(str::to_owned).into();
    }
    drop_in.iter().cloned().collect()
}

fn beside_this_program(name: &str) -> std::io::Result<PathBuf> {
    Ok(std::env::current_exe()?.parent().unwrap_or(Path::new("/")).join(name))
}
