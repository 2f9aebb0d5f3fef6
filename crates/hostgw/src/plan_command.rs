//! `hostgw plan`.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use clap::Args;

use crate::node_arguments::Node;
use crate::output::{Output, fail, print};

const EXAMPLES: &str = "\
Examples:
  hostgw plan --source file:/etc/hostgw/nodes.yaml --node-name node1
  hostgw plan --source file:/etc/hostgw/nodes.yaml --node-name node1 -o json | jq .changes

Exit codes: 0 nothing to change; 10 there are changes; 2 usage or settings; 3 the source was not read; 4 no permission.";

/// Show what the agent would change on this node, and why, without changing anything.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Plan {
    #[command(flatten)]
    node: Node,
    /// What to print (`hostgw schema plan` describes the document).
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// There are changes.
const CHANGES: u8 = 10;

/// Runs the command and gives the contract's exit code.
pub(crate) fn run(command: &Plan) -> ExitCode {
    let options = match command.node.options(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) {
        Ok(options) => options,
        Err(error) => return fail("plan", &error, 2),
    };
    let document = match agent::plan(&options) {
        Ok(document) => document,
        Err(error) => return fail("plan", &error, error.exit_code()),
    };
    match print(&document, command.output) {
        Ok(()) if document.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(CHANGES),
        Err(error) => fail("plan", &error, 1),
    }
}
