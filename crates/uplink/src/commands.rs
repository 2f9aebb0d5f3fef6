//! What a user asks for: join, leave, confirm, and the state, which also repairs.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kernel::address::{self, Address};
use kernel::link;
use kernel::sysctl::Sysctls;
use link_name::LinkName;
use serde::Serialize;

use crate::carry_out;
use crate::check::{self, Facts, Refusal};
use crate::configured_by::{Program, configured_by, sees_every_process};
use crate::error::UplinkError;
use crate::holdings::{Dumped, Holdings};
use crate::journal::{Before, Due, Phase};
use crate::moves::{Move, Mover};
use crate::object::{Kind, LinkRef};
use crate::observe;
use crate::persist::{self, FileChange, Files, Proposal};
use crate::plan::{self, LINK_LOCAL_NONE, NewBridge, Place, Wanted};
use crate::probe::{self, Target};
use crate::store::{self, Store};

/// For how long a target may stay silent.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// Where files are.
#[derive(Clone, Debug)]
pub struct Folders {
    /// `/`, or where a container has the host's.
    pub root: PathBuf,
    /// `/run/hostgw`.
    pub run: PathBuf,
    /// `/var/lib/hostgw`.
    pub lib: PathBuf,
    /// `/proc/sys`, or where a container can write what is below it.
    pub sysctls: PathBuf,
}

/// A wish to join or leave.
#[derive(Clone, Debug)]
pub struct Request {
    /// The link.
    pub link: LinkName,
    /// The bridge; of a leave, the record of the join names it.
    pub bridge: LinkName,
    /// When it is put back unless confirmed; zero where the probes are confirmation enough.
    pub confirm_within: Duration,
    /// Who must answer; the gateways where nobody is named.
    pub probes: Vec<Target>,
    /// Who must answer besides.
    pub also: Vec<Target>,
    /// The program that configures the link is changed as well.
    pub persist: bool,
}

/// A move that was looked into, and can be made.
#[derive(Debug)]
pub struct Prepared {
    mover: Mover,
    wanted: Move,
    steps: Vec<String>,
    proposal: Option<Proposal>,
    notes: Vec<String>,
    /// Held from before the look to the end.
    _lock: store::Lock,
}

impl Prepared {
    /// The sequence, one change each.
    #[must_use]
    pub fn steps(&self) -> &[String] {
        &self.steps
    }

    /// What the operator should know, and nobody can change here.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// What the configuration becomes once the move is settled.
    #[must_use]
    pub fn proposal(&self) -> Option<&Proposal> {
        self.proposal.as_ref()
    }

    /// What is written for the next boot.
    #[must_use]
    pub fn files(&self) -> &[FileChange] {
        &self.wanted.files.changes
    }

    /// Who will have to answer.
    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.wanted.targets
    }

    /// Makes the move.
    pub fn make(mut self) -> Result<(), UplinkError> {
        carry_out::refuse_unprivileged(&mut self.mover.socket, &self.wanted.link)?;
        let silent = probe::silent(
            &mut self.mover.socket,
            self.wanted.before.holder.index,
            &self.wanted.targets,
            self.wanted.patience,
        )?;
        if let Some(target) = silent.first() {
            return Err(UplinkError::SilentBefore { target: target.to_string() });
        }
        // What was learnt by probing, and since, is moved as well.
        let place = self.wanted.before.place;
        let (link, bridge) = (&self.wanted.link.name, &self.wanted.bridge.name);
        let observed = observe::observe(&mut self.mover.socket, link, bridge)?
            .ok_or_else(|| Refusal::NoLink { link: link.clone() })?;
        let link_local = self.wanted.before.link_local;
        self.wanted.before = self.mover.before(place, &observed)?;
        self.wanted.before.link_local = link_local;
        self.mover.make(&self.wanted)
    }
}

