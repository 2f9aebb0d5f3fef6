//! `hostgw-bench`: measures hostgw against the reference plugins, `ip -batch` and the kernel's floor, in namespaces of
//! its own. `docs/performance.md` says how to read what it prints.

mod agent_process;
mod chains;
mod clock;
mod cluster_file;
mod conflist;
mod error;
mod exec;
mod first_packet;
mod node;
mod peak_memory;
mod programs;
mod rows;
mod side;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use bench::{Report, Row};
use clap::{Parser, ValueEnum};

use crate::error::{Attempting, BenchError};
use crate::node::Home;
use crate::programs::Programs;

const HELP: &str = "\
Needs root, or `unshare --user --map-root-user`; iproute2, nftables and a C compiler. Nothing outside of its own
namespaces is touched. The reference plugins are built by `tests/reference/build`.

Exit codes: 0 measured; 1 something could not be measured, or with --check is over its budget; 2 usage.";

/// Measure hostgw against the reference plugins, `ip -batch` and the kernel's floor.
#[derive(Debug, Parser)]
#[command(name = "hostgw-bench", version, after_help = HELP)]
struct Arguments {
    /// What to print.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Fail where a budget is not kept, or a row was not measured.
    #[arg(long)]
    check: bool,
    /// Measure only these subjects.
    #[arg(long, value_enum, value_name = "NAME")]
    only: Vec<Subject>,
    /// ADDs and DELs of each side; the other rows take fewer in proportion.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(5..))]
    rounds: u16,
    /// Where `hostgw` and `hostgw-cni` are; beside this program by default.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Where the reference plugins are.
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// The measurements' own floor.
    #[arg(long, value_name = "FILE", default_value = "../shared/bench/floor.c")]
    given_floor: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// What can be measured by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// ADD and DEL of one pod.
    Attach,
    /// 200 ADDs at once.
    AtOnce,
    /// ADD on a node with a thousand pods.
    Crowded,
    /// The drop-in plugins in the chains of today's configurations.
    DropIn,
    /// The drop-in plugins on a node with a thousand pods.
    DropInCrowded,
    /// The plugin's peak memory.
    Memory,
    /// 10,000 routes.
    Routes,
    /// One changed node among 10,000, and heartbeats.
    Change,
    /// 100,000 foreign routes.
    Foreign,
    /// A route deleted by hand.
    Repair,
    /// The idle agent.
    Idle,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(report) => match print(&report, arguments.output) {
            Err(error) => fail(&error),
            Ok(()) if arguments.check && report.missed().next().is_some() => ExitCode::FAILURE,
            Ok(()) => ExitCode::SUCCESS,
        },
        Err(error) => fail(&error),
    }
}

fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("hostgw-bench: {error}");
    ExitCode::FAILURE
}

fn measure(arguments: &Arguments) -> Result<Report, BenchError> {
    let bin_dir = match &arguments.bin_dir {
        Some(folder) => folder.clone(),
        None => {
            let own = std::env::current_exe().attempting("find this program")?;
            own.parent().map(ToOwned::to_owned).unwrap_or_default()
        }
    };
    let programs = Programs::prepare(&bin_dir, &arguments.given_floor, arguments.reference.clone())?;
    // On a busy machine this disturbs all sides less, and alike; only root may, and it is no condition.
    let _ = rustix::process::setpriority_process(None, -20);
    let home = Home::here()?;
    let mut rows = Vec::new();
    for subject in Subject::value_variants() {
        if arguments.only.is_empty() || arguments.only.contains(subject) {
            let name =
                subject.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned());
            eprintln!("hostgw-bench: measuring {name}");
            rows.extend(subject.rows(&home, &programs, usize::from(arguments.rounds))?);
        }
    }
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    Ok(Report::new(kernel, cpus, rows))
}

impl Subject {
    /// Fewer rounds than the default make crowds smaller, too, so that a short run is short.
    fn rows(self, home: &Home, programs: &Programs, rounds: usize) -> Result<Vec<Row>, BenchError> {
        let whole = |count: usize| count.min(count * rounds / 100).max(10);
        match self {
            Self::Attach => rows::attach::rows(home, programs, rounds),
            Self::AtOnce => rows::at_once::rows(home, programs, whole(200)),
            Self::Crowded => rows::crowded::rows(home, programs, whole(1_000), rounds.min(50)),
            Self::DropIn => rows::drop_in::rows(home, programs, rounds),
            Self::DropInCrowded => rows::crowded::drop_in(home, programs, whole(1_000), rounds.min(50)),
            Self::Memory => rows::memory::rows(home, programs),
            Self::Routes => rows::routes::rows(home, programs, rounds.div_ceil(20)),
            Self::Change => rows::agent::change(home, programs, whole(10_000)),
            Self::Foreign => rows::agent::foreign_routes(home, programs, whole(100_000)),
            Self::Repair => rows::agent::repair(home, programs, rounds.min(40)),
            Self::Idle => rows::agent::idle(home, programs, (rounds / 5).clamp(2, 20) as u64),
        }
    }
}

/// A reader that has seen enough is no failure.
fn print(report: &Report, output: Output) -> Result<(), BenchError> {
    let text = match output {
        Output::Text => report.to_string(),
        Output::Json => serde_json::to_string_pretty(report).attempting("write the report")? + "\n",
    };
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).attempting("print the report"),
        _ => Ok(()),
    }
}
