//! What is served before the C library begins is what the ordinary plugin would have done.
#![allow(unsafe_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::os::unix::process::CommandExt;

use cni_spec::{BaseConf, CallEnvironment, Command};
use early_loopback::{Conf, Verb};
use kernel::link;
use kernel::netlink::{Protocol, Socket};
use proptest::prelude::*;
use serde_json::{Value, json};
use support::enter_new_namespace;
use support::node::Pod;
use support::plugin::Call;
use support::tracer::{Boundary, survey};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

fn pod() -> Pod {
    enter_new_namespace();
    let pod = Pod::new("first");
    pod.change(|batch, _| link::set_down(batch, 1));
    pod
}

fn conf(version: &str) -> Value {
    json!({"cniVersion": version, "name": "cni-loopback", "type": "loopback"})
}

fn call(verb: &str, pod: &Pod, conf: &Value) -> Call {
    Call::about(verb, pod, conf).with("CNI_IFNAME", "lo").by_name("loopback")
}

fn is_up(pod: &Pod) -> bool {
    let found = pod.ns.run(|| link::by_index(&mut Socket::open(Protocol::Route).unwrap(), 1).unwrap());
    found.unwrap().unwrap().is_up()
}

/// The C library asks for memory before anything else.
fn is_early(boundaries: &[Boundary]) -> bool {
    !boundaries.iter().any(|boundary| boundary.call == Some(libc::SYS_brk))
}

#[cfg(target_arch = "x86_64")]
#[test]
fn usual_calls_are_served_early_and_answered_as_the_ordinary_plugin_answers_in_every_version() {
    let pod = pod();
    for version in VERSIONS {
        let usual = conf(version);
        let mut unusual = usual.clone();
        unusual["unknown"] = json!(1);
        let (ordinary, plain) = survey(&call("ADD", &pod, &unusual));
        assert!(!is_early(&ordinary));
        call("DEL", &pod, &unusual).run().silent();
        assert!(!is_up(&pod));
        let (early, quick) = survey(&call("ADD", &pod, &usual));
        assert_eq!(is_early(&early), version >= "0.3.0", "{version}: {early:?}");
        assert_eq!(quick.answer(), plain.answer());
        assert!(is_up(&pod));
        let mut cached = usual.clone();
        cached["prevResult"] = quick.result();
        let (early, deleted) = survey(&call("DEL", &pod, &cached));
        deleted.silent();
        assert_eq!(is_early(&early), version >= "0.3.0", "{version}: {early:?}");
        assert!(!is_up(&pod));
    }
}

#[test]
fn what_is_not_usual_is_the_ordinary_plugins_from_the_beginning() {
    let pod = pod();
    let usual = conf("1.0.0");
    let long = json!({"cniVersion": "1.0.0", "name": "n", "type": "loopback", "filler": " ".repeat(100_000)});
    call("ADD", &pod, &long).run().result();
    // Another address, which the answer must tell.
    pod.change(|batch, _| kernel::address::add(batch, 1, "127.0.0.2/32".parse().unwrap(), 0));
    let ips = call("ADD", &pod, &usual).run().result()["ips"].clone();
    assert_eq!(ips.as_array().unwrap().len(), 2, "{ips}");
    // The node's own namespace.
    let own = call("ADD", &pod, &usual).with("CNI_NETNS", "/proc/self/ns/net").run();
    assert!(own.error().1.contains("the node's own network namespace"));
    let bad = call("ADD", &pod, &usual).with("CNI_ARGS", "IP=x").run();
    assert!(bad.error().1.contains("CNI_ARGS"));
}

#[test]
fn a_closed_standard_output_is_not_taken_for_a_socket() {
    let pod = pod();
    for verb in ["ADD", "DEL"] {
        let call = call(verb, &pod, &conf("1.0.0"));
        let mut command = call.command();
        // SAFETY: `close` may be called between fork and exec.
        unsafe {
            command.pre_exec(|| {
                libc::close(1);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        call.feed(&mut child);
        // The answer goes to /dev/null, which the ordinary plugin opens in its place.
        assert!(child.wait().unwrap().success(), "{verb}");
    }
}

/// Texts of which many are almost right.
fn conf_text() -> impl Strategy<Value = String> {
    let string = prop_oneof![
        Just("cniVersion".to_owned()),
        Just("name".to_owned()),
        Just("type".to_owned()),
        Just("prevResult".to_owned()),
        prop::sample::select(VERSIONS.to_vec()).prop_map(ToOwned::to_owned),
        "[a-z./\\\\\"é]{0,4}",
    ];
    let pair = (string.clone(), string).prop_map(|(key, value)| format!("\"{key}\":\"{value}\""));
    let usual = prop::sample::select(vec!["\"cniVersion\":\"1.0.0\"", "\"name\":\"n\"", "\"type\" : \"t\""]);
    let member = prop_oneof![3 => usual.prop_map(ToOwned::to_owned), 1 => pair];
    (prop::collection::vec(member, 0..5), "[ ,}]{0,2}")
        .prop_map(|(members, end)| format!("{{{}}}{end}", members.join(",")))
}

fn variables() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let variable = prop_oneof![
        (
            Just("CNI_COMMAND"),
            prop::sample::select(vec!["ADD", "DEL", "CHECK", ""]).prop_map(ToOwned::to_owned)
        ),
        (Just("CNI_CONTAINERID"), "[a-z.]{0,3}"),
        (Just("CNI_IFNAME"), prop::sample::select(vec!["lo", "l", ""]).prop_map(ToOwned::to_owned)),
        (Just("CNI_NETNS"), "/?[a-z/ ]{0,4}"),
        (
            Just("CNI_ARGS"),
            "(IgnoreUnknown=[01]|K8S_POD_UID=[a-z=]{0,3}|IP=1|K8S_POD_=a|)(;K8S_POD_NAME=[a-z]{0,2})?"
        ),
    ];
    prop::collection::vec(variable, 0..9)
}

proptest! {
    #[test]
    fn a_configuration_that_is_read_early_is_read_the_same_way_later(text in conf_text()) {
        if let Some(conf) = Conf::read(text.as_bytes(), Verb::Add) {
            let base = BaseConf::parse(text.as_bytes()).unwrap();
            prop_assert_eq!(base.cni_version.as_str().as_bytes(), conf.version);
            prop_assert_eq!(base.prev_result(), Ok(None));
        }
    }

    #[test]
    fn a_call_that_is_read_early_is_read_the_same_way_later(variables in variables()) {
        let texts: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}\0")).collect();
        let early = early_loopback::Call::read(b"/opt/cni/bin/loopback\0", texts.iter().map(String::as_bytes));
        if let Some(early) = early {
            let later = CallEnvironment::read(|wanted| {
                variables.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.clone())
            });
            let (command, netns) = match later.unwrap() {
                CallEnvironment::Add(call) => (Command::Add, Some(call.netns)),
                CallEnvironment::Del(call) => (Command::Del, call.netns),
                other => panic!("{other:?}"),
            };
            prop_assert_eq!(early.verb == Verb::Add, command == Command::Add);
            let netns = format!("{}\0", netns.unwrap().display());
            prop_assert_eq!(netns.as_bytes(), early.netns);
        }
    }

    #[test]
    fn no_bytes_make_the_early_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = Conf::read(&bytes, Verb::Add);
        let _ = Conf::read(&bytes, Verb::Del);
        let _ = early_loopback::Call::read(&bytes, [&bytes[..]].into_iter());
    }
}
