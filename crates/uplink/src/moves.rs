//! One move from the journal's first word to its last: carried out, verified, announced, probed, settled or put back.

use std::time::Duration;

use kernel::announce;
use kernel::link::{self, Mac};
use kernel::netlink::{Protocol, Socket};
use kernel::packet;
use kernel::sysctl::Sysctls;

use crate::carry_out;
use crate::error::UplinkError;
use crate::holdings::Holdings;
use crate::journal::{Before, Joined, Journal, Phase, Realm, SCHEMA_VERSION};
use crate::object::{LinkRef, Object};
use crate::observe;
use crate::persist::Files;
use crate::plan::{self, NewBridge, Observed, Place, Plan, Wanted};
use crate::probe::{self, Target};
use crate::store::{self, Store};
use crate::watchdog;

/// How often a plan is made anew for what the last one did not reach: others may change things meanwhile.
const ROUNDS: usize = 4;
/// Routes that a router's advertisement made (`RTPROT_RA`).
const PROTOCOL_RA: u8 = 9;

/// Kernel and journal of one link's moves.
#[derive(Debug)]
pub(crate) struct Mover {
    pub(crate) socket: Socket,
    pub(crate) sysctls: Sysctls,
    pub(crate) store: Store,
    realm: Realm,
}

/// A move that was decided on.
#[derive(Clone, Debug)]
pub(crate) struct Move {
    /// The link.
    pub(crate) link: LinkRef,
    /// The bridge.
    pub(crate) bridge: NewBridge,
    /// What is there.
    pub(crate) before: Before,
    /// Who must answer afterwards.
    pub(crate) targets: Vec<Target>,
    /// For how long they are waited for.
    pub(crate) patience: Duration,
    /// When it is put back unless confirmed; zero where the probes are confirmation enough.
    pub(crate) confirm_within: Duration,
    /// What is written for the next boot.
    pub(crate) files: Files,
}

impl Mover {
    /// Opens the kernel in the calling thread's network namespace.
    pub(crate) fn open(store: Store, sysctls: Sysctls) -> Result<Self, UplinkError> {
        let mut socket = Socket::open(Protocol::Route)?;
        socket.enlarge_receive_buffer();
        let realm = store::realm()?;
        Ok(Self { socket, sysctls, store, realm })
    }

    pub(crate) fn realm(&self) -> &Realm {
        &self.realm
    }

    /// What the holder holds, for the journal.
    pub(crate) fn before(&mut self, place: Place, observed: &Observed) -> Result<Before, UplinkError> {
        let (holder, holdings) = match (place, &observed.bridge) {
            (Place::Bridge, Some(bridge)) => (bridge.clone(), observed.on_bridge.clone()),
            _ => (observed.port.link.clone(), observed.on_link.clone()),
        };
        Ok(Before {
            place,
            holder_link_local: observe::link_local_mode(&mut self.socket, holder.index)?,
            link_local: observed.port.link_local,
            settings: observe::sysctls(&self.sysctls, &holder.name)?,
            holder,
            holdings,
            at: store::now_ms() / 1000,
        })
    }

    /// The join that holds: of this boot, or one that this boot has repeated by the configuration that was persisted.
    pub(crate) fn joined(&mut self) -> Result<Option<Joined>, UplinkError> {
        if let Some(joined) = self.store.read_joined()?.filter(|joined| joined.realm == self.realm) {
            return Ok(Some(joined));
        }
        let Some(joined) = self.store.read_persisted()? else { return Ok(None) };
        let observed = observe::observe(&mut self.socket, &joined.link.name, &joined.bridge.name)?;
        let Some(Observed { port, bridge: Some(bridge), .. }) = observed else { return Ok(None) };
        let repeated = port.master == Some(bridge.index) && self.is_ours(&bridge, &joined.bridge)?;
        Ok(repeated.then(|| Joined { realm: self.realm.clone(), link: port.link, ..joined }))
    }

