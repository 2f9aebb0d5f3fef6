//! What the command line says.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::scale::Scale;

/// Where programs and images are, and what is to be done.
#[derive(Args, Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// Folder of etcd, Kubernetes' programs, containerd, runc and helm, as tests/cluster/programs/build prints it.
    #[arg(long, value_name = "DIR")]
    pub programs: PathBuf,
    /// Folder of the images: hostgw.tar, hostgw-next.tar, pod.tar, pause.tar.
    #[arg(long, value_name = "DIR")]
    pub images: PathBuf,
    /// The chart that is installed.
    #[arg(long, value_name = "DIR")]
    pub chart: PathBuf,
    /// Where logs are written; a folder that is emptied first.
    #[arg(long, value_name = "DIR")]
    pub logs: PathBuf,
    /// When all is said, leave the cluster running until Ctrl-C, and tell how to look around in it.
    #[arg(long)]
    pub keep: bool,
    /// Only these scenarios, by name; all by default.
    #[arg(value_name = "SCENARIO")]
    pub scenarios: Vec<String>,
}

/// What is to be done with a cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    /// Scenarios are to be proven on two nodes.
    Prove(Options),
    /// One agent is to be measured before many Nodes.
    Measure(Scale),
}

impl Task {
    /// Folder of programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        match self {
            Self::Prove(options) => &options.programs,
            Self::Measure(scale) => &scale.programs,
        }
    }

    /// Folder of logs.
    #[must_use]
    pub fn logs(&self) -> &Path {
        match self {
            Self::Prove(options) => &options.logs,
            Self::Measure(scale) => &scale.logs,
        }
    }
}
