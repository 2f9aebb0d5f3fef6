//! The program in the test's pods; under the name `pause`, that of their sandboxes.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;

use clap::{Parser, Subcommand};
use cluster_tier::pod::ask::{Target, ask_all};
use cluster_tier::pod::serve::serve;
use cluster_tier::pod::stream::{counts, stream};
use cluster_tier::pod::{COUNTS_PORT, PORT};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer over TCP and UDP, and keep a stream of packets going to the servers that are named.
    Serve {
        #[arg(long, env = "HOSTNAME")]
        name: String,
        #[arg(long, default_value_t = PORT)]
        port: u16,
        #[arg(long = "stream-to")]
        servers: Vec<SocketAddr>,
    },
    /// Ask each target once and print the answers as JSON.
    Ask { targets: Vec<Target> },
    /// Print what became of the stream.
    Counts,
}

fn main() -> ExitCode {
    if std::env::args().next().is_some_and(|name| name.ends_with("pause")) {
        loop {
            thread::park();
        }
    }
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cluster-pod: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> io::Result<()> {
    match command {
        Command::Serve { name, port, servers } => {
            if !servers.is_empty() {
                thread::spawn(move || stream(&servers, COUNTS_PORT));
            }
            serve(&name, port)
        }
        Command::Ask { targets } => {
            writeln!(io::stdout(), "{}", serde_json::to_string(&ask_all(&targets))?)
        }
        Command::Counts => writeln!(io::stdout(), "{}", counts(COUNTS_PORT)?),
    }
}
