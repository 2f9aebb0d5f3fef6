//! Chaos: faults in an order that a seed decides, while pods come and go and probes are sent all the time. Each must be
//! noticed, and everything must be whole again after it.
//!
//! ```text
//! fault, recipe    which faults, in which order, and what each does
//! *_faults         doing it
//! field, survey    what they are done to, and what is wrong there now
//! pulse, flows, churn    what goes on meanwhile: probes, connections, pods
//! ```

mod churn;
mod cluster_faults;
mod disk_faults;
mod fault;
mod field;
mod flows;
mod foreign_program;
mod kernel_faults;
mod process_faults;
mod pulse;
mod recipe;
pub(crate) mod report;
pub(crate) mod restarts;
mod setback;
mod storm_faults;
mod survey;
mod uplink_faults;

use std::collections::BTreeSet;
use std::thread;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::options::{Chaos, Sabotage};
use crate::progress::Progress;
use crate::{LabError, Options};

pub use foreign_program::foreign_program;

use fault::Schedule;
use field::Field;
use recipe::{Act, Proof, Recipe, recipes};
use report::{ChaosFailure, ChaosReport, Repair};
use setback::Setback;

/// From one look to the next.
const LOOK: Duration = Duration::from_millis(1);
/// Damage that nobody has noticed by now is done again, where the world does not have to undo it …
const UNNOTICED: Duration = Duration::from_millis(500);
/// … so many times in all.
const ATTEMPTS: usize = 12;
/// Where a probe must notice, it does within this.
const NOTICED: Duration = Duration::from_secs(8);
/// What is not whole again by now stays broken. An agent that somebody fought with makes one pass a second for a while.
const RESTORED: Duration = Duration::from_secs(30);
/// The code of that.
const NOT_RESTORED: &str = "not_restored";

/// What came of chaos.
pub(crate) struct Outcome {
    pub(crate) report: ChaosReport,
    pub(crate) repairs: Vec<Repair>,
}

/// Runs faults until the time is over and each has come, or until one has not ended as it must. `foreign` is what is not
/// ours, node by node; what its owner has to make anew is renewed there.
pub(crate) fn run(
    cluster: &mut Cluster,
    options: &Options,
    chaos: Chaos,
    foreign: &mut [BTreeSet<String>],
    progress: &mut Progress,
) -> Result<Outcome, LabError> {
    let began = Instant::now();
    let mut schedule = Schedule::new(options.seed, cluster.nodes.len());
    let mut field = Field::open(cluster, foreign, options.seed)?;
    let (mut order, mut repairs, mut failures) = (Vec::new(), Vec::new(), Vec::new());
    let mut rounds = 0;
    'faults: while rounds == 0 || began.elapsed() < Duration::from_secs(chaos.duration_s) {
        let (fault, at) = schedule.next();
        rounds += usize::from(schedule.round_is_over());
        for recipe in recipes(fault) {
            let node = field.name(at);
            let label = format!("{} on {node}", recipe.name);
            order.push(label.clone());
            field.pulses.blame(&label);
            sabotage(&mut field, chaos.sabotage)?;
            let measured = progress.step(
                recipe.name,
                || Ok::<_, LabError>(measure(&mut field, recipe, at, chaos.sabotage)),
                |measured| describe(&node, measured),
            )?;
            match measured {
                Ok(repair) => repairs.push(Repair { node, ..repair }),
                Err(setback) => {
                    let (code, message) = setback.into_parts();
                    // What is proven in the end tells of the damage, not of a repair that was under way.
                    if let Some(program) = field.program.take() {
                        program.stop()?;
                    }
                    if code != NOT_RESTORED {
                        // The probes tell what is wrong if it stays so.
                        let _ = field.await_whole(RESTORED);
                    }
                    failures.push(ChaosFailure { fault: recipe.name.to_owned(), node, code, message });
                    break 'faults;
                }
            }
        }
        // What these two plant is noticed in the end, however few faults came.
        if matches!(chaos.sabotage, Some(Sabotage::LeavePod | Sabotage::DeleteForeign)) {
            break;
        }
    }
    field.churn.stop();
    let report = ChaosReport {
        duration_s: chaos.duration_s,
        order,
        failures,
        outages: field.pulses.outages(),
        flows: field.flows.counts(),
        churn: field.churn.counts(),
        repeat: repeat(options, chaos),
    };
    Ok(Outcome { report, repairs })
}

fn describe(node: &str, measured: &Result<Repair, Setback>) -> (bool, String) {
    match measured {
        Ok(repair) => {
            let undone = repair.undone_ms.map(|ms| format!(", undone at {ms}")).unwrap_or_default();
            let notes: String = repair.notes.iter().map(|note| format!("; {note}")).collect();
            let said = format!(
                "{node}: noticed at {} ms{undone}, whole at {} ms{notes}",
                repair.observed_broken_ms, repair.restored_ms
            );
            (true, said)
        }
        Err(Setback::Found { code, message }) => (false, format!("{node}: {code}: {message}")),
        Err(Setback::Lab(error)) => (false, format!("{node}: {error}")),
    }
}