    /// Makes the move. The caller holds the store's lock.
    pub(crate) fn make(&mut self, wanted: &Move) -> Result<(), UplinkError> {
        let id = format!("{}-{}", rustix::process::getpid().as_raw_nonzero(), store::now_ms());
        let lifeline = watchdog::start(&self.store, &self.sysctls, &id)?;
        let mut journal = Journal {
            schema_version: SCHEMA_VERSION,
            id,
            realm: self.realm.clone(),
            link: wanted.link.clone(),
            bridge: wanted.bridge.clone(),
            before: wanted.before.clone(),
            files: wanted.files.clone(),
            phase: Phase::Moving,
        };
        self.store.write_journal(&journal)?;
        let moved = self.carry_out_and_probe(&journal, wanted).and_then(|()| {
            let settled = if wanted.confirm_within.is_zero() {
                self.settle(&journal)
            } else {
                self.await_confirmation(&mut journal, wanted.confirm_within)
            };
            settled.map_err(|error| error.to_string())
        });
        if let Err(reason) = moved {
            return Err(match self.put_back(&journal) {
                Ok(()) => UplinkError::PutBack { reason },
                Err(error) => UplinkError::NotPutBack { reason, left: error.to_string() },
            });
        }
        drop(lifeline);
        Ok(())
    }

    /// Leaves the move to its watchdog; one that is not there (any more) would put nothing back.
    fn await_confirmation(&self, journal: &mut Journal, within: Duration) -> Result<(), UplinkError> {
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        journal.phase = Phase::Unconfirmed { until_ms: store::now_ms().saturating_add(within) };
        self.store.write_journal(journal)?;
        if self.store.is_watched()? { Ok(()) } else { Err(UplinkError::Unwatched) }
    }

    /// The move is as it shall stay. The caller holds the store's lock.
    pub(crate) fn settle(&mut self, journal: &Journal) -> Result<(), UplinkError> {
        journal.files.write()?;
        self.record(journal, if journal.before.place == Place::Link { Place::Bridge } else { Place::Link })
    }

    /// Writes down where the addresses are, and ends the journal.
    fn record(&mut self, journal: &Journal, place: Place) -> Result<(), UplinkError> {
        match place {
            Place::Bridge => self.store.write_joined(&Joined {
                schema_version: SCHEMA_VERSION,
                realm: journal.realm.clone(),
                link: journal.link.clone(),
                bridge: journal.bridge.clone(),
                link_local: journal.before.link_local,
                files: if journal.before.place == Place::Link {
                    journal.files.clone()
                } else {
                    journal.files.reversed()
                },
            })?,
            Place::Link => self.store.remove_joined()?,
        }
        self.store.remove_journal()
    }

    fn carry_out_and_probe(&mut self, journal: &Journal, wanted: &Move) -> Result<(), String> {
        let place = if journal.before.place == Place::Link { Place::Bridge } else { Place::Link };
        let holder = self.reach(journal, place)?;
        self.announce(&holder, journal.bridge.mac).map_err(|error| error.to_string())?;
        let silent = probe::silent(&mut self.socket, holder.index, &wanted.targets, wanted.patience)
            .map_err(|error| error.to_string())?;
        if silent.is_empty() {
            return Ok(());
        }
        let silent: Vec<_> = silent.iter().map(ToString::to_string).collect();
        Err(format!("{} does not answer over {}", silent.join(", "), holder.name))
    }

    /// Puts everything back as the journal tells, whatever was done since, and ends the journal. The caller holds the
    /// store's lock.
    pub(crate) fn put_back(&mut self, journal: &Journal) -> Result<(), UplinkError> {
        let failed = |left| UplinkError::NotPutBack { reason: "the move is to be put back".to_owned(), left };
        let holder = self.reach(journal, journal.before.place).map_err(failed)?;
        // Written by a command that was killed while it settled; somebody else's changes stay.
        let _ = journal.files.reversed().write();
        // Those who heard of the move hear of its end; everything is there without it.
        let _ = self.announce(&holder, journal.bridge.mac);
        self.record(journal, journal.before.place)
    }

    /// Brings everything that the journal tells to `place`, from whatever state there is; gives who holds it then.
    fn reach(&mut self, journal: &Journal, place: Place) -> Result<LinkRef, String> {
        let mut left = Vec::new();
        for _ in 0..ROUNDS {
            let observed = self.observe(journal).map_err(|error| error.to_string())?;
            if place == Place::Bridge && observed.bridge.is_none() {
                let settings = &journal.before.settings;
                carry_out::create_bridge(&mut self.socket, &self.sysctls, &journal.bridge, settings)
                    .map_err(|error| error.to_string())?;
                continue;
            }
            let (holder, wanted, plan) = decide(journal, place, &observed);
            let refused = carry_out::carry_out(&mut self.socket, &plan).map_err(|error| error.to_string())?;
            let now = self.observe(journal).map_err(|error| error.to_string())?;
            left = lacking(place, &wanted, &now);
            if left.is_empty() {
                if place == Place::Bridge {
                    let mode = journal.before.holder_link_local;
                    carry_out::set_link_local(&mut self.socket, &holder, mode)
                        .map_err(|error| error.to_string())?;
                }
                return Ok(holder);
            }
            left.extend(refused.iter().map(ToString::to_string));
        }
        Err(left.join("; "))
    }

