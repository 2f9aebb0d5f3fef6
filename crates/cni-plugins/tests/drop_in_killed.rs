//! `kill -9` at system calls of the drop-ins' ADD and DEL, and system calls that fail: a DEL, or a GC, sets it right.
//! `HOSTGW_SWEEP=full` takes every one, `kinds` the first and the last of each kind, otherwise some.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use serde_json::{Value, json};
use support::drop_in_host::{Host, link_names};
use support::node::Pod;
use support::plugin::Call;
use support::sweep::{Share, Sweep};
use support::tracer::{End, Victims, fail, kill, survey, wait_for_end};

const SAMPLES: usize = 12;
/// `ENOMEM`, which any call may give.
const ENOMEM: i32 = 12;

fn conf(host: &Host, kind: &str) -> Value {
    // Not `ipMasq`: what it executes is nobody's here to kill.
    host.conf(kind, &json!({"macspoofchk": true}))
}

/// Links and addresses that somebody left.
fn left(host: &Host) -> Vec<String> {
    let links = link_names().into_iter().filter(|name| name.starts_with("veth"));
    links.chain(host.held()).collect()
}

fn gc(host: &Host, conf: &Value) {
    let name = if conf["type"] == "ptp" { "ptp" } else { "bridge" };
    Call::gc(conf, &[]).by_name(name).with("CNI_PATH", host.bin()).run().silent();
}

/// Kills `verb` at the chosen calls; `way` follows each time.
fn killed(kind: &str, verb: &str, way: impl Fn(&Host, &Pod, &Value)) {
    let host = Host::enter();
    let (conf, pod) = (conf(&host, kind), Pod::new("first"));
    let prepare = || {
        if verb == "DEL" {
            host.add(&pod, &conf);
        }
    };
    let call = host.call(verb, &pod, &conf);
    // The first of all makes the bridge, and what else all share.
    host.add(&pod, &conf);
    host.del(&pod, &conf);
    prepare();
    let (boundaries, outcome) = survey(&call);
    outcome.answer();
    host.del(&pod, &conf);
    let sweep = Sweep::chosen();
    let all: Vec<usize> = (0..boundaries.len()).collect();
    let call_at =
        |at: &usize| boundaries[*at].before.then_some((boundaries[*at].in_child, boundaries[*at].call));
    for at in sweep.of(&all, SAMPLES, &format!("{kind} {verb}"), Share::ALL, call_at) {
        prepare();
        if let End::Killed { orphan: Some(orphan) } = kill(&call, at, Victims::Caller) {
            wait_for_end(orphan);
        }
        way(&host, &pod, &conf);
        let place = &boundaries[at];
        assert_eq!(left(&host), [""; 0], "{kind} {verb} killed at {at}, {place:?}; again: {}", sweep.again());
    }
}

#[test]
fn a_del_clears_away_what_a_killed_add_left() {
    for kind in ["bridge", "ptp"] {
        killed(kind, "ADD", Host::del);
    }
}

#[test]
fn a_gc_clears_away_what_a_killed_add_left() {
    killed("bridge", "ADD", |host, pod, conf| {
        gc(host, conf);
        // A link that was not called ours yet is the pod's alone, and goes with its namespace, or by DEL.
        host.del(pod, conf);
    });
}

#[test]
fn another_del_ends_what_a_killed_one_began() {
    for kind in ["bridge", "ptp"] {
        killed(kind, "DEL", Host::del);
    }
}

#[test]
fn an_add_of_which_a_system_call_fails_leaves_nothing_or_succeeds() {
    for kind in ["bridge", "ptp"] {
        let host = Host::enter();
        let (conf, pod) = (conf(&host, kind), Pod::new("first"));
        let call = host.call("ADD", &pod, &conf);
        host.add(&pod, &conf);
        host.del(&pod, &conf);
        let (boundaries, outcome) = survey(&call);
        outcome.answer();
        host.del(&pod, &conf);
        let sweep = Sweep::chosen();
        let may_fail = |at: &usize| !boundaries[*at].in_child && boundaries[*at].may_fail();
        let before: Vec<usize> = (0..boundaries.len()).filter(may_fail).collect();
        for at in sweep.of(&before, SAMPLES, kind, Share::ALL, |at| boundaries[*at].call) {
            let (met, outcome) = fail(&call, at, ENOMEM);
            if outcome.is_ok() {
                host.del(&pod, &conf);
            }
            assert_eq!(
                left(&host),
                [""; 0],
                "{kind}: {met:?} ({at}) failed, {outcome:?}; again: {}",
                sweep.again()
            );
        }
    }
}
