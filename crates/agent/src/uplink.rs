//! The uplink's place: a move that was broken off is put back, and the one that is configured is made, once. Where that
//! fails, the agent goes on with everything else, tells why, and tries again.

mod attempt;
mod leaving;
mod schedule;

use std::path::Path;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kernel::netlink::{Protocol, Socket};
use kernel::{KernelError, address, link};
use link_name::LinkName;
use node_network::Condition;
use node_network::condition::LanCondition;
use node_network::settings::UplinkSettings;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use uplink::configured_by::sees_every_process;
use uplink::{Folders, LinkStatus, State, UplinkError};

use crate::paths::Paths;
use attempt::{Outcome, attempt};
pub(crate) use leaving::leave_all;
use schedule::Schedule;

/// How long the link is left to settle after a change that may end a refusal.
const SETTLING: Duration = Duration::from_secs(1);
/// How often it is looked whether a move that somebody makes by hand has come to its end.
const BY_HAND: Duration = Duration::from_secs(30);

/// Brings the uplink to where the settings want it.
#[derive(Debug)]
pub(crate) struct UplinkKeeper {
    wanted: Option<UplinkSettings>,
    paths: Paths,
    work: Work,
    schedule: Schedule,
    trouble: Option<Condition>,
    /// It was moved, or is to be, by us, and a DHCP client on it might be invisible.
    blind: bool,
}

/// What there is to do.
#[derive(Debug)]
enum Work {
    /// Nothing any more.
    Done,
    /// The next attempt is due at this time, or soon after the link looks other than it did.
    Waiting { until: Instant, unlike: Option<Look> },
    /// An attempt is being made, at a link that looked like this.
    Trying { attempt: JoinHandle<Outcome>, look: Look },
}

impl UplinkKeeper {
    /// Nothing is done yet.
    pub(crate) fn new(wanted: Option<&UplinkSettings>, paths: &Paths) -> Self {
        Self {
            wanted: wanted.cloned(),
            paths: paths.clone(),
            work: Work::Done,
            schedule: Schedule::default(),
            trouble: None,
            blind: false,
        }
    }

    /// The first attempt, before anything else is done on the node.
    pub(crate) async fn begin(&mut self) {
        self.try_now();
        self.finish().await;
    }

    /// Waits for the end of an attempt that is being made: broken off, it would leave the node without a network until its
    /// watchdog has put everything back.
    pub(crate) async fn finish(&mut self) {
        if matches!(self.work, Work::Trying { .. }) {
            self.changed().await;
        }
    }

