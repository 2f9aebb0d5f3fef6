//! More happens in the kernel than an agent can hear, or somebody undoes what it does.

use std::time::Duration;

use kernel::netlink::{Protocol, Socket};

use crate::LabError;
use crate::chaos::field::Field;
use crate::chaos::foreign_program::{ForeignProgram, Trade, add_and_delete};
use crate::chaos::kernel_faults::delete_routes;
use crate::chaos::setback::Setback;

/// A storm is outlasted within this.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long somebody fights.
const FIGHT: Duration = Duration::from_secs(4);
/// More passes were a race: the agent allows itself a burst of 20, and one a second, besides those that change nothing.
const MOST_PASSES: u64 = 30;
const MOST_PASSES_A_SECOND: u64 = 2;
/// Batches of routes until the kernel has to drop messages to a socket that nobody reads.
const BATCHES: usize = 200;

/// The agent is held while more happens than its socket can hold; in the midst of it, our routes go.
pub(crate) fn overflow(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    field.cluster.node(at)?.hold_agent()?;
    let before = dropped(field, at)?;
    delete_routes(field, at)?;
    for _ in 0..BATCHES {
        field.in_netns(at, || add_and_delete(&mut Socket::open(Protocol::Route)?, 500))?;
        let now = dropped(field, at)?;
        if now > before {
            field.notes.push(format!("{} messages to the agent were dropped", now - before));
            return Ok(());
        }
    }
    Err(Setback::found("fault_not_observed", "the kernel dropped no message to the agent"))
}

/// The agent goes on.
pub(crate) fn resume(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    Ok(field.cluster.node(at)?.resume_agent()?)
}

/// Messages that the kernel dropped on the way to route sockets of the node (`/proc/net/netlink`).
fn dropped(field: &Field<'_>, at: usize) -> Result<u64, LabError> {
    field.cluster.node(at)?.place.run(|| {
        let path = "/proc/thread-self/net/netlink";
        let table = std::fs::read_to_string(path).map_err(LabError::io(format!("read {path}")))?;
        let drops = table.lines().skip(1).filter_map(|line| {
            let words: Vec<_> = line.split_whitespace().collect();
            (words.get(1) == Some(&"0")).then(|| words.get(8)?.parse::<u64>().ok()).flatten()
        });
        Ok(drops.sum())
    })
}

/// Somebody changes 10,000 routes a second, and our routes go.
pub(crate) fn storm(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    if field.program.is_none() {
        field.program = Some(ForeignProgram::start(Trade::Storm, field.cluster.node(at)?)?);
    }
    delete_routes(field, at)
}

/// Everything is whole again while the storm goes on; then it ends.
pub(crate) fn outlast_storm(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    let whole = field.await_whole(PATIENCE);
    let Some(program) = field.program.take() else { return Ok(()) };
    let lasted = program.runs_for();
    let changes = program.stop()?;
    whole.map_err(|wrong| {
        Setback::found("not_restored", format!("on {} during the storm: {wrong}", field.name(at)))
    })?;
    let rate = u128::from(changes) * 1000 / lasted.as_millis().max(1);
    field
        .notes
        .push(format!("whole {} ms after the storm began, of {rate} changes a second", lasted.as_millis()));
    Ok(())
}

/// Somebody deletes our routes as soon as they come.
pub(crate) fn fight(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    if field.program.is_none() {
        field.passes_before = passes(field, at)?;
        field.program = Some(ForeignProgram::start(Trade::Fight, field.cluster.node(at)?)?);
    }
    Ok(())
}

/// The agent did not race, and said who it was; then that one gives up.
pub(crate) fn end_fight(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    Field::poll(FIGHT, || None::<()>);
    let Some(program) = field.program.take() else { return Ok(()) };
    // Its number, and the name that it gave itself.
    let named = format!("process {} ({}: ", program.pid(), Trade::Fight);
    let mut last = None;
    let said = Field::poll(PATIENCE, || {
        last = opponent(field, at).ok().flatten();
        last.take_if(|said| said.starts_with(&named))
    });
    let made = passes(field, at)?.saturating_sub(field.passes_before);
    // Asked after the count: the time that asking takes is time for passes, too.
    let lasted = program.runs_for();
    let deleted = program.stop()?;
    field
        .notes
        .push(format!("{deleted} routes deleted in {} ms, {made} passes of the agent", lasted.as_millis()));
    match said {
        Some(said) => field.notes.push(format!("status says: {said}")),
        None => {
            let said = last.map_or_else(|| "names nobody".to_owned(), |said| format!("says `{said}`"));
            let message =
                format!("who deletes the routes of {} is {named}…), and its status {said}", field.name(at));
            return Err(Setback::found("unnamed", message));
        }
    }
    if made > MOST_PASSES + MOST_PASSES_A_SECOND * lasted.as_secs() {
        let message =
            format!("the agent on {} made {made} passes in {} ms", field.name(at), lasted.as_millis());
        return Err(Setback::found("raced", message));
    }
    Ok(())
}

/// How many passes the agent says that it made.
fn passes(field: &Field<'_>, at: usize) -> Result<u64, LabError> {
    Ok(status(field, at)?["passes"].as_u64().unwrap_or_default())
}

/// Whom the agent names that deletes its routes.
fn opponent(field: &Field<'_>, at: usize) -> Result<Option<String>, LabError> {
    let state = status(field, at)?;
    let conditions = state["conditions"].as_array().into_iter().flatten();
    let named = conditions.into_iter().find(|condition| condition["code"] == "routes-deleted-by-others");
    Ok(named.and_then(|condition| condition["message"].as_str()).map(str::to_owned))
}

fn status(field: &Field<'_>, at: usize) -> Result<serde_json::Value, LabError> {
    let (_, said) = field.cluster.node(at)?.ask(&["status", "-o", "json"])?;
    serde_json::from_str(&said).map_err(|error| LabError::io("read the agent's status")(error.into()))
}