/// Looks whether the link can join, and how. Nothing is touched, but a broken-off move of the past is put back.
pub fn prepare_join(request: &Request, folders: &Folders) -> Result<Prepared, UplinkError> {
    let store = Store::of(folders, request.link.as_str());
    let mut mover = Mover::open(store, Sysctls::at(&folders.sysctls))?;
    if link::by_name(&mut mover.socket, request.link.as_str())?.is_none() {
        return Err(Refusal::NoLink { link: request.link.to_string() }.into());
    }
    let lock = mover.store.lock()?;
    end_unsettled(&mut mover, request.link.as_str())?;
    let links = link::dump(&mut mover.socket)?;
    let all = observe::dump(&mut mover.socket)?;
    let name = request.link.as_str();
    let index = links.iter().find(|link| link.name == name).map_or(0, |link| link.index);
    let held = LinkRef { index, name: name.to_owned() };
    let addresses: Vec<IpAddr> = Holdings::of(&all, &held)
        .addresses
        .iter()
        .filter_map(|object| object.address().map(|address| address.ip.addr()))
        .collect();
    let program = configured_by(&folders.root, &held, &addresses);
    let facts = Facts {
        links: &links,
        all: &all,
        wireless: is_wireless(name),
        program: program.as_ref(),
        persist: request.persist,
        probes: request.probes.len(),
    };
    let found = check::join(&request.link, &request.bridge, &facts)?;
    let bridge =
        NewBridge { name: request.bridge.to_string(), mac: found.mac.unwrap_or_default(), mtu: found.mtu };
    let propose = || persist::propose(&folders.root, program.as_ref(), name, &bridge);
    let proposal = request.persist.then(propose).transpose()?;
    let files = Files {
        root: folders.root.clone(),
        changes: proposal.as_ref().map(|proposal| proposal.changes.clone()).unwrap_or_default(),
    };
    let observed = observe::observe(&mut mover.socket, name, &bridge.name)?
        .ok_or_else(|| Refusal::NoLink { link: name.to_owned() })?;
    let before = mover.before(Place::Link, &observed)?;
    let mut targets = targets(&request.probes, &before.holdings, &before.holder);
    targets.extend(&request.also);
    // The bridge's index is not known yet; 0 stands for it.
    let made = LinkRef { index: 0, name: bridge.name.clone() };
    let wanted =
        Wanted { holdings: before.holdings.moved(&before.holder, &made), link_local: before.link_local };
    let mut steps = vec![format!(
        "create bridge {} with address {}, MTU {} and {} settings of {name}",
        bridge.name,
        Hexadecimal(&bridge.mac),
        bridge.mtu,
        before.settings.len()
    )];
    steps.extend(plan::into_bridge(&observed, &made, &wanted).changes().map(ToString::to_string));
    let notes = notes(&mover.sysctls, program.as_ref(), &all, &before)?;
    let wanted = Move {
        link: observed.port.link.clone(),
        bridge,
        before,
        targets,
        patience: PROBE_PATIENCE,
        confirm_within: request.confirm_within,
        files,
    };
    Ok(Prepared { mover, wanted, steps, proposal, notes, _lock: lock })
}

/// Looks whether a joined link can leave its bridge, and how.
pub fn prepare_leave(
    link: &LinkName,
    probes: &[Target],
    confirm_within: Duration,
    folders: &Folders,
) -> Result<Prepared, UplinkError> {
    let store = Store::of(folders, link.as_str());
    let lock = store.lock()?;
    let mut mover = Mover::open(store, Sysctls::at(&folders.sysctls))?;
    end_unsettled(&mut mover, link.as_str())?;
    let Some(joined) = mover.joined()? else {
        return Err(UplinkError::Nothing(format!(
            "{link} was not joined by `hostgw uplink join` since the boot, nor for each boot by --persist: there is \
             nothing to leave"
        )));
    };
    let links = link::dump(&mut mover.socket)?;
    let all = observe::dump(&mut mover.socket)?;
    let gone = || Refusal::NotJoined { link: link.to_string(), bridge: joined.bridge.name.clone() };
    let observed =
        observe::observe(&mut mover.socket, link.as_str(), &joined.bridge.name)?.ok_or_else(gone)?;
    let bridge = observed.bridge.clone().ok_or_else(gone)?;
    check::leave(&observed.port.link, &bridge, &links, &all)?;
    let mut before = mover.before(Place::Bridge, &observed)?;
    before.link_local = joined.link_local;
    let targets = targets(probes, &before.holdings, &bridge);
    let wanted = Wanted {
        holdings: before.holdings.moved(&bridge, &observed.port.link),
        link_local: joined.link_local,
    };
    let steps = plan::onto_link(&observed, &wanted).changes().map(ToString::to_string).collect();
    let wanted = Move {
        link: observed.port.link.clone(),
        bridge: joined.bridge,
        before,
        targets,
        patience: PROBE_PATIENCE,
        confirm_within,
        files: joined.files.reversed(),
    };
    Ok(Prepared { mover, wanted, steps, proposal: None, notes: Vec::new(), _lock: lock })
}

