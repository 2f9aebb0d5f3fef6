//! Plugins behind others in a chain, as a runtime calls them: each is given the result so far.

use std::process::Command;

use serde_json::{Value, json};

use super::node::{NETWORK, Pod};
use super::plugin::{Call, Outcome};

/// A configuration of a chained plugin, with the result so far.
pub(crate) fn chained(plugin: &str, rest: &Value, so_far: &Value) -> Value {
    let mut conf = json!({"cniVersion": "1.1.0", "name": NETWORK, "type": plugin, "prevResult": so_far});
    for (key, value) in rest.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

/// One verb of it about `pod`.
pub(crate) fn call(verb: &str, plugin: &'static str, pod: &Pod, conf: &Value) -> Outcome {
    Call::about(verb, pod, conf).by_name(plugin).run()
}

/// Code and message with which ADD refuses this configuration, the pod's namespace aside.
pub(crate) fn refusal(plugin: &'static str, pod: &Pod, rest: &Value, so_far: &Value) -> String {
    let (code, msg) = call("ADD", plugin, pod, &chained(plugin, rest, so_far)).error();
    format!("{code} {msg}").replace(&pod.netns(), "NETNS")
}

/// What a program of the node shows in the calling thread's network namespace.
pub(crate) fn shown(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a shell's line in the calling thread's network namespace; it must succeed.
pub(crate) fn run(line: &str) {
    shown("/bin/sh", &["-c", line]);
}
