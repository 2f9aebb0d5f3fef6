//! `hostgw agent`.

use std::net::SocketAddr;
use std::process::ExitCode;

use agent::Ended;
use clap::Args;

use crate::log::Log;
use crate::node_arguments::Node;
use crate::output::{Output, fail, print};

const EXAMPLES: &str = "\
Examples:
  hostgw agent --source file:/etc/hostgw/nodes.yaml --node-name node1
  hostgw agent --source file:nodes.yaml --node-name node1 --once

The nodes file may be the output of `kubectl get nodes -o yaml`; it is watched. Stopping the agent changes nothing in
the kernel: pods keep running, start and stop. `hostgw uninstall` removes what it made.

Exit codes: 0 stopped, or with --once converged; 1 partly failed; 2 usage or settings; 3 the source was not read;
4 CAP_NET_ADMIN is missing; 130 interrupted.";

/// Keep this node's routes, NAT, forwarding and CNI configuration as they must be.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Agent {
    #[command(flatten)]
    node: Node,
    /// Make one pass, print the state, and end.
    #[arg(long)]
    once: bool,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9104")]
    listen: SocketAddr,
    /// What --once prints.
    #[arg(short, long, value_enum, default_value_t = Output::Text, requires = "once")]
    output: Output,
    #[command(flatten)]
    log: Log,
}

/// Runs the command and gives the contract's exit code.
pub(crate) fn run(command: &Agent) -> ExitCode {
    command.log.start();
    let options = match command.node.options(command.listen) {
        Ok(options) => options,
        Err(error) => return fail("agent", &error, 2),
    };
    if command.once {
        return match agent::run_once(&options) {
            Ok(state) => match print(&state, command.output) {
                Ok(()) => ExitCode::from(state.exit_code()),
                Err(error) => fail("agent", &error, 1),
            },
            Err(error) => fail("agent", &error, error.exit_code()),
        };
    }
    match agent::run(&options) {
        Ok(Ended::Terminated) => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => ExitCode::from(130),
        Err(error) => fail("agent", &error, error.exit_code()),
    }
}