/// Settles the moves that wait for it; gives their links.
pub fn confirm(folders: &Folders) -> Result<Vec<String>, UplinkError> {
    let mut confirmed = Vec::new();
    for (link, store) in Store::all(folders)? {
        let _lock = store.lock()?;
        let mut mover = Mover::open(store, Sysctls::at(&folders.sysctls))?;
        let Some(journal) = mover.store.read_journal()? else { continue };
        if let Due::Wait(_) = journal.due(mover.realm(), store::now_ms()) {
            mover.settle(&journal)?;
            confirmed.push(link);
        }
    }
    if confirmed.is_empty() {
        return Err(UplinkError::Nothing("no move waits for a confirmation".to_owned()));
    }
    Ok(confirmed)
}

/// How a link stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// The link.
    pub link: String,
    /// The bridge.
    pub bridge: String,
    /// What it is.
    pub state: State,
}

/// Where a move stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", tag = "name")]
pub enum State {
    /// A command is at work.
    Moving,
    /// It is put back unless it is confirmed.
    Unconfirmed {
        /// In so many seconds.
        seconds: u64,
    },
    /// It was found broken off, without a watchdog, and has been put back.
    PutBack,
    /// The link is the bridge's port.
    Joined,
    /// It was joined, and is not a port of that bridge any more.
    Lost,
}

impl fmt::Display for LinkStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { link, bridge, state } = self;
        match state {
            State::Moving => write!(f, "{link}: a command moves it now"),
            State::Unconfirmed { seconds } => write!(
                f,
                "{link}: moved, bridge {bridge}; put back in {seconds} s unless `hostgw uplink confirm` is called"
            ),
            State::PutBack => {
                write!(f, "{link}: a move to or from {bridge} was broken off; it has been put back")
            }
            State::Joined => write!(f, "{link}: port of {bridge}"),
            State::Lost => {
                write!(f, "{link}: joined {bridge}, and is not its port any more: somebody took it out")
            }
        }
    }
}

/// How each link stands that was ever moved since the boot. What is broken off, and has no watchdog any more, is put back.
pub fn status(folders: &Folders) -> Result<Vec<LinkStatus>, UplinkError> {
    let mut found = Vec::new();
    for (link, store) in Store::all(folders)? {
        let Some(_lock) = store.try_lock()? else {
            let bridge = store.read_journal()?.map(|journal| journal.bridge.name).unwrap_or_default();
            found.push(LinkStatus { link, bridge, state: State::Moving });
            continue;
        };
        let mut mover = Mover::open(store, Sysctls::at(&folders.sysctls))?;
        if let Some((bridge, state)) = look_after(&mut mover)? {
            found.push(LinkStatus { link, bridge, state });
        }
    }
    Ok(found)
}

