//! Which pod sandboxes the container runtime has, asked for by its CRI socket. Only asks: whether an answer is believed,
//! and what follows from it, is decided in `pods::forgotten`.

mod cri;
mod protobuf;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use node_network::Condition;

use crate::pods::{Listing, TwoLooks};
pub(crate) use cri::CriError;

/// What the runtime last said, shared between the task that asks and the passes.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuntimeSandboxes {
    last: Rc<RefCell<Last>>,
}

#[derive(Debug, Default)]
struct Last {
    earlier: Option<Listing>,
    latest: Option<Listing>,
    problem: Option<Condition>,
}

impl RuntimeSandboxes {
    /// Asks at `socket` now, and every `period`, for as long as the thread's tasks run.
    pub(crate) fn follow(socket: PathBuf, period: Duration) -> Self {
        let sandboxes = Self::default();
        let last = Rc::clone(&sandboxes.last);
        tokio::task::spawn_local(async move {
            loop {
                let asked = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
                let answer = cri::list_pod_sandboxes(&socket).await;
                last.borrow_mut().take(answer.map(|sandboxes| Listing { asked, sandboxes }), &socket);
                tokio::time::sleep(period).await;
            }
        });
        sandboxes
    }

    /// The last two answers, where both came and nothing failed in between.
    pub(crate) fn two_looks(&self) -> Option<TwoLooks> {
        let last = self.last.borrow();
        Some(TwoLooks { earlier: last.earlier.clone()?, latest: last.latest.clone()? })
    }

    /// Why the runtime cannot be asked.
    pub(crate) fn problem(&self) -> Option<Condition> {
        self.last.borrow().problem.clone()
    }
}

impl Last {
    fn take(&mut self, answer: Result<Listing, CriError>, socket: &std::path::Path) {
        match answer {
            Ok(listing) => {
                self.earlier = self.latest.replace(listing);
                self.problem = None;
            }
            Err(error) => {
                // A runtime that is starting again may know less at first: both looks are made anew.
                *self = Self::default();
                let socket = socket.display().to_string();
                self.problem = Some(Condition::RuntimeSilent { socket, reason: error.to_string() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_makes_both_looks_anew() {
        let sandboxes = RuntimeSandboxes::default();
        let socket = std::path::Path::new("/run/x.sock");
        let take = |answer| sandboxes.last.borrow_mut().take(answer, socket);
        let listing = |asked| Ok(Listing { asked, sandboxes: ["a".to_owned()].into() });
        take(listing(1));
        assert_eq!(sandboxes.two_looks(), None);
        take(listing(2));
        assert_eq!(
            sandboxes.two_looks().map(|looks| (looks.earlier.asked, looks.latest.asked)),
            Some((1, 2))
        );
        take(Err(CriError::Silent));
        assert_eq!(sandboxes.two_looks(), None);
        assert_eq!(sandboxes.problem().map(|condition| condition.code()), Some("runtime-silent"));
        take(listing(4));
        assert_eq!(sandboxes.two_looks(), None);
        take(listing(5));
        assert!(sandboxes.two_looks().is_some() && sandboxes.problem().is_none());
    }
}
