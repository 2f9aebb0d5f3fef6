//! `hostgw status`.

use std::process::ExitCode;

use clap::Args;

use crate::node_arguments::Files;
use crate::output::{Output, fail, print};

const EXAMPLES: &str = "\
Examples:
  hostgw status
  hostgw status -o json | jq '.peers[] | select(.state != \"routed\")'

Exit codes: 0 all is as it should be, verified by look-ups in the kernel; 1 something is not, or the agent does not run or hangs;
3 the source was not read. After `hostgw agent --once` no agent need run.";

/// Show what the agent on this node last found.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Status {
    #[command(flatten)]
    files: Files,
    /// What to print (`hostgw schema status` describes the document).
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the command and gives the contract's exit code.
pub(crate) fn run(command: &Status) -> ExitCode {
    let paths = command.files.paths();
    let state = match agent::read_state(&paths.state_file()) {
        Ok(state) => state,
        Err(error) => return fail("status", &error, 1),
    };
    if let Err(error) = print(&state, command.output) {
        return fail("status", &error, 1);
    }
    match agent::is_running(&paths) {
        Ok(true)
            if !state.once
                && let Some(seconds) = state.silent_for() =>
        {
            eprintln!(
                "hostgw status: the agent (process {}) runs and has made no pass for {seconds} s: see its log, and restart it",
                state.pid
            );
            ExitCode::from(state.exit_code().max(1))
        }
        Ok(running) if running || state.once => ExitCode::from(state.exit_code()),
        Ok(_) => {
            eprintln!("hostgw status: no agent runs; this is what its last pass found");
            ExitCode::from(state.exit_code().max(1))
        }
        Err(error) => fail("status", &error, 1),
    }
}
