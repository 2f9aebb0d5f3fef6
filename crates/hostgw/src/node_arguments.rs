//! What every command about this node takes: where nodes, settings and files are.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use agent::source::SourceAddress;
use agent::{ConfigError, Location, Options, Paths, read_settings};
use clap::Args;
use node_network::{NodeName, Settings};

/// Where settings and files are.
#[derive(Debug, Args)]
pub(crate) struct Files {
    /// Settings; /etc/hostgw/config.yaml if it exists.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Put before every path of the agent, and of the state that the plugin is told; not before cni.logFile.
    #[arg(long, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Where the node's /proc/sys/net can be written, for a container whose own is read-only: DIR/net.
    #[arg(long, value_name = "DIR", default_value = "/proc/sys")]
    sysctls: PathBuf,
}

impl Files {
    pub(crate) fn paths(&self) -> Paths {
        // A relative root would move with whoever reads the CNI configuration. This fails only without a current folder.
        Paths::below(std::path::absolute(&self.root).unwrap_or_else(|_| self.root.clone()))
            .with_sysctls(absolute(&self.sysctls))
    }

    pub(crate) fn settings(&self) -> Result<Settings, ConfigError> {
        let paths = self.paths();
        let given = self.config.as_deref().map(|path| paths.on_node(&absolute(path)));
        read_settings(given.as_deref(), &paths.config())
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Which cluster, where it is asked by its API.
#[derive(Debug, Args)]
pub(crate) struct Cluster {
    /// Kubeconfig of the API server, read anew for each connection; without it, this is a pod of the cluster.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig other than its current one.
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,
}

impl Cluster {
    pub(crate) fn location(&self) -> Location {
        match &self.kubeconfig {
            None => Location::InCluster,
            Some(path) => Location::Kubeconfig { path: absolute(path), context: self.context.clone() },
        }
    }
}

/// Which node this is, and who tells.
#[derive(Debug, Args)]
pub(crate) struct Node {
    /// Where the nodes are read from: `kubernetes`, the cluster's API, or file:PATH, a list of Kubernetes Node objects
    /// (YAML or JSON).
    #[arg(long, value_name = "SOURCE")]
    source: SourceAddress,
    #[command(flatten)]
    cluster: Cluster,
    /// This node's name among them.
    #[arg(long, value_name = "NAME", env = "NODE_NAME")]
    node_name: NodeName,
    #[command(flatten)]
    files: Files,
}

impl Node {
    pub(crate) fn options(&self, listen: SocketAddr) -> Result<Options, ConfigError> {
        let source = match &self.source {
            SourceAddress::File(path) => SourceAddress::File(absolute(path)),
            SourceAddress::Kubernetes(_) => SourceAddress::Kubernetes(self.cluster.location()),
        };
        Ok(Options {
            source,
            node_name: self.node_name.clone(),
            settings: self.files.settings()?,
            paths: self.files.paths(),
            listen,
        })
    }
}
