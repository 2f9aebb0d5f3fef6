//! The program on each node: it reads the cluster, keeps this node's network as it must be, and reports.
//!
//! It decides nothing: what should be is [`node_network`]'s, what pods need is [`cni_plugins`]' and [`attachment`]'s.
//! Each pass reads the source and the kernel afresh; no pass remembers what an earlier one did. Pods run, start and
//! stop without it.

mod apply;
mod atomic_file;
mod config;
mod events;
mod foreign_changes;
mod http;
mod kubernetes;
mod leases;
mod metrics;
mod nft_table;
mod observe;
mod opponent;
mod paths;
mod plugin_files;
mod podcidr;
mod pods;
mod readable;
mod reconcile;
mod reports;
mod run;
mod runtime_sandboxes;
pub mod source;
mod status;
mod uninstall;
mod uplink;

pub use apply::{Applied, Outcome};
pub use cni_plugins::DROP_IN_NAMES;
pub use config::{ConfigError, parse_settings, read_settings};
pub use kubernetes::{AccessError, ApiError, Location, check_kubeconfig, check_watch_line};
pub use paths::Paths;
pub use plugin_files::{
    FileAction, PluginFile, PluginFiles, PluginFilesError, install as install_plugin, recorded_pods,
    uninstall as uninstall_plugin,
};
pub use podcidr::{
    AssignedNode, PodCidrError, PodCidrOptions, PodCidrReport, assign_and_watch, assign_once, assign_until,
    default_identity,
};
pub use reconcile::{PassError, ReconcileReport, Reconciler};
pub use run::{AgentError, Ended, Options, is_running, plan, run, run_once, run_until};
pub use status::{STATE_SCHEMA, STATE_SCHEMA_VERSION, StateDocument, StatusError, read_state};
pub use uninstall::{UninstallError, UninstallReport, uninstall};
