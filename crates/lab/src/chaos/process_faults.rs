//! `kill -9` of the agent and of the plugin, and clocks that jump.

use crate::chaos::field::{Field, Leftover};
use crate::chaos::kernel_faults::delete_routes;
use crate::chaos::setback::Setback;
use crate::runtime::{self, Cut};

/// An ADD that is killed leaves nothing only if the kill came too early or too late; then it is tried again.
const KILLS: usize = 60;
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

/// An ADD is killed at some system call, another each time.
pub(crate) fn kill_plugin(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    let all = boundaries_of_add(field, at)?;
    for _ in 0..KILLS {
        let boundary = field.seeded.below(all);
        let (pod, cut) = attach_and_kill(field, at, "killed", boundary)?;
        field.leftover = Some((at, Leftover::Attachment(pod.container_id.clone())));
        // One that had answered is an attachment, whatever became of the program.
        let cut_short = cut == Cut::Killed { answered: false };
        if cut_short && field.wrong().iter().any(|wrong| wrong.contains("was killed")) {
            field.notes.push(format!("ADD was killed at boundary {boundary} of its {all} of system calls"));
            field.killed = Some(pod);
            return Ok(());
        }
        field.leftover = None;
        delete(field, at, pod)?;
    }
    Ok(())
}

/// How many there are in an ADD that nobody kills.
fn boundaries_of_add(field: &mut Field<'_>, at: usize) -> Result<usize, Setback> {
    let (pod, cut) = attach_and_kill(field, at, "counted", usize::MAX)?;
    delete(field, at, pod)?;
    match cut {
        Cut::Ended { boundaries } => Ok(boundaries),
        Cut::Killed { .. } => Ok(0),
    }
}

fn attach_and_kill(
    field: &mut Field<'_>,
    at: usize,
    what: &str,
    boundary: usize,
) -> Result<(runtime::Pod, Cut), Setback> {
    let name = field.fresh_pod(at, what);
    let node = field.cluster.node(at)?;
    let list = node.conflist()?;
    Ok(node.place.run(move || {
        let pod = runtime::sandbox(&name, None)?;
        let cut = runtime::attach_and_kill(&list, &pod, boundary)?;
        Ok((pod, cut))
    })?)
}

/// The runtime tries once more, and deletes the pod later. A second one whose ADD was killed it forgets: nobody ever calls
/// DEL, and what is left of it must be gone by the end of the run.
pub(crate) fn retry_plugin(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    let Some(mut pod) = field.killed.take() else { return Ok(()) };
    let node = field.cluster.node(at)?;
    let list = node.conflist()?;
    node.place.run(move || {
        runtime::attach(&list, &mut pod)?;
        runtime::delete(&list, &pod)
    })?;
    let all = boundaries_of_add(field, at)?;
    let boundary = field.seeded.below(all);
    let (forgotten, _) = attach_and_kill(field, at, "forgotten", boundary)?;
    Ok(field.cluster.node(at)?.place.run(move || runtime::abandon(&forgotten))?)
}

fn delete(field: &Field<'_>, at: usize, pod: runtime::Pod) -> Result<(), Setback> {
    let node = field.cluster.node(at)?;
    let list = node.conflist()?;
    node.place.run(move || runtime::delete(&list, &pod))?;
    Ok(())
}
