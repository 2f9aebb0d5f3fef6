//! Disks without room. What is in the kernel must be repaired all the same, and a call that cannot write must leave
//! nothing.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::time::Duration;

use crate::LabError;
use crate::chaos::field::{Field, Leftover};
use crate::chaos::kernel_faults::delete_routes;
use crate::chaos::setback::Setback;
use crate::runtime;

const RUN: &str = "/run";
const STATE: &str = "/var/lib/hostgw";
/// The file that takes all room.
const FILLER: &str = "filler";
/// Repairs in the kernel need no disk.
const PATIENCE: Duration = Duration::from_secs(60);

/// `/run` has no room, and our routes go.
pub(crate) fn fill_run(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    field.churn.excuse(true);
    fill(field, at, RUN)
}

/// `/var/lib/hostgw` has no room, and our routes go.
pub(crate) fn fill_state(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    fill(field, at, STATE)
}

fn fill(field: &mut Field<'_>, at: usize, folder: &'static str) -> Result<(), Setback> {
    field.cluster.node(at)?.place.run(move || take_all_room(&Path::new(folder).join(FILLER)))?;
    field.leftover = Some((at, Leftover::FullDisk(folder)));
    delete_routes(field, at)
}

fn take_all_room(filler: &Path) -> Result<(), LabError> {
    let failed = || LabError::io(format!("fill {}", filler.display()));
    let mut file = File::create(filler).map_err(failed())?;
    // In ever smaller pieces, down to the last block.
    for size in [1 << 20, 1 << 16, 1 << 12, 1] {
        let piece = vec![0; size];
        loop {
            match file.write(&piece) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => break,
                Err(error) => return Err(failed()(error)),
            }
        }
    }
    Ok(())
}

/// Routes are back although there was no room; an ADD failed and left nothing; then there is room again.
pub(crate) fn empty_run(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    repaired_without_room(field, at)?;
    match try_pod(field, at)? {
        Some(error) => field.notes.push(format!("without room: {error}")),
        None => field.notes.push("without room an ADD succeeded".to_owned()),
    }
    empty(field, at, RUN)?;
    field.churn.excuse(false);
    works_again(field, at)
}

/// Routes are back although there was no room, and an ADD worked; then there is room again.
pub(crate) fn empty_state(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    repaired_without_room(field, at)?;
    works_again(field, at)?;
    Ok(empty(field, at, STATE)?)
}

fn repaired_without_room(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    let full = field.leftover.take();
    let whole = field.await_whole(PATIENCE);
    field.leftover = full;
    whole.map_err(|wrong| {
        Setback::found("not_restored", format!("while {} had no room: {wrong}", field.name(at)))
    })
}

/// Runs ADD and DEL for a pod; gives ADD's error. DEL must succeed, and nothing be left.
fn try_pod(field: &mut Field<'_>, at: usize) -> Result<Option<String>, Setback> {
    let name = field.fresh_pod(at, "disk");
    let node = field.cluster.node(at)?;
    let list = node.conflist()?;
    let (id, error) = node.place.run(move || {
        let mut pod = runtime::sandbox(&name, None)?;
        let error = runtime::attach(&list, &mut pod).err().map(|error| error.to_string());
        runtime::delete(&list, &pod)?;
        Ok((pod.container_id, error))
    })?;
    let before = field.leftover.replace((at, Leftover::Attachment(id)));
    let left = field.wrong().into_iter().find(|wrong| wrong.contains("was killed"));
    field.leftover = before;
    match left {
        Some(left) => Err(Setback::found("not_restored", left)),
        None => Ok(error),
    }
}

fn works_again(field: &mut Field<'_>, at: usize) -> Result<(), Setback> {
    match try_pod(field, at)? {
        Some(error) => Err(Setback::found("not_restored", error)),
        None => Ok(()),
    }
}

fn empty(field: &Field<'_>, at: usize, folder: &'static str) -> Result<(), LabError> {
    field.cluster.node(at)?.place.run(move || {
        let filler = Path::new(folder).join(FILLER);
        fs::remove_file(&filler).map_err(LabError::io(format!("remove {}", filler.display())))
    })
}