/// The state of one link, whose store's lock the caller holds; a move without a watchdog is put back.
fn look_after(mover: &mut Mover) -> Result<Option<(String, State)>, UplinkError> {
    if let Some(journal) = mover.store.read_journal()? {
        let bridge = journal.bridge.name.clone();
        let due = journal.due(mover.realm(), store::now_ms());
        if due == Due::Forget {
            mover.store.remove_journal()?;
        } else if !mover.store.is_watched()? {
            mover.put_back(&journal)?;
            return Ok(Some((bridge, State::PutBack)));
        } else {
            let state = match (&journal.phase, due) {
                (Phase::Unconfirmed { .. }, Due::Wait(wait)) => {
                    State::Unconfirmed { seconds: wait.as_secs() }
                }
                _ => State::Moving,
            };
            return Ok(Some((bridge, state)));
        }
    }
    let Some(joined) = mover.joined()? else { return Ok(None) };
    let observed = observe::observe(&mut mover.socket, &joined.link.name, &joined.bridge.name)?;
    let holds = observed.is_some_and(|observed| {
        observed.bridge.is_some_and(|bridge| observed.port.master == Some(bridge.index))
    });
    Ok(Some((joined.bridge.name, if holds { State::Joined } else { State::Lost })))
}

/// Before a new move: an old one that nobody watches is put back, one that waits is in the way.
fn end_unsettled(mover: &mut Mover, link: &str) -> Result<(), UplinkError> {
    match look_after(mover)? {
        Some((_, State::Unconfirmed { .. } | State::Moving)) => {
            Err(UplinkError::Unconfirmed { link: link.to_owned() })
        }
        _ => Ok(()),
    }
}

/// What cannot be kept, or is for others to change.
fn notes(
    sysctls: &Sysctls,
    program: Option<&Program>,
    all: &Dumped,
    before: &Before,
) -> Result<Vec<String>, UplinkError> {
    let mut notes = Vec::new();
    let link = &before.holder;
    if let Some(program) = program {
        notes.push(format!("{} is configured by {program}", link.name));
    }
    if sysctls.read("net/bridge/bridge-nf-call-iptables")?.as_deref() == Some("1") {
        let note =
            "net.bridge.bridge-nf-call-iptables is 1: a DROP in FORWARD hits frames that the bridge forwards";
        notes.push(note.to_owned());
    }
    let addresses = all.objects.iter().filter(|(kind, _)| *kind == Kind::Address);
    for address in addresses.filter_map(|(_, payload)| Address::parse(payload)) {
        let temporary = address.ip.addr().is_ipv6() && address.flags & address::TEMPORARY != 0;
        if address.index != link.index {
            continue;
        }
        if temporary {
            notes.push(format!("the temporary address {} becomes an ordinary one", address.ip.addr()));
        }
        let ends = address.ip.addr().is_ipv4() && address.valid_lifetime != u32::MAX;
        if ends && program.is_none() {
            notes.push(format!(
                "{} ends in {} s, and nothing is seen here that would prolong it: see to whoever lends it",
                address.ip.addr(),
                address.valid_lifetime
            ));
        }
    }
    if !sees_every_process() {
        notes.push(format!(
            "the machine's processes cannot be seen from here, so that a DHCP client without a socket between two renewals \
             (udhcpc, dhcpcd, connmand) would not be noticed: make sure that none works on {}",
            link.name
        ));
    }
    if before.link_local > LINK_LOCAL_NONE {
        let note = "stable-privacy addresses: the kernel will learn others for the bridge beside those that are moved";
        notes.push(note.to_owned());
    }
    Ok(notes)
}

/// Those that were named, else the default gateways over the holder.
fn targets(named: &[Target], holdings: &Holdings, holder: &LinkRef) -> Vec<Target> {
    if !named.is_empty() {
        return named.to_vec();
    }
    let gateways: BTreeSet<IpAddr> = holdings
        .routes
        .iter()
        .flat_map(|held| held.object.default_gateways())
        .filter(|(_, index)| *index == holder.index)
        .map(|(gateway, _)| gateway)
        .collect();
    gateways.into_iter().map(Target::Host).collect()
}

/// A radio has one of these below its folder.
fn is_wireless(link: &str) -> bool {
    let folder = Path::new("/sys/class/net").join(link);
    ["wireless", "phy80211"].iter().any(|entry| folder.join(entry).exists())
}

/// An Ethernet address as `ip` writes it.
struct Hexadecimal<'a>(&'a [u8; 6]);

impl fmt::Display for Hexadecimal<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes: Vec<_> = self.0.iter().map(|byte| format!("{byte:02x}")).collect();
        f.write_str(&bytes.join(":"))
    }
}
