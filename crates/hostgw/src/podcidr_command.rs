//! `hostgw podcidr assign`.

use std::process::ExitCode;

use agent::{Ended, PodCidrOptions, assign_and_watch, assign_once, default_identity};
use clap::{Args, Subcommand};
use ipnet::IpNet;
use node_network::PerFamily;
use node_network::pod_cidr_allocation::{ClusterRange, ClusterRangeError, cluster_ranges};

use crate::log::Log;
use crate::node_arguments::Cluster;
use crate::output::{Output, fail, print};

const EXAMPLES: &str = "\
Examples:
  hostgw podcidr assign --kubeconfig admin.conf --cluster-cidr 10.244.0.0/16
  hostgw podcidr assign --watch --cluster-cidr 10.244.0.0/16,fd00:10:244::/48

Only for clusters in which nobody else does it (kube-controller-manager --allocate-node-cidrs does). A pod CIDR that is set
is never changed. One at a time works in a cluster: it holds the Lease hostgw-podcidr.

Exit codes: 0 done; 1 some node gets none, or another holds the Lease; 2 usage; 3 the API server cannot be asked;
130 interrupted.";

/// Give pod CIDRs to nodes.
#[derive(Debug, Args)]
pub(crate) struct PodCidr {
    #[command(subcommand)]
    command: PodCidrCommand,
}

#[derive(Debug, Subcommand)]
enum PodCidrCommand {
    Assign(Assign),
}

/// Give a pod CIDR of each family to every node that has none.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
struct Assign {
    #[command(flatten)]
    cluster: Cluster,
    /// The cluster's pod ranges, at most one a family.
    #[arg(long, value_name = "CIDR", value_delimiter = ',', required = true)]
    cluster_cidr: Vec<IpNet>,
    /// Prefix length of a node's IPv4 share.
    #[arg(long, value_name = "BITS", default_value_t = 24)]
    node_cidr_mask_size_ipv4: u8,
    /// Prefix length of a node's IPv6 share.
    #[arg(long, value_name = "BITS", default_value_t = 64)]
    node_cidr_mask_size_ipv6: u8,
    /// Go on, and give to nodes as they join.
    #[arg(long)]
    watch: bool,
    /// Namespace of the Lease.
    #[arg(long, value_name = "NAME", default_value = "kube-system")]
    lease_namespace: String,
    /// Who this is among those who could do the same; each needs another name.
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value_t = default_identity())]
    identity: String,
    /// What is printed; not with --watch.
    #[arg(short, long, value_enum, default_value_t = Output::Text, conflicts_with = "watch")]
    output: Output,
    #[command(flatten)]
    log: Log,
}

impl Assign {
    fn options(&self) -> Result<PodCidrOptions, ClusterRangeError> {
        let range = |cidr: &IpNet| match cidr {
            IpNet::V4(_) => ClusterRange::new(*cidr, self.node_cidr_mask_size_ipv4),
            IpNet::V6(_) => ClusterRange::new(*cidr, self.node_cidr_mask_size_ipv6),
        };
        let ranges: Result<Vec<ClusterRange>, _> = self.cluster_cidr.iter().map(range).collect();
        let ranges: PerFamily<ClusterRange> = cluster_ranges(ranges?)?;
        Ok(PodCidrOptions {
            location: self.cluster.location(),
            ranges,
            identity: self.identity.clone(),
            lease_namespace: self.lease_namespace.clone(),
            lease_name: "hostgw-podcidr".to_owned(),
        })
    }
}

/// Runs the command and gives the contract's exit code.
pub(crate) fn run(command: &PodCidr) -> ExitCode {
    let PodCidrCommand::Assign(assign) = &command.command;
    assign.log.start();
    let options = match assign.options() {
        Ok(options) => options,
        Err(error) => return fail("podcidr assign", &error, 2),
    };
    if assign.watch {
        return match assign_and_watch(&options) {
            Ok(Ended::Terminated) => ExitCode::SUCCESS,
            Ok(Ended::Interrupted) => ExitCode::from(130),
            Err(error) => fail("podcidr assign", &error, error.exit_code()),
        };
    }
    match assign_once(&options) {
        Ok(report) => match print(&report, assign.output) {
            Ok(()) if report.problems.is_empty() => ExitCode::SUCCESS,
            Ok(()) => ExitCode::from(1),
            Err(error) => fail("podcidr assign", &error, 1),
        },
        Err(error) => fail("podcidr assign", &error, error.exit_code()),
    }
}
