//! `hostgw uninstall`.

use std::process::ExitCode;

use clap::Args;

use crate::node_arguments::Files;
use crate::output::{fail, print_text};

const EXAMPLES: &str = "\
Examples:
  hostgw uninstall            once the agent is stopped and the node is drained
  hostgw uninstall --force    also where pods live

Removes the CNI configuration, routes (protocols 104 and 105), nftables tables, accept rules in iptables' chains,
records and state, and puts sysctls back to what they were before. Then looks again, and names what is left.

Exit codes: 0 nothing of hostgw is left; 1 refused, or something is left; 2 usage or settings; 4 no permission.";

/// Take everything of hostgw off this node. Refuses while pods live here.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Uninstall {
    #[command(flatten)]
    files: Files,
    /// Also where pods live: they lose their network.
    #[arg(long)]
    force: bool,
}

/// Runs the command and gives the contract's exit code.
pub(crate) fn run(command: &Uninstall) -> ExitCode {
    let settings = match command.files.settings() {
        Ok(settings) => settings,
        Err(error) => return fail("uninstall", &error, 2),
    };
    let report = match agent::uninstall(&settings, &command.files.paths(), command.force) {
        Ok(report) => report,
        Err(error) => return fail("uninstall", &error, error.exit_code()),
    };
    let mut text: String = report.done.iter().map(|done| format!("{done}\n")).collect();
    text += &report.failed.iter().map(|failed| format!("failed: {failed}\n")).collect::<String>();
    text += &report.left.iter().map(|left| format!("left: {left}\n")).collect::<String>();
    if report.is_clean() {
        text += "nothing of hostgw is left\n";
    }
    match print_text(&text) {
        Ok(()) => ExitCode::from(u8::from(!report.is_clean())),
        Err(error) => fail("uninstall", &error, 1),
    }
}
