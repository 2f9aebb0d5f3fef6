//! When to look again: the kernel's multicast groups, and folders by inotify. What happened is never acted upon, only
//! that something did, and what of that which was seen it puts in doubt.

use std::ffi::{OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kernel::KernelError;
use kernel::events::{Event, Events, Group, Heard};
use kernel::link::Link;
use kernel::netlink::Protocol;
use node_network::POD_LINK_PREFIX;
use rustix::fs::inotify;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;
use tokio::io::{Interest, Ready};

use crate::observe::{Doubt, Seen};
use crate::opponent::Deletions;
use crate::readable::{Owned, readable};

/// Asked for, so that a burst of thousands of route changes is not lost; the kernel may grant less.
const RECEIVE_BUFFER: i32 = 1 << 20;
/// After so long a link that came up has its addresses and neighbours again.
const SETTLING: Duration = Duration::from_secs(5);
/// `RTM_NEWLINK`.
const NEW_LINK: u16 = 16;
/// `RTM_DELLINK`.
const DELETED_LINK: u16 = 17;

/// Hears of changes of the kernel's network state.
#[derive(Debug)]
pub(crate) struct KernelEvents {
    route: AsyncFd<Owned<Events>>,
    netfilter: AsyncFd<Owned<Events>>,
    /// Deletions of our routes that were heard of.
    pub(crate) deletions: Deletions,
    /// What was heard since this was last taken.
    doubt: Doubt,
    /// When one of the node's own links, none of a pod's, last came, went or changed.
    link_moved: Option<Instant>,
}

impl KernelEvents {
    /// Subscribes in the calling thread's network namespace.
    pub(crate) fn subscribe() -> Result<Self, KernelError> {
        let groups = [
            Group::Links,
            Group::Ipv4Addresses,
            Group::Ipv6Addresses,
            Group::Ipv4Routes,
            Group::Ipv6Routes,
            Group::Ipv4Rules,
            Group::Ipv6Rules,
            Group::Ipv4Netconf,
            Group::Ipv6Netconf,
        ];
        let route = Events::subscribe(Protocol::Route, &groups, Some(RECEIVE_BUFFER))?;
        let netfilter = Events::subscribe(Protocol::Netfilter, &[Group::Nftables], Some(RECEIVE_BUFFER))?;
        let (route, netfilter) = (pollable(route)?, pollable(netfilter)?);
        Ok(Self {
            route,
            netfilter,
            deletions: Deletions::default(),
            doubt: Doubt::Everything,
            link_moved: None,
        })
    }

    /// Resolves when something was heard that matters, by what was `seen`.
    pub(crate) async fn heard(&mut self, seen: &mut Seen) -> Result<(), KernelError> {
        let Self { route, netfilter, deletions, doubt, link_moved } = self;
        while *doubt == Doubt::Nothing {
            tokio::select! {
                ready = route.readable_mut() => {
                    let mut ready = ready.map_err(|error| unpollable(&error))?;
                    let noted = (&mut *deletions, &mut *link_moved);
                    if drain_routes(&mut ready.get_inner_mut().0, doubt, noted, seen)? {
                        ready.clear_ready();
                    }
                }
                ready = netfilter.readable_mut() => {
                    let mut ready = ready.map_err(|error| unpollable(&error))?;
                    if drain_netfilter(&mut ready.get_inner_mut().0, doubt, seen)? {
                        ready.clear_ready();
                    }
                }
            }
        }
        Ok(())
    }

    /// Hears what there is to be heard, right before looking: it will be seen.
    pub(crate) fn drain(&mut self, seen: &mut Seen) -> Result<(), KernelError> {
        let noted = (&mut self.deletions, &mut self.link_moved);
        drain_routes(&mut self.route.get_mut().0, &mut self.doubt, noted, seen)?;
        drain_netfilter(&mut self.netfilter.get_mut().0, &mut self.doubt, seen)?;
        Ok(())
    }

    /// A link of the node's own moved lately: what routes were lost by it nobody took.
    pub(crate) fn links_are_settling(&self) -> bool {
        self.link_moved.is_some_and(|moved| moved.elapsed() < SETTLING)
    }

    /// What was heard since this was last called.
    pub(crate) fn take_doubt(&mut self) -> Doubt {
        std::mem::take(&mut self.doubt)
    }
}

fn pollable(events: Events) -> Result<AsyncFd<Owned<Events>>, KernelError> {
    readable(events).map_err(|error| KernelError::new("poll a netlink socket", errno(&error)))
}

fn unpollable(error: &std::io::Error) -> KernelError {
    KernelError::new("wait for netlink events", errno(error))
}

fn drain_routes(
    events: &mut Events,
    doubt: &mut Doubt,
    (deletions, link_moved): (&mut Deletions, &mut Option<Instant>),
    seen: &mut Seen,
) -> Result<bool, KernelError> {
    drain(events, doubt, |event| {
        deletions.note(event.author, event.kind, event.payload);
        if is_about_own_link(event.kind, event.payload) {
            *link_moved = Some(Instant::now());
        }
        seen.hear(event)
    })
}

/// Whether a link comes, goes or changes that is neither a pod's nor, by name and master, any container's.
fn is_about_own_link(kind: u16, payload: &[u8]) -> bool {
    let of_containers = |name: &str| name.starts_with(POD_LINK_PREFIX) || name.starts_with("veth");
    let own = |link: Link| !of_containers(&link.name) && link.master.is_none();
    matches!(kind, NEW_LINK | DELETED_LINK) && Link::parse(payload).is_some_and(own)
}

fn drain_netfilter(events: &mut Events, doubt: &mut Doubt, seen: &mut Seen) -> Result<bool, KernelError> {
    drain(events, doubt, |event| seen.hear_of_rules(event))
}

/// Adds to `doubt` what is heard; whether that was all.
fn drain(
    events: &mut Events,
    doubt: &mut Doubt,
    mut judge: impl FnMut(Event<'_>) -> Doubt,
) -> Result<bool, KernelError> {
    // Bounded, so that a flood cannot keep us from looking.
    for _ in 0..10_000 {
        let mut worst = *doubt;
        match events.read_events(|event| worst = judge(event).max(worst))? {
            Heard::Nothing => return Ok(true),
            Heard::Something => *doubt = worst,
            // It may have been anything.
            Heard::Lost => *doubt = Doubt::Everything,
        }
    }
    Ok(false)
}

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}

/// Hears of changes of one file, also when it or its folder is made later or replaced. Other files in the folder are
/// none of its business: ours might be among them, and each pass would bring about the next.
#[derive(Debug)]
pub(crate) struct FolderWatch {
    folder: PathBuf,
    file: OsString,
    inotify: Option<AsyncFd<Owned<OwnedFd>>>,
    completed: bool,
}

impl FolderWatch {
    /// Watches the folder of `path`, which need not exist yet: a file that is replaced by a rename is another file.
    pub(crate) fn of_file(path: &Path) -> Self {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let file = path.file_name().unwrap_or_default().to_owned();
        Self { folder: folder.to_owned(), file, inotify: None, completed: false }
    }

    /// Makes sure that the folder of this name is watched. Without inotify (limits, a folder that does not exist) the
    /// slow resync remains.
    pub(crate) fn renew(&mut self) {
        if tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        if self.inotify.is_none() {
            let flags = inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC;
            let made = inotify::init(flags).ok();
            self.inotify = made.and_then(|fd| readable(fd).ok());
        }
        if let Some(inotify) = &self.inotify {
            // Adding a watch that is there already changes nothing; a folder that was replaced is another one.
            let _ = inotify::add_watch(&inotify.get_ref().0, &self.folder, watched_events());
        }
    }

    /// Whether somebody has closed the file after writing, or renamed it into place, since this was last asked.
    pub(crate) fn take_completed(&mut self) -> bool {
        if let Some(inotify) = &self.inotify {
            self.completed |= read_events(&inotify.get_ref().0, &self.file).completed;
        }
        std::mem::take(&mut self.completed)
    }

    /// Resolves when the file, or the folder itself, changed.
    pub(crate) async fn changed(&mut self) {
        let Some(inotify) = &mut self.inotify else {
            return std::future::pending().await;
        };
        loop {
            let Ok(mut guard) = inotify.ready_mut(Interest::READABLE).await else {
                return std::future::pending().await;
            };
            let events = read_events(&guard.get_inner().0, &self.file);
            self.completed |= events.completed;
            if events.heard {
                return;
            }
            guard.clear_ready_matching(Ready::READABLE);
        }
    }
}

fn watched_events() -> inotify::WatchFlags {
    use inotify::WatchFlags as Flags;
    Flags::CLOSE_WRITE
        | Flags::MOVED_TO
        | Flags::MOVED_FROM
        | Flags::CREATE
        | Flags::DELETE
        | Flags::DELETE_SELF
}

/// What there was to be read.
#[derive(Clone, Copy, Debug, Default)]
struct FolderEvents {
    /// Something happened to the file, or to the folder itself.
    heard: bool,
    /// The file was written to its end.
    completed: bool,
}

fn read_events(inotify: &OwnedFd, file: &OsStr) -> FolderEvents {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(inotify, &mut buffer);
    let mut events = FolderEvents::default();
    while let Ok(event) = reader.next() {
        let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
        // Whoever mounts a ConfigMap swaps the symlink that all its files lead through.
        events.heard |= name.is_none_or(|name| name == file || name == "..data");
        let whole = inotify::ReadFlags::CLOSE_WRITE | inotify::ReadFlags::MOVED_TO;
        events.completed |= name == Some(file) && event.events().intersects(whole);
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_the_watched_file_and_the_swap_of_a_config_map_are_heard() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let mut watch = FolderWatch::of_file(&folder.path().join("nodes.yaml"));
        watch.renew();
        let heard = || {
            let events = read_events(&watch.inotify.as_ref().unwrap().get_ref().0, &watch.file);
            (events.heard, events.completed)
        };
        fs::write(folder.path().join("state.json"), "{}").unwrap();
        fs::rename(folder.path().join("state.json"), folder.path().join("other.json")).unwrap();
        assert_eq!(heard(), (false, false));
        fs::write(folder.path().join("nodes.yaml"), "").unwrap();
        assert_eq!(heard(), (true, true));
        std::os::unix::fs::symlink("x", folder.path().join("..data")).unwrap();
        assert_eq!(heard(), (true, false));
    }
}
