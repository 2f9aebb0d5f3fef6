//! The conformance tier: our drop-in plugins and the reference's, executed as a runtime does; same inputs, compared
//! outcomes. Every difference is one that docs/compatibility.md lists, and every one that it lists is there.

mod case;
mod cases;
mod compare;
mod error;
mod keys;
mod listed;
mod neutral;
mod picture;
mod planted;
mod probe;
mod programs;
mod report;
mod runtime;
mod scene;
mod suite;
mod trial;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Executes our plugins and the reference's, and compares what they come to.
#[derive(Debug, Parser)]
struct Options {
    /// The program that all our plugins are.
    #[arg(long)]
    plugin: PathBuf,
    /// The reference's pinned release.
    #[arg(long)]
    reference: PathBuf,
    /// Debian's package of the reference, unpacked.
    #[arg(long)]
    debian: Option<PathBuf>,
    /// The page that lists the differences on purpose.
    #[arg(long, default_value = "docs/compatibility.md")]
    page: PathBuf,
    /// How many cases are tried at once.
    #[arg(long, default_value_t = 6)]
    jobs: usize,
    /// Prints the story of each case instead: one document a run.
    #[arg(long)]
    tell: bool,
    /// Plants faults in our plugins instead; each must be found.
    #[arg(long)]
    planted: bool,
    /// Only the cases whose names contain one of these words.
    cases: Vec<String>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match suite::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            report::line(&format!("conformance: {error}"));
            ExitCode::from(2)
        }
    }
}