/// How to have the same faults in the same order again.
fn repeat(options: &Options, chaos: Chaos) -> String {
    format!(
        "hostgw lab --chaos --seed {} --duration {} --mode {} --family {} --nodes {} --pods {}",
        options.seed, chaos.duration_s, options.mode, options.family, options.nodes, options.pods
    )
}

/// Does the damage, and waits until it was noticed, undone, and repaired.
fn measure(
    field: &mut Field<'_>,
    recipe: Recipe,
    at: usize,
    sabotage: Option<Sabotage>,
) -> Result<Repair, Setback> {
    field.notes.clear();
    let damaged = Instant::now();
    let (noticed, observed) = match await_noticed(field, recipe, at, damaged, sabotage) {
        Ok(noticed) => noticed,
        Err(unnoticed) => {
            if let Some(undo) = recipe.undo {
                // What it finds is not worth more than that nobody noticed the damage.
                let _ = undo(field, at);
            }
            return Err(unnoticed);
        }
    };
    let mut undone = None;
    if let Some(undo) = recipe.undo {
        undo(field, at)?;
        undone = Some(Instant::now());
    }
    let restored = await_restored(field, damaged)?;
    if let Some(after) = recipe.after {
        after(field, at)?;
    }
    settle(field)?;
    let since = |then: Instant| {
        u64::try_from(then.saturating_duration_since(damaged).as_millis()).unwrap_or(u64::MAX)
    };
    Ok(Repair {
        fault: recipe.name.to_owned(),
        node: String::new(),
        observed_broken_ms: since(noticed),
        observed,
        undone_ms: undone.map(since),
        restored_ms: since(restored),
        notes: std::mem::take(&mut field.notes),
    })
}

/// Does the damage until somebody noticed: a look at the nodes, or a probe.
fn await_noticed(
    field: &mut Field<'_>,
    recipe: Recipe,
    at: usize,
    damaged: Instant,
    sabotage: Option<Sabotage>,
) -> Result<(Instant, String), Setback> {
    let damage: Act = if sabotage == Some(Sabotage::NoDamage) { |_, _| Ok(()) } else { recipe.damage };
    // Damage that lasts until it is undone cannot be missed: it is done once.
    let attempts = if recipe.undo.is_some() { 1 } else { ATTEMPTS };
    let patience = if recipe.proof == Proof::Probe { NOTICED } else { UNNOTICED };
    for _ in 0..attempts {
        field.seen = None;
        damage(field, at)?;
        if recipe.proof == Proof::Any
            && let Some(seen) = field.seen.take()
        {
            return Ok(seen);
        }
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if recipe.proof == Proof::Any
                && let Some(wrong) = field.wrong().into_iter().next()
            {
                return Ok((Instant::now(), wrong));
            }
            if let Some(lost) = field.pulses.broken_since(damaged) {
                return Ok(lost);
            }
            thread::sleep(LOOK);
        }
    }
    Err(Setback::found("fault_not_observed", "neither a probe nor a look at the nodes noticed the damage"))
}

/// Waits until nothing is wrong on any node and every probe that was sent since is answered; gives when that was.
fn await_restored(field: &Field<'_>, damaged: Instant) -> Result<Instant, Setback> {
    let deadline = Instant::now() + RESTORED;
    let mut whole: Option<Instant> = None;
    loop {
        let wrong = field.wrong().into_iter().next();
        let since = match &wrong {
            Some(_) => None,
            None => Some(*whole.get_or_insert_with(Instant::now)),
        };
        whole = since;
        let unanswered = since.and_then(|since| field.pulses.unanswered_since(since));
        if let (Some(since), None) = (since, &unanswered) {
            // A probe that was lost after the kernel looked whole again says that it was not.
            let lost = field.pulses.last_lost().filter(|lost| *lost >= damaged);
            return Ok(lost.map_or(since, |lost| lost.max(since)));
        }
        if Instant::now() >= deadline {
            let message = wrong.or(unanswered).unwrap_or_default();
            return Err(Setback::found(NOT_RESTORED, message));
        }
        thread::sleep(LOOK);
    }
}

/// What must be true after every repair.
fn settle(field: &mut Field<'_>) -> Result<(), Setback> {
    field.await_empty_plans(RESTORED)?;
    let dead = field.flows.use_all(field.estranged);
    if !dead.is_empty() {
        return Err(Setback::found("flow_dead", dead.join("; ")));
    }
    let failures = field.churn.take_failures();
    if !failures.is_empty() {
        return Err(Setback::found("churn_failed", failures.join("; ")));
    }
    Ok(())
}

/// Plants what the run must notice.
fn sabotage(field: &mut Field<'_>, sabotage: Option<Sabotage>) -> Result<(), LabError> {
    match sabotage {
        Some(Sabotage::HoldAgents) => field.cluster.nodes.iter().try_for_each(crate::node::Node::hold_agent),
        Some(Sabotage::CutFlow) => {
            field.flows.cut_one();
            Ok(())
        }
        Some(Sabotage::DeleteForeign) => field.in_netns(0, || crate::fault::delete_routes(4)),
        Some(Sabotage::LeavePod) => field.leave_pod(),
        Some(Sabotage::NoDamage | Sabotage::KeepDropping | Sabotage::LosePods | Sabotage::SilentRouter)
        | None => Ok(()),
    }
}
