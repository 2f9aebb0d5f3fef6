//! A place of the lab that has namespaces of its own: a thread that entered them once and runs whatever is to be done
//! there. Processes that it starts are born there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use kernel::netns::NetNs;
use rustix::mount::{UnmountFlags, mount_bind, unmount};
use rustix::thread::UnshareFlags;

use crate::LabError;
use crate::namespaces::unshare;
use crate::root_folder;

/// Where the namespaces of each place can be found by `lab exec`, below the lab's root folder.
pub(crate) const PLACES: &str = "/lab/places";

type Job = Box<dyn FnOnce() + Send>;

/// A handle to the thread; when the last is dropped, the thread ends.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    name: Arc<str>,
    jobs: Sender<Job>,
    netns: Arc<NetNs>,
}

impl Place {
    /// A place with a network, a host name and mounts of its own, in the root folder `root`.
    pub(crate) fn create(name: &str, root: PathBuf) -> Result<Self, LabError> {
        let (jobs, inbox) = channel::<Job>();
        let (entered, when_entered) = channel();
        let thread_name = name.to_owned();
        let run = move || {
            let outcome = enter(&thread_name, &root);
            let entered_at_all = outcome.is_ok();
            // The receiver waits for exactly this message.
            let _ = entered.send(outcome);
            if entered_at_all {
                inbox.into_iter().for_each(|job| job());
            }
        };
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(LabError::io(format!("start the thread of {name}")))?;
        let gone = |_| LabError::Inner { message: format!("the thread of {name} ended early"), exit: 1 };
        let (netns, thread) = when_entered.recv().map_err(gone)??;
        publish_namespaces(name, thread)?;
        Ok(Self { name: name.into(), jobs, netns: Arc::new(netns) })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace.
    pub(crate) fn netns(&self) -> Arc<NetNs> {
        Arc::clone(&self.netns)
    }

    /// Runs `work` there and waits for it.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, LabError> + Send + 'static,
    ) -> Result<T, LabError> {
        let (done, when_done) = channel();
        let job: Job = Box::new(move || {
            let _ = done.send(work());
        });
        let gone =
            || LabError::Inner { message: format!("the thread of {} ended early", self.name), exit: 1 };
        self.jobs.send(job).map_err(|_| gone())?;
        when_done.recv().map_err(|_| gone())?
    }
}

/// Enters fresh namespaces; gives the network namespace and the thread's number.
fn enter(name: &str, root: &Path) -> Result<(NetNs, u32), LabError> {
    unshare(UnshareFlags::NEWNET | UnshareFlags::NEWUTS | UnshareFlags::NEWNS)
        .map_err(LabError::io(format!("make the namespaces of {name}")))?;
    rustix::system::sethostname(name.as_bytes())
        .map_err(LabError::call(format!("set the host name {name}")))?;
    root_folder::enter_node_root(root)?;
    let netns = NetNs::current().map_err(LabError::kernel(name))?;
    Ok((netns, rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()))
}

/// Leaves a note of the thread, whose namespaces `/proc` shows. A mount could name them too, but the kernel refuses to
/// bind a mount namespace that it deems older, and which of two is older it does not always know.
fn publish_namespaces(name: &str, thread: u32) -> Result<(), LabError> {
    let at = named(name, "thread")?;
    fs::write(&at, thread.to_string()).map_err(LabError::io(format!("write {}", at.display())))
}

/// Gives a pod's network namespace a name in the lab's root folder.
pub(crate) fn publish_pod(name: &str, netns: &NetNs) -> Result<(), LabError> {
    use std::os::fd::{AsFd, AsRawFd};
    let at = named(name, "net")?;
    let namespace = format!("/proc/self/fd/{}", netns.as_fd().as_raw_fd());
    mount_bind(&namespace, &at)
        .map_err(LabError::call(format!("bind the namespace of {name} to {}", at.display())))
}

/// Takes the name of a pod's network namespace away, and with it what keeps that alive.
pub(crate) fn unpublish_pod(name: &str) -> Result<(), LabError> {
    let at = PathBuf::from(PLACES).join(name).join("net");
    unmount(&at, UnmountFlags::DETACH).map_err(LabError::call(format!("unmount {}", at.display())))
}

fn named(name: &str, kind: &str) -> Result<PathBuf, LabError> {
    let folder = PathBuf::from(PLACES).join(name);
    fs::create_dir_all(&folder).map_err(LabError::io(format!("create {}", folder.display())))?;
    let at = folder.join(kind);
    fs::write(&at, "").map_err(LabError::io(format!("create {}", at.display())))?;
    Ok(at)
}