    fn observe(&mut self, journal: &Journal) -> Result<Observed, UplinkError> {
        let name = journal.link.name.as_str();
        let observed = observe::observe(&mut self.socket, name, &journal.bridge.name)?;
        let gone = || UplinkError::Nothing(format!("link {name} is gone"));
        let observed = observed.ok_or_else(gone)?;
        match &observed.bridge {
            Some(bridge) if !self.is_ours(bridge, &journal.bridge)? => Err(UplinkError::Nothing(format!(
                "{} is not the bridge that the move made: it is left alone",
                bridge.name
            ))),
            _ => Ok(observed),
        }
    }

    /// The name was free when the move began; its kind and address tell whether it is the bridge that was made then.
    fn is_ours(&mut self, bridge: &LinkRef, made: &NewBridge) -> Result<bool, UplinkError> {
        let found = link::by_index(&mut self.socket, bridge.index)?;
        Ok(found.is_some_and(|found| found.kind.as_deref() == Some("bridge") && found.mac == Some(made.mac)))
    }

    /// Tells hosts and switches where the addresses are, and asks routers for what they advertise.
    fn announce(&mut self, holder: &LinkRef, mac: Mac) -> Result<(), UplinkError> {
        let all = observe::dump(&mut self.socket)?;
        let held = Holdings::of(&all, holder);
        let forwards = self.sysctls.read(&format!("net/ipv6/conf/{}/forwarding", holder.name))?;
        let router = forwards.is_some_and(|value| value != "0");
        let addresses: Vec<_> = held.addresses.iter().filter_map(Object::address).collect();
        let mut frames: Vec<_> =
            addresses.iter().map(|address| announce::announcement(address.ip.addr(), mac, router)).collect();
        let learnt = held.routes.iter().filter_map(|held| held.object.route());
        if learnt.into_iter().any(|route| route.protocol == PROTOCOL_RA) {
            let own = addresses.iter().find_map(|address| match address.ip {
                ipnet::IpNet::V6(ip) if ip.addr().is_unicast_link_local() => Some(ip.addr()),
                _ => None,
            });
            frames.extend(own.map(|own| announce::router_solicitation(own, mac)));
        }
        packet::send_all(holder.index, &frames)?;
        Ok(())
    }
}

/// Who is to hold everything, what, and the changes.
fn decide(journal: &Journal, place: Place, observed: &Observed) -> (LinkRef, Wanted, Plan) {
    let before = &journal.before;
    let elapsed = u32::try_from((store::now_ms() / 1000).saturating_sub(before.at)).unwrap_or(u32::MAX);
    let holder = match (place, &observed.bridge) {
        (Place::Bridge, Some(bridge)) => bridge.clone(),
        _ => observed.port.link.clone(),
    };
    let holdings = before.holdings.aged(elapsed).moved(&before.holder, &holder);
    let wanted = Wanted { holdings, link_local: before.link_local };
    let plan = match place {
        Place::Bridge => plan::into_bridge(observed, &holder, &wanted),
        Place::Link => plan::onto_link(observed, &wanted),
    };
    (holder, wanted, plan)
}

/// What is not as wanted, in words.
fn lacking(place: Place, wanted: &Wanted, now: &Observed) -> Vec<String> {
    let present = if place == Place::Bridge { &now.on_bridge } else { &now.on_link };
    let mut lacking: Vec<_> =
        wanted.holdings.missing_from(present).iter().map(|object| format!("{object} is missing")).collect();
    match (place, &now.bridge) {
        (Place::Bridge, Some(bridge)) if now.port.master != Some(bridge.index) => {
            lacking.push(format!("{} is no port of {}", now.port.link.name, bridge.name));
        }
        (Place::Link, Some(bridge)) => lacking.push(format!("bridge {} is there", bridge.name)),
        (Place::Link, None) if now.port.link_local != wanted.link_local => {
            lacking.push(format!("addr_gen_mode of {} is {}", now.port.link.name, now.port.link_local));
        }
        _ => {}
    }
    lacking
}
