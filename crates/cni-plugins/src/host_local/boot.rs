//! Addresses of pods that died with an earlier boot: the folder outlives a reboot, pods do not. They are freed when
//! somebody needs an address and there is none, or that very one.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use cni_spec::CniError;
use kernel::netlink::{Protocol, Socket};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::time::ClockId;

use super::folder::{Folder, Held, Holder};
use super::folder_failed;
use crate::failure::kernel_refused;
use crate::living::addresses_behind_links;

/// `TMPFS_MAGIC` (`linux/magic.h`).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// Frees what nobody can hold any more, all of it or `only` one address; whether there was any.
pub(super) fn free_dead(folder: &Folder, only: Option<IpAddr>) -> Result<bool, CniError> {
    let held = folder.all_held().map_err(|error| folder_failed(&error))?;
    let started = started();
    let mut dead: Vec<&Held> = held
        .iter()
        .filter(|held| only.is_none_or(|only| held.address == only) && is_dead(held, started))
        .collect();
    if dead.iter().any(|held| held.holder != Holder::Nobody) {
        // A clock that was wrong when a file was written may be right now. What a pod on this node holds is never dead.
        let mut socket = Socket::open(Protocol::Route).map_err(kernel_refused)?;
        let living = addresses_behind_links(&mut socket).map_err(kernel_refused)?;
        dead.retain(|held| !living.contains(&held.address));
    }
    for held in &dead {
        folder.remove(held.address).map_err(|error| folder_failed(&error))?;
    }
    Ok(!dead.is_empty())
}

fn is_dead(held: &Held, started: Option<SystemTime>) -> bool {
    match held.holder {
        Holder::Nobody => true,
        Holder::Container(..) => started.is_some_and(|started| held.written < started),
        Holder::Foreign(_) => false,
    }
}

/// When this boot began, by the clock as it is now, or as it was when `/run` was mounted: by the earlier of the two, as
/// a clock may have been set since.
fn started() -> Option<SystemTime> {
    let up = rustix::time::clock_gettime(ClockId::Boottime);
    let up = Duration::new(u64::try_from(up.tv_sec).ok()?, 0);
    let by_uptime = SystemTime::now().checked_sub(up)?;
    let by_run = mounted_run().map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    Some(by_run.map_or(by_uptime, |born| born.min(by_uptime)))
}

/// When `/run` was mounted, in seconds, by the clock of that time; none where it is no file system of this boot's.
fn mounted_run() -> Option<u64> {
    let is_tmpfs = rustix::fs::statfs("/run").is_ok_and(|run| run.f_type == TMPFS_MAGIC);
    let run = rustix::fs::statx(rustix::fs::CWD, "/run", AtFlags::empty(), StatxFlags::BTIME).ok()?;
    let is_told = StatxFlags::from_bits_retain(run.stx_mask).contains(StatxFlags::BTIME);
    u64::try_from(run.stx_btime.tv_sec).ok().filter(|_| is_tmpfs && is_told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_the_boot_is_dead_and_what_is_foreign_never() {
        let boot = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let dead = |holder, written| {
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(written);
            is_dead(&Held { address: IpAddr::from([10, 1, 0, 5]), holder, written }, Some(boot))
        };
        let pod = || Holder::Container("4f1d".to_owned(), Some("eth0".to_owned()));
        assert!(dead(pod(), 999));
        assert!(!dead(pod(), 1000));
        assert!(dead(Holder::Nobody, 2000));
        assert!(!dead(Holder::Foreign("it is a folder"), 0));
        assert!(started().unwrap() <= SystemTime::now());
    }
}
