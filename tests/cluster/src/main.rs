//! The `cluster-tier` program: `run`, `exec`, and what `run` starts itself as.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};
use cluster_tier::error::{Outcome, TierError};
use cluster_tier::inside::{enter, inside};
use cluster_tier::launch::{FIRST_PROCESS, launch};
use cluster_tier::node_init::{NodeInit, node_init};
use cluster_tier::options::{Options, Task};
use cluster_tier::scale::Scale;

/// hostgw on real Kubernetes: a control plane and nodes in namespaces, and what users rely on, proven with packets.
///
/// Exit codes: 0 all proven; 1 something is not as it must be; 2 usage; 4 the machine lacks something; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "cluster-tier")]
struct Cli {
    #[command(subcommand)]
    command: TierCommand,
}

#[derive(Debug, Subcommand)]
enum TierCommand {
    /// Build a cluster, install hostgw, prove, and take it down.
    Run(Options),
    /// Measure one agent before thousands of Nodes of a real API server, and print a table.
    Scale(Scale),
    /// Run a command in a cluster that was kept.
    Exec {
        /// The folder of logs of that cluster.
        #[arg(long, value_name = "DIR")]
        logs: PathBuf,
        /// control-plane, or a node: kn1, kn2.
        place: String,
        /// The command.
        #[arg(required = true, last = true)]
        words: Vec<String>,
    },
    /// The tier's first process.
    #[command(hide = true)]
    Inside,
    /// A node's first process.
    #[command(hide = true)]
    NodeInit(NodeInit),
    /// The part of exec that is done in the tier's namespaces.
    #[command(hide = true)]
    Enter {
        place: String,
        #[arg(required = true, last = true)]
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        TierCommand::Run(options) => launch(&Task::Prove(options)),
        TierCommand::Scale(scale) => launch(&Task::Measure(scale)),
        TierCommand::Exec { logs, place, words } => exec(&logs, &place, &words).map(|()| 0),
        TierCommand::Inside => inside(),
        TierCommand::NodeInit(node) => node_init(&node).map(|()| 0),
        TierCommand::Enter { place, words } => enter(&place, &words).map(|()| 0),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("cluster-tier: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

/// Becomes [`enter`] in the tier's namespaces.
fn exec(logs: &std::path::Path, place: &str, words: &[String]) -> Outcome {
    let file = logs.join(FIRST_PROCESS);
    let none = |_| TierError::Wrong(format!("no cluster was kept: {} cannot be read", file.display()));
    let process = std::fs::read_to_string(&file).map_err(none)?;
    let own = std::env::current_exe().map_err(TierError::io("find this program"))?;
    let mut command = Command::new("nsenter");
    command
        .args(["-t", process.trim(), "-m", "-p", "-n", "--"])
        .arg(own)
        .args(["enter", place, "--"])
        .args(words);
    Err(TierError::io("run nsenter")(command.exec()))
}
