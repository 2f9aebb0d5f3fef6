//! Every system call of ADD, DEL and GC fails, one at a time, with errors that a kernel short of something gives: the call
//! says so and leaves nothing, or does without. `HOSTGW_SWEEP=full` takes every call and error, `kinds` the first
//! and the last call of each kind, otherwise some.
#![cfg(target_arch = "x86_64")] // A call is made to fail in the registers that this architecture has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![allow(clippy::print_stdout, reason = "how many calls there are, and which were taken, is worth knowing")]

mod support;

use support::cut::Cut;
use support::scene::{BRIDGE, Scene, Way, difference};
use support::sweep::{Share, Sweep};
use support::tracer::{Boundary, fail, survey};

/// So many failures a sweep make a sample.
const SAMPLES: usize = 4;

const ERRORS: [i32; 5] = [libc::EIO, libc::ENOSPC, libc::ENOBUFS, libc::EINTR, libc::ENOMEM];

/// Each boundary before a call that may fail, with each error.
fn places(boundaries: &[Boundary]) -> Vec<(usize, i32)> {
    let may_fail = boundaries.iter().enumerate().filter(|(_, boundary)| boundary.may_fail());
    may_fail.flat_map(|(at, _)| ERRORS.map(|error| (at, error))).collect()
}

fn sweep(mode: &str, cut: Cut) {
    let sweep = Sweep::chosen();
    let mut scene = Scene::enter(mode, cut != Cut::FirstAdd, sweep == Sweep::Full);
    if cut == Cut::FirstAdd {
        scene.try_out();
    }
    let clean = scene.dump();
    cut.prepare(&mut scene);
    let (boundaries, _) = survey(&cut.call(&scene));
    scene.clear(Way::Del);

    let name = format!("{mode} {cut:?}");
    let places = places(&boundaries);
    // Two errors a kind, others for others.
    let kind = |&(at, errno): &(usize, i32)| {
        let Boundary { in_child, call, .. } = boundaries[at];
        let number = usize::try_from(call?).unwrap_or_default();
        let errors = [number, number + 1].map(|number| ERRORS[number % ERRORS.len()]);
        errors.contains(&errno).then_some((in_child, call))
    };
    let chosen = sweep.of(&places, SAMPLES, &name, Share::ALL, kind);
    let mut failed = 0;
    for &(at, errno) in &chosen {
        cut.prepare(&mut scene);
        let (met, outcome) = fail(&cut.call(&scene), at, errno);
        let cause = std::io::Error::from_raw_os_error(errno);
        let happened = || {
            format!(
                "{cut:?} in mode {mode}, {met:?} (boundary {at}, {:?}) with {cause}; again: {}",
                boundaries[at],
                sweep.again()
            )
        };
        let unheard = cut == Cut::RefusedAdd && met.is_some_and(|met| met.call == Some(libc::SYS_write));
        if unheard {
            // There was an error to tell, and nobody can be told that it could not be told.
            assert!(!outcome.is_ok(), "{}", happened());
        } else if !outcome.is_ok() {
            failed += 1;
            let (code, msg) = outcome.error();
            assert!(code != 0 && !msg.is_empty(), "{}", happened());
            let text = cause.to_string();
            let text = text.split(" (os error").next().unwrap().to_lowercase();
            // A look-up that fails is no proof that an earlier life has ended, or that this is a namespace.
            let judged = ["exists already: run DEL", "network namespace"];
            let by_design = cut == Cut::RefusedAdd || judged.iter().any(|judgement| msg.contains(judgement));
            assert!(by_design || msg.to_lowercase().contains(&text), "{} said only {msg:?}", happened());
            let (_, mut left) = difference(&clean, &scene.dump());
            left.retain(|line| cut != Cut::FirstAdd || !line.contains(BRIDGE));
            if matches!(cut, Cut::FirstAdd | Cut::Add) {
                assert!(left.is_empty(), "left {left:?}: {}, which said {msg:?}", happened());
            }
        }
        scene.clear(Way::Del);
        scene.try_out();
        let (gone, new) = difference(&clean, &scene.dump());
        assert!(gone.is_empty() && new.is_empty(), "{gone:?} became {new:?}: {}", happened());
    }
    scene.prove_neighbour();
    println!(
        "{name}: {} failures possible, {} tried, {failed} told; again: {}",
        places.len(),
        chosen.len(),
        sweep.again()
    );
}

fn sweeps(mode: &str) {
    std::thread::scope(|scope| {
        for cut in Cut::ALL {
            scope.spawn(move || sweep(mode, cut));
        }
    });
}

#[test]
fn a_failing_call_of_a_routed_pod_says_so_and_leaves_nothing() {
    sweeps("ptp");
}

#[test]
fn a_failing_call_of_a_bridged_pod_says_so_and_leaves_nothing() {
    sweeps("bridge");
}

#[test]
fn a_failing_call_of_a_pod_of_the_lan_says_so_and_leaves_nothing() {
    sweeps("l2-routed");
}
