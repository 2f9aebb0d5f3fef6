//! `kill -9` of the agent and of the plugin, and clocks that jump.

use std::time::Duration;

use crate::chaos::field::{Field, Leftover};
use crate::chaos::kernel_faults::delete_routes;
use crate::chaos::setback::Setback;
use crate::runtime;

/// An ADD that is killed leaves nothing only if the kill came too early or too late; then it is tried again.
const KILLS: usize = 60;
/// An ADD takes longer than this only on a busy machine.
const LATEST_KILL_US: usize = 4000;
/// By how much the clocks jump forward.
const JUMP_SECONDS: u64 = 864_000;

/// The agent is dead, and while it is, its routes go.
pub(crate) fn kill_agent(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    field.cluster.node_mut(at)?.kill_agent()?;
    delete_routes(field, at)
}

/// Somebody starts it again.
pub(crate) fn start_agent(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    Ok(field.cluster.node_mut(at)?.start_agent()?)
}

/// Somebody starts it again when the clocks have jumped. The clock of the date is the machine's, it has no namespace and
/// must not be touched: files from the future stand for that (`list-from-the-future`).
pub(crate) fn start_agent_later(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    field.number += 1;
    let seconds = JUMP_SECONDS * field.number;
    let node = field.cluster.node_mut(at)?;
    node.jump_clocks(seconds)?;
    node.start_agent()?;
    field.notes.push(format!("monotonic and boot time {} days ahead", seconds / 86_400));
    Ok(())
}

/// An ADD is killed in the middle.
pub(crate) fn kill_plugin(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    for _ in 0..KILLS {
        let name = field.fresh_pod(at, "killed");
        let delay = Duration::from_micros(200 + field.seeded.below(LATEST_KILL_US) as u64);
        let node = field.cluster.node(at)?;
        let list = node.conflist()?;
        let (pod, answered) = node.place.run(move || {
            let pod = runtime::sandbox(&name, None)?;
            let answered = runtime::attach_and_kill(&list, &pod, delay)?;
            Ok((pod, answered))
        })?;
        let leftover = (at, Leftover::Attachment(pod.container_id.clone()));
        field.leftover = Some(leftover);
        if !answered && field.wrong().iter().any(|wrong| wrong.contains("was killed")) {
            field.killed = Some(pod);
            return Ok(());
        }
        field.leftover = None;
        delete(field, at, pod)?;
    }
    Ok(())
}

/// The runtime tries once more, and deletes the pod later. A second one whose ADD was killed it forgets: nobody ever calls
/// DEL, and what is left of it must be gone by the end of the run.
pub(crate) fn retry_plugin(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    let Some(mut pod) = field.killed.take() else { return Ok(()) };
    let forgotten = field.fresh_pod(at, "forgotten");
    let node = field.cluster.node(at)?;
    let list = node.conflist()?;
    node.place.run(move || {
        runtime::attach(&list, &mut pod)?;
        runtime::delete(&list, &pod)?;
        let forgotten = runtime::sandbox(&forgotten, None)?;
        runtime::attach_and_kill(&list, &forgotten, Duration::from_micros(LATEST_KILL_US as u64 / 2))?;
        runtime::abandon(&forgotten)
    })?;
    Ok(())
}

fn delete(field: &Field<'_>, at: usize, pod: runtime::Pod) -> Result<(), Setback> {
    let node = field.cluster.node(at)?;
    let list = node.conflist()?;
    node.place.run(move || runtime::delete(&list, &pod))?;
    Ok(())
}