    /// Why the uplink is not where it shall be, and what cannot be seen about it.
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        let blind = self.wanted.as_ref().filter(|_| self.blind);
        let blind = blind.map(|wanted| {
            Condition::Lan(LanCondition::UplinkClientsUnseen { link: wanted.link.to_string() })
        });
        self.trouble.iter().cloned().chain(blind).collect()
    }

    /// After the kernel told of something: a link that looks other than when it was refused is tried soon.
    pub(crate) fn heed(&mut self) {
        let (Some(wanted), Work::Waiting { until, unlike: Some(seen) }) = (&self.wanted, &mut self.work)
        else {
            return;
        };
        let now = look_at(&wanted.link);
        if now != *seen {
            *seen = now;
            *until = (*until).min(Instant::now() + SETTLING);
        }
    }

    /// Does what is due when it is, and resolves once something came of it.
    pub(crate) async fn changed(&mut self) {
        if let Work::Waiting { until, .. } = self.work {
            sleep_until(until.into()).await;
            self.try_now();
        }
        match &mut self.work {
            Work::Done => std::future::pending().await,
            // Nothing was attempted; the reason may be another.
            Work::Waiting { .. } => {}
            Work::Trying { attempt, look } => {
                let ended = attempt.await;
                let look = std::mem::take(look);
                self.conclude(ended.unwrap_or_else(|error| Outcome::Reversed(error.to_string())), look);
            }
        }
    }

    /// Puts back what was broken off, and starts an attempt where the link is not in its place.
    fn try_now(&mut self) {
        let standing = match self.standing() {
            Ok(standing) => standing,
            Err(error) => {
                self.tell(Condition::Lan(LanCondition::UplinkNotPutBack { reason: error.to_string() }));
                let until = Instant::now() + self.schedule.after_refusal();
                self.work = Work::Waiting { until, unlike: None };
                return;
            }
        };
        self.work = match (standing, &self.wanted) {
            (Standing::Open, Some(wanted)) => {
                self.blind = !sees_every_process();
                let look = look_at(&wanted.link);
                let (wanted, paths) = (wanted.clone(), self.paths.clone());
                Work::Trying { attempt: tokio::task::spawn_blocking(move || attempt(&wanted, &paths)), look }
            }
            (Standing::ByHand, _) => Work::Waiting { until: Instant::now() + BY_HAND, unlike: None },
            (Standing::Open | Standing::Settled, _) => {
                self.trouble = None;
                Work::Done
            }
        };
    }

    fn conclude(&mut self, outcome: Outcome, look: Look) {
        let Some(UplinkSettings { link, bridge, .. }) = &self.wanted else { return };
        let lacks = |reason| {
            Condition::Lan(LanCondition::UplinkNotJoined {
                link: link.to_string(),
                bridge: bridge.to_string(),
                reason,
            })
        };
        let (trouble, work) = match outcome {
            Outcome::Joined => {
                tracing::info!(%link, %bridge, "the uplink joined the bridge");
                self.trouble = None;
                self.work = Work::Done;
                return;
            }
            Outcome::Refused(reason) => {
                let until = Instant::now() + self.schedule.after_refusal();
                (lacks(reason), Work::Waiting { until, unlike: Some(look) })
            }
            // The link's changes are those of the move and of its end.
            Outcome::Reversed(reason) => {
                let until = Instant::now() + self.schedule.after_reversal();
                (lacks(reason), Work::Waiting { until, unlike: None })
            }
        };
        self.work = work;
        self.tell(trouble);
    }

    fn tell(&mut self, trouble: Condition) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!("{trouble}");
        }
        self.trouble = Some(trouble);
    }

    /// Where the link stands; a move of which nobody takes care any more is put back first.
    fn standing(&mut self) -> Result<Standing, UplinkError> {
        let found = uplink::status(&folders(&self.paths))?;
        for link in &found {
            match link.state {
                State::Joined => {}
                State::PutBack | State::Lost => tracing::warn!(link = %link.link, "{link}"),
                State::Moving | State::Unconfirmed { .. } => tracing::info!(link = %link.link, "{link}"),
            }
        }
        let Some(wanted) = &self.wanted else { return Ok(Standing::Settled) };
        let of_link = |status: &&LinkStatus| status.link == wanted.link.as_str();
        match found.iter().find(of_link).map(|status| (&status.state, status.bridge.as_str())) {
            Some((State::Joined, bridge)) if bridge == wanted.bridge.as_str() => {
                self.blind = !sees_every_process();
                Ok(Standing::Settled)
            }
            // Where somebody moves it by hand, that person decides.
            Some((State::Moving | State::Unconfirmed { .. }, _)) => Ok(Standing::ByHand),
            // The node's own configuration has put it there.
            _ if is_port(&wanted.link, &wanted.bridge)? => Ok(Standing::Settled),
            _ => Ok(Standing::Open),
        }
    }
}

/// What is to be done about the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is in its place, or has none to go to.
    Settled,
    /// Somebody else moves it.
    ByHand,
    /// It is to be moved.
    Open,
}

/// What a refusal may rest on: the link's index, flags, carrier and master, and its addresses with their flags.
type Look = Option<(u32, u32, bool, Option<u32>, Vec<(IpNet, u32)>)>;

fn look_at(name: &LinkName) -> Look {
    let look = || -> Result<Look, KernelError> {
        let mut socket = Socket::open(Protocol::Route)?;
        let Some(link) = link::by_name(&mut socket, name.as_str())? else { return Ok(None) };
        let addresses = address::dump(&mut socket)?.into_iter().filter(|held| held.index == link.index);
        let addresses = addresses.map(|held| (held.ip, held.flags)).collect();
        Ok(Some((link.index, link.flags, link.carrier, link.master, addresses)))
    };
    // The next attempt tells what is wrong with the kernel.
    look().unwrap_or_default()
}

fn is_port(link: &LinkName, bridge: &LinkName) -> Result<bool, KernelError> {
    let mut socket = Socket::open(Protocol::Route)?;
    let master = link::by_name(&mut socket, link.as_str())?.and_then(|link| link.master);
    let bridge = link::by_name(&mut socket, bridge.as_str())?.map(|bridge| bridge.index);
    Ok(master.is_some() && master == bridge)
}

fn folders(paths: &Paths) -> Folders {
    Folders {
        root: paths.on_node(Path::new("/")),
        run: paths.run_dir(),
        lib: paths.var_dir(),
        sysctls: paths.sysctls().to_owned(),
    }
}
