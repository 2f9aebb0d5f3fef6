//! One attempt at the move: `hostgw uplink join` as a process of its own. The move's watchdog is forked, which takes a process
//! of one thread, and a move that hangs or is killed must not take the agent with it.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use node_network::settings::UplinkSettings;

use crate::paths::Paths;

/// This very program, also where its file was replaced since.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The link is the bridge's port.
    Joined,
    /// Nothing was touched.
    Refused(String),
    /// It was begun, and is put back by the command or by its watchdog.
    Reversed(String),
}

/// Makes the attempt, and waits for its end. Nobody sits there to confirm: who answers is what decides.
pub(super) fn attempt(wanted: &UplinkSettings, paths: &Paths) -> Outcome {
    let mut command = Command::new(OWN_PROGRAM);
    command
        .arg0("hostgw")
        .args(["uplink", "join", "--confirm-within", "0s"])
        .args(["--link", wanted.link.as_str(), "--bridge", wanted.bridge.as_str()])
        .arg("--root")
        .arg(paths.on_node(Path::new("/")))
        .arg("--sysctls")
        .arg(paths.sysctls())
        .args(wanted.probes.iter().map(|probe| format!("--probe={probe}")))
        .args(api_server().map(|server| format!("--also-probe={server}")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        // What a terminal sends to the agent's group is not for a move that is being made.
        .process_group(0);
    match command.output() {
        Ok(output) => outcome(&output),
        Err(error) => Outcome::Refused(format!("failed to start {OWN_PROGRAM} for it: {error}")),
    }
}

/// By the exit codes of `hostgw uplink`.
fn outcome(output: &Output) -> Outcome {
    let said = String::from_utf8_lossy(&output.stderr);
    for note in said.lines().filter_map(|line| line.strip_prefix("note: ")) {
        tracing::info!("uplink: {note}");
    }
    let last = said.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
    let reason = last.strip_prefix("hostgw uplink: ").unwrap_or(last);
    match output.status.code() {
        Some(0) => Outcome::Joined,
        Some(2 | 4) => Outcome::Refused(reason.to_owned()),
        Some(_) => Outcome::Reversed(reason.to_owned()),
        None => Outcome::Reversed(format!("`hostgw uplink join` ended by {}", output.status)),
    }
}

/// As the kubelet tells every pod; absent outside of a cluster.
fn api_server() -> Option<SocketAddr> {
    let host: IpAddr = std::env::var("KUBERNETES_SERVICE_HOST").ok()?.parse().ok()?;
    let port = std::env::var("KUBERNETES_SERVICE_PORT").ok()?.parse().ok()?;
    Some(SocketAddr::new(host, port))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn ended(wait_status: i32, stderr: &str) -> Outcome {
        let status = ExitStatus::from_raw(wait_status);
        outcome(&Output { status, stdout: Vec::new(), stderr: stderr.as_bytes().to_vec() })
    }

    #[test]
    fn what_was_refused_is_told_from_what_was_put_back_by_the_exit_code() {
        let said = "note: eth0 is configured by ifupdown\nhostgw uplink: link eth0 is down\n";
        assert_eq!(ended(0, said), Outcome::Joined);
        for code in [2, 4] {
            assert_eq!(ended(code << 8, said), Outcome::Refused("link eth0 is down".to_owned()));
        }
        assert_eq!(ended(1 << 8, said), Outcome::Reversed("link eth0 is down".to_owned()));
        let Outcome::Reversed(reason) = ended(9, "") else { panic!("killed") };
        assert!(reason.contains("signal: 9"), "{reason}");
    }
}
