//! `kill -9` between every two system calls of ADD, DEL and GC, and of what they fork: whatever comes next, the same
//! ADD, a DEL, a GC or a pass of the agent, sets it right. `HOSTGW_SWEEP=full` takes every boundary, `kinds` the first and the
//! last call of each kind, otherwise some.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(
    clippy::print_stdout,
    reason = "how many boundaries there are, and which were taken, is worth knowing"
)]

mod support;

use support::cut::Cut;
use support::scene::{BRIDGE, Scene, Way, difference};
use support::sweep::{Share, Sweep};
use support::tracer::{Boundary, End, Victims, kill, survey, wait_for_end};

/// So many kills a sweep make a sample.
const SAMPLES: usize = 2;

/// Where a run is cut short, and who is killed. After a call is before the next one: nothing happens between them that
/// outlives the process (`docs/decisions/0019`). Before the fork and after the child's end there is nobody else.
fn places(boundaries: &[Boundary]) -> Vec<(usize, Victims)> {
    let whom = |boundary: &Boundary| match boundary.in_child {
        false => vec![Victims::Caller],
        true => vec![Victims::Caller, Victims::Child, Victims::Both],
    };
    let numbered = boundaries.iter().enumerate().filter(|(_, boundary)| boundary.before);
    numbered.flat_map(|(at, boundary)| whom(boundary).into_iter().map(move |victims| (at, victims))).collect()
}

/// What follows a kill does not change where there is one: the ways take turns.
fn share(cut: Cut, way: Way) -> Share {
    let ways: &[Way] = if Cut::ADDS.contains(&cut) {
        &[Way::Del, Way::Gc, Way::Agent, Way::Retry]
    } else {
        &[Way::Del, Way::Gc, Way::Agent]
    };
    let number = ways.iter().position(|other| *other == way).unwrap();
    Share { number, among: ways.len() }
}

/// Kills `cut` at the chosen places, and lets `way` follow each time.
fn sweep(mode: &str, cut: Cut, way: Way) {
    let sweep = Sweep::chosen();
    let mut scene =
        Scene::enter(mode, cut != Cut::FirstAdd, sweep == Sweep::Full || cut == Cut::AddOverRemains);
    if way == Way::Agent {
        scene.agent_pass();
    }
    // Once uncut: what it leaves when all is well, and how many boundaries there are.
    if cut == Cut::FirstAdd {
        scene.try_out();
    }
    let clean = scene.dump();
    cut.prepare(&mut scene);
    let (boundaries, outcome) = survey(&cut.call(&scene));
    assert_eq!(outcome.is_ok(), cut != Cut::RefusedAdd, "{outcome:?}");
    scene.clear(way);
    let (gone, new) = difference(&clean, &scene.dump());
    assert!(
        gone.is_empty() && new.is_empty(),
        "{gone:?} became {new:?} by {cut:?} and then {way:?}, without a kill"
    );

    let places = places(&boundaries);
    let name = format!("{mode} {cut:?} {way:?}");
    let kind =
        |&(at, victims): &(usize, Victims)| Some((boundaries[at].in_child, boundaries[at].call, victims));
    let chosen = sweep.of(&places, SAMPLES, &name, share(cut, way), kind);
    for &(at, victims) in &chosen {
        cut.prepare(&mut scene);
        match kill(&cut.call(&scene), at, victims) {
            // For a moment it has a hand on the record. DEL waits for that, ADD says so, the others leave it to the next time.
            End::Killed { orphan: Some(orphan) } if matches!(way, Way::Gc | Way::Agent) => {
                wait_for_end(orphan);
            }
            End::Killed { .. } => {}
            // Its child was killed, or it had less to read this time and was done before.
            End::Done(outcome) => {
                let as_ever = outcome.is_ok() == (cut != Cut::RefusedAdd);
                assert!(victims == Victims::Child || as_ever, "{outcome:?}");
            }
        }
        scene.clear(way);
        let killed = || {
            format!(
                "{cut:?} in mode {mode} was killed ({victims:?}) at boundary {at}, {:?}, and {way:?} followed; again: {}",
                boundaries[at],
                sweep.again()
            )
        };
        let (_, mut left) = difference(&clean, &scene.dump());
        // A bridge that is half made is no pod's: the next ADD makes it whole.
        left.retain(|line| cut != Cut::FirstAdd || !line.contains(BRIDGE));
        assert_eq!(left, [""; 0], "left when {}", killed());
        scene.try_out();
        let (gone, new) = difference(&clean, &scene.dump());
        assert!(
            gone.is_empty() && new.is_empty(),
            "{gone:?} became {new:?} by another ADD and DEL when {}",
            killed()
        );
    }
    scene.prove_neighbour();
    let all = if chosen.len() == places.len() { "all".to_owned() } else { format!("{chosen:?}") };
    println!(
        "{name}: {} system calls, {} ways to be killed before one, {} taken: {all}; again: {}",
        boundaries.iter().filter(|boundary| boundary.before).count(),
        places.len(),
        chosen.len(),
        sweep.again()
    );
    assert!(boundaries.len() > 100, "only {} boundaries: was it traced?", boundaries.len());
    // On the LAN even an ADD forks: whoever closes behind it the socket by which it told where the pod is.
    let forks = mode.starts_with("l2") || !matches!(cut, Cut::FirstAdd | Cut::Add);
    assert_eq!(boundaries.iter().any(|boundary| boundary.in_child), forks, "is what is forked traced?");
}

/// Several sweeps at once, each on a node of its own: what they wait for is mostly the kernel's patience.
fn sweeps(mode: &str, cuts: &[Cut], way: Way) {
    std::thread::scope(|scope| {
        for &cut in cuts {
            scope.spawn(move || sweep(mode, cut, way));
        }
    });
}

#[test]
fn a_routed_add_that_was_killed_is_tried_again() {
    sweeps("ptp", &Cut::ADDS, Way::Retry);
}

#[test]
fn a_bridged_add_that_was_killed_is_tried_again() {
    sweeps("bridge", &Cut::ADDS, Way::Retry);
}

#[test]
fn del_follows_a_kill_of_a_routed_pods_call() {
    sweeps("ptp", &Cut::ALL, Way::Del);
}

#[test]
fn del_follows_a_kill_of_a_bridged_pods_call() {
    sweeps("bridge", &Cut::ALL, Way::Del);
}

#[test]
fn gc_follows_a_kill_of_a_routed_pods_call() {
    sweeps("ptp", &Cut::ALL, Way::Gc);
}

#[test]
fn gc_follows_a_kill_of_a_bridged_pods_call() {
    sweeps("bridge", &Cut::ALL, Way::Gc);
}

#[test]
fn the_agent_follows_a_kill_of_a_routed_pods_call() {
    sweeps("ptp", &Cut::ALL, Way::Agent);
}

#[test]
fn the_agent_follows_a_kill_of_a_bridged_pods_call() {
    sweeps("bridge", &Cut::ALL, Way::Agent);
}

#[test]
fn whatever_follows_a_kill_the_node_answers_for_living_pods_of_the_lan_alone() {
    sweeps("l2-routed", &Cut::ADDS, Way::Retry);
    for way in [Way::Del, Way::Gc, Way::Agent] {
        sweeps("l2-routed", &Cut::ALL, way);
    }
}

#[test]
fn whatever_follows_a_kill_the_bridge_to_the_lan_has_the_links_of_living_pods_alone() {
    sweeps("l2", &Cut::ADDS, Way::Retry);
    for way in [Way::Del, Way::Gc, Way::Agent] {
        sweeps("l2", &Cut::ALL, way);
    }
}
