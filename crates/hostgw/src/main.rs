//! The `hostgw` program: one subcommand a file.

mod agent_command;
mod cni_command;
mod lab_command;
mod log;
mod node_arguments;
mod output;
mod plan_command;
mod podcidr_command;
mod schema_command;
mod status_command;
mod uninstall_command;
mod uplink_command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  hostgw lab                                                    see it work, on this machine, touching nothing of it
  hostgw plan --source file:/etc/hostgw/nodes.yaml --node-name node1
  hostgw agent --source kubernetes --node-name node1
  hostgw status
  hostgw uplink join --link eth0 --bridge br0 --dry-run

`hostgw COMMAND --help` has more, and each command's exit codes.";

/// Kubernetes pod networking with plain Linux routes.
#[derive(Debug, Parser)]
#[command(name = "hostgw", version, max_term_width = 100, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Agent(agent_command::Agent),
    Cni(cni_command::Cni),
    Lab(lab_command::Lab),
    Plan(plan_command::Plan),
    Podcidr(podcidr_command::PodCidr),
    Schema(schema_command::Schema),
    Status(status_command::Status),
    Uninstall(uninstall_command::Uninstall),
    Uplink(uplink_command::Uplink),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Agent(agent) => agent_command::run(&agent),
        Command::Cni(cni) => cni_command::run(&cni),
        Command::Lab(lab) => lab_command::run(lab),
        Command::Plan(plan) => plan_command::run(&plan),
        Command::Podcidr(podcidr) => podcidr_command::run(&podcidr),
        Command::Schema(schema) => schema_command::run(&schema),
        Command::Status(status) => status_command::run(&status),
        Command::Uninstall(uninstall) => uninstall_command::run(&uninstall),
        Command::Uplink(uplink) => uplink_command::run(&uplink),
    }
}
