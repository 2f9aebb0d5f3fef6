//! Settings of the CNI configuration that the agent writes.

use cni_spec::{ListenerCheck, MAX_IDENTIFIER_LEN, Mode, NetworkName};
use serde::{Deserialize, Serialize};

use super::SettingsError;

/// The CNI configuration that the agent writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct CniSettings {
    /// `name` of the network.
    pub network_name: String,
    /// The plugins that it names.
    pub chain: Chain,
    /// Where the classic chain's `host-local` keeps addresses. Cleared by a reboot, unlike the reference's own default,
    /// whose files of pods that a reboot ended fill the range.
    pub host_local_dir: String,
    /// Path of the conflist; the runtime takes the first by name in the folder.
    pub conf_file: String,
    /// For runtimes that share the configuration folder with another runtime.
    #[serde(rename = "disableGC")]
    pub disable_gc: bool,
    /// A pod may reach itself by its own host port or service address.
    pub hairpin: bool,
    /// Where the plugin writes its log; nowhere when absent.
    pub log_file: Option<String>,
    /// What a pod gets whose host port a program on the node listens on.
    pub host_port_listener_check: ListenerCheck,
    /// Host ports are open on the node's 127.0.0.1 as well (routed pods only).
    pub localhost_ports: bool,
    /// STATUS fails also for a full range or a lost node address. Kubernetes evicts the pods of such a node.
    pub strict_status: bool,
}

/// The plugins that the runtime executes for a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Chain {
    /// Ours, which does all in one.
    #[default]
    Hostgw,
    /// `bridge` with `host-local`, then `portmap`: the reference's, or whatever has these names.
    Classic,
}

impl Default for CniSettings {
    fn default() -> Self {
        Self {
            network_name: "hostgw".to_owned(),
            chain: Chain::default(),
            host_local_dir: "/run/cni-ipam-state".to_owned(),
            conf_file: "/etc/cni/net.d/10-hostgw.conflist".to_owned(),
            disable_gc: false,
            hairpin: true,
            log_file: None,
            host_port_listener_check: ListenerCheck::default(),
            localhost_ports: false,
            strict_status: false,
        }
    }
}

impl CniSettings {
    /// What cannot be used, or not for pods of this mode.
    pub(super) fn faults(&self, mode: Mode) -> Vec<SettingsError> {
        let mut faults = Vec::new();
        let mut fault = |field: &str, value: String, remedy: String| {
            faults.push(SettingsError { field: field.to_owned(), value, remedy });
        };
        if self.localhost_ports && matches!(mode, Mode::Bridge | Mode::L2) {
            let remedy = "routed pods only: remove it, or use mode ptp".to_owned();
            fault("cni.localhostPorts", "true".to_owned(), remedy);
        }
        for (field, value) in self.not_of_the_classic_chain(mode) {
            let instead = if field == "mode" { "use bridge" } else { "remove it" };
            fault(field, value, format!("not for the classic chain: {instead}, or use cni.chain hostgw"));
        }
        if NetworkName::new(self.network_name.as_str()).is_err() {
            let shown = self.network_name.chars().take(64).flat_map(char::escape_default).collect();
            let remedy = format!(
                "use 1 to {MAX_IDENTIFIER_LEN} letters, digits, `_`, `.` or `-`, beginning with a letter or digit"
            );
            fault("cni.networkName", shown, remedy);
        }
        let paths = [
            ("cni.confFile", Some(&self.conf_file)),
            ("cni.hostLocalDir", Some(&self.host_local_dir)),
            ("cni.logFile", self.log_file.as_ref()),
        ];
        for (field, path) in paths.into_iter().filter_map(|(field, path)| Some((field, path?))) {
            if !path.starts_with('/') || path.ends_with('/') || path.split('/').any(|part| part == "..") {
                fault(
                    field,
                    path.clone(),
                    "give an absolute path, without `..` and a `/` at its end".to_owned(),
                );
            }
        }
        if !self.conf_file.ends_with(".conflist") {
            fault("cni.confFile", self.conf_file.clone(), "the name must end in .conflist".to_owned());
        }
        faults
    }

    /// Settings that only type `hostgw` can follow, with their values, where the chain is the classic one.
    fn not_of_the_classic_chain(&self, mode: Mode) -> Vec<(&'static str, String)> {
        if self.chain != Chain::Classic {
            return Vec::new();
        }
        let chosen = [
            ("mode", mode != Mode::Bridge, mode.as_str().to_owned()),
            ("cni.localhostPorts", self.localhost_ports, "true".to_owned()),
            ("cni.strictStatus", self.strict_status, "true".to_owned()),
            ("cni.logFile", self.log_file.is_some(), self.log_file.clone().unwrap_or_default()),
            (
                "cni.hostPortListenerCheck",
                self.host_port_listener_check != ListenerCheck::default(),
                self.host_port_listener_check.as_str().to_owned(),
            ),
        ];
        chosen.into_iter().filter(|(_, chosen, _)| *chosen).map(|(field, _, value)| (field, value)).collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::settings::tests::faults;

    #[test]
    fn the_classic_chain_is_for_bridged_pods_and_what_it_can_do() {
        insta::assert_snapshot!(faults(serde_json::json!({
            "cni": {"chain": "classic", "strictStatus": true, "hostPortListenerCheck": "off", "hostLocalDir": "x"}})), @r"
        setting mode is `ptp`: not for the classic chain: use bridge, or use cni.chain hostgw
        setting cni.strictStatus is `true`: not for the classic chain: remove it, or use cni.chain hostgw
        setting cni.hostPortListenerCheck is `off`: not for the classic chain: remove it, or use cni.chain hostgw
        setting cni.hostLocalDir is `x`: give an absolute path, without `..` and a `/` at its end
        ");
    }
}
