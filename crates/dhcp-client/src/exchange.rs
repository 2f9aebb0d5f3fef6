//! One exchange with the servers of a link (RFC 2131, section 4.4): what to send when, what to make of an answer, and
//! when to give up. The caller sends, receives and passes the time.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::Mac;
use crate::message::{Kind, MAX_MESSAGE, Message};
use crate::options::{Options, code};
use crate::pace::{Dice, wait_after};
use crate::terms::Terms;

/// How often a server that offered is asked before it is given up for another.
const REQUESTS: u32 = 3;
/// How often servers are asked about an address of old before a new one is asked for.
const REBOOT_REQUESTS: u32 = 2;
/// How many answers that are of no use are remembered for the error.
const REMEMBERED: usize = 6;
/// The longest text of a server that is shown.
const SHOWN: usize = 100;

/// Who asks, and for what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The hardware address that the servers are told.
    pub mac: Mac,
    /// Who it is (option 61).
    pub client_id: Vec<u8>,
    /// Further options that are sent.
    pub provided: Vec<(u8, Vec<u8>)>,
    /// The options that are asked for (option 55).
    pub requested: Vec<u8>,
    /// Of which an address must be; any will do where there is none.
    pub subnet: Option<Ipv4Net>,
}

/// What an exchange is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// An address, this one if it can be had.
    Acquire {
        /// Only a wish.
        wished: Option<Ipv4Addr>,
    },
    /// The address of an earlier life, or else another (INIT-REBOOT).
    Reboot {
        /// Which.
        address: Ipv4Addr,
    },
    /// More time from the server that lent the address.
    Renew {
        /// Which.
        address: Ipv4Addr,
    },
    /// More time from any server.
    Rebind {
        /// Which.
        address: Ipv4Addr,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Send this payload: to everybody, but for [`Goal::Renew`], where it goes to the lease's server.
    Send(Vec<u8>),
    /// Wait for an answer until then, and look again.
    Wait(Duration),
    /// It is over.
    GiveUp(ExchangeError),
}

/// What an answer came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The address is the client's.
    Bound(Terms),
    /// It is not (any more), in the server's words. Only for [`Goal::Renew`] and [`Goal::Rebind`]: the others go on.
    Refused(String),
}

/// Why there is no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// No answer at all.
    #[error("no DHCP server answered within {seconds} s: is one on this link, and has it addresses left?")]
    Silent {
        /// How long was waited.
        seconds: u64,
    },
    /// Answers of no use.
    #[error("no usable answer of a DHCP server within {seconds} s: {}", ignored.join("; "))]
    Unusable {
        /// How long was waited.
        seconds: u64,
        /// Why each was of no use.
        ignored: Vec<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Selecting { wished: Option<Ipv4Addr> },
    Requesting(Box<Terms>),
    Rebooting(Ipv4Addr),
    Prolonging { address: Ipv4Addr, by_unicast: bool },
}

/// An exchange under way.
#[derive(Clone, Debug)]
pub struct Exchange {
    identity: Identity,
    xid: u32,
    dice: Dice,
    began: Duration,
    deadline: Duration,
    state: State,
    /// Questions sent in this state.
    sent: u32,
    /// When the next one is due.
    again: Duration,
    ignored: VecDeque<String>,
}

impl Exchange {
    /// Begins at `now`, on any clock that does not jump, and ends after `patience`. Its number and its pauses come of
    /// `seed`, which no two exchanges of a link should share.
    #[must_use]
    pub fn new(identity: Identity, goal: Goal, now: Duration, patience: Duration, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let [a, b, c, d, ..] = dice.roll().to_be_bytes();
        Self {
            identity,
            xid: u32::from_be_bytes([a, b, c, d]),
            dice,
            began: now,
            deadline: now + patience,
            state: match goal {
                Goal::Acquire { wished } => State::Selecting { wished },
                Goal::Reboot { address } => State::Rebooting(address),
                Goal::Renew { address } => State::Prolonging { address, by_unicast: true },
                Goal::Rebind { address } => State::Prolonging { address, by_unicast: false },
            },
            sent: 0,
            again: now,
            ignored: VecDeque::new(),
        }
    }

    /// The number by which answers are told apart.
    #[must_use]
    pub fn xid(&self) -> u32 {
        self.xid
    }

    /// What is being asked for by name: from now on a server may believe that we have it.
    #[must_use]
    pub fn chosen(&self) -> Option<&Terms> {
        match &self.state {
            State::Requesting(terms) => Some(terms),
            _ => None,
        }
    }

    /// What to do at `now`.
    pub fn next(&mut self, now: Duration) -> Next {
        if now >= self.deadline {
            return Next::GiveUp(self.failure(now));
        }
        if now < self.again {
            return Next::Wait(self.again.min(self.deadline));
        }
        match &self.state {
            State::Requesting(terms) if self.sent >= REQUESTS => {
                let reason =
                    format!("{} offered {} and then fell silent", terms.server, terms.address.addr());
                self.ignore(reason);
                self.change(State::Selecting { wished: None }, now);
            }
            State::Rebooting(address) if self.sent >= REBOOT_REQUESTS => {
                let wished = Some(*address);
                self.change(State::Selecting { wished }, now);
            }
            _ => {}
        }
        self.sent += 1;
        self.again = now + wait_after(self.sent, &mut self.dice);
        Next::Send(self.question(now).encode())
    }

    /// Takes an answer, which may be anybody's and anything.
    pub fn receive(&mut self, payload: &[u8], now: Duration) -> Option<Outcome> {
        let message = match Message::decode(payload) {
            Ok(message) => message,
            Err(error) => {
                self.ignore(format!("a packet is no answer: {error}"));
                return None;
            }
        };
        let id = message.options.get(code::CLIENT_ID);
        let is_ours = message.is_reply
            && message.xid == self.xid
            && message.mac == self.identity.mac
            && id.is_none_or(|id| id == self.identity.client_id);
        if !is_ours {
            return None;
        }
        let server = message.address(code::SERVER);
        let said = || {
            let from = server.map_or_else(|| "a server".to_owned(), |server| server.to_string());
            match message.options.get(code::REASON) {
                Some(reason) => format!("{from} refused: {}", shown(reason)),
                None => format!("{from} refused"),
            }
        };
        match (&self.state, message.kind) {
            (State::Selecting { .. }, Kind::Offer) => {
                match Terms::of(&message, self.identity.subnet) {
                    Ok(terms) => self.change(State::Requesting(Box::new(terms)), now),
                    Err(error) => self.ignore_from(server, &format!("offered what cannot be used: {error}")),
                }
                None
            }
            (State::Requesting(chosen), Kind::Ack | Kind::Nak) if server != Some(chosen.server) => {
                let chosen = chosen.server;
                self.ignore_from(server, &format!("answered what was asked of {chosen}"));
                None
            }
            (State::Requesting(_), Kind::Nak) => {
                self.ignore(said());
                self.change(State::Selecting { wished: None }, now);
                // One that refuses what it offered is not asked again at once.
                self.again = now + wait_after(1, &mut self.dice);
                None
            }
            (State::Rebooting(_), Kind::Nak) => {
                self.ignore(said());
                self.change(State::Selecting { wished: None }, now);
                None
            }
            (State::Prolonging { .. }, Kind::Nak) => Some(Outcome::Refused(said())),
            (state, Kind::Ack) => {
                let asked = match state {
                    State::Requesting(chosen) => chosen.address.addr(),
                    State::Rebooting(address) | State::Prolonging { address, .. } => *address,
                    State::Selecting { .. } => return None,
                };
                match Terms::of(&message, self.identity.subnet) {
                    Ok(terms) if terms.address.addr() == asked => Some(Outcome::Bound(terms)),
                    Ok(terms) => {
                        let given = terms.address.addr();
                        self.ignore_from(server, &format!("gave {given} where {asked} was asked for"));
                        None
                    }
                    Err(error) => {
                        self.ignore_from(server, &format!("gave what cannot be used: {error}"));
                        None
                    }
                }
            }
            _ => None,
        }
    }

    /// Gives up a lease; nobody answers.
    #[must_use]
    pub fn release(identity: &Identity, terms: &Terms, seed: u64) -> Vec<u8> {
        Self::farewell(identity, terms, Kind::Release, seed)
    }

    /// Says that somebody else uses the address that was given; nobody answers.
    #[must_use]
    pub fn decline(identity: &Identity, terms: &Terms, seed: u64) -> Vec<u8> {
        Self::farewell(identity, terms, Kind::Decline, seed)
    }

    fn farewell(identity: &Identity, terms: &Terms, kind: Kind, seed: u64) -> Vec<u8> {
        let [a, b, c, d, ..] = Dice::new(seed).roll().to_be_bytes();
        let mut message = blank(identity, kind, u32::from_be_bytes([a, b, c, d]));
        message.options.set(code::SERVER, terms.server.octets());
        let address = terms.address.addr();
        match kind {
            Kind::Decline => message.options.set(code::REQUESTED_ADDRESS, address.octets()),
            _ => message.client_address = address,
        }
        message.encode()
    }

    /// RFC 2131, table 5: what each kind of question holds.
    fn question(&self, now: Duration) -> Message {
        let kind = if matches!(self.state, State::Selecting { .. }) { Kind::Discover } else { Kind::Request };
        let mut message = blank(&self.identity, kind, self.xid);
        message.seconds = u16::try_from((now.saturating_sub(self.began)).as_secs()).unwrap_or(u16::MAX);
        message.broadcast = true;
        let options = &mut message.options;
        let wished = match &self.state {
            State::Selecting { wished } => *wished,
            State::Rebooting(address) => Some(*address),
            State::Requesting(terms) => {
                options.set(code::SERVER, terms.server.octets());
                Some(terms.address.addr())
            }
            State::Prolonging { address, .. } => {
                message.client_address = *address;
                message.broadcast = false;
                None
            }
        };
        if let Some(wished) = wished {
            message.options.set(code::REQUESTED_ADDRESS, wished.octets());
        }
        let longest = u16::try_from(MAX_MESSAGE).unwrap_or(u16::MAX);
        message.options.set(code::MAX_SIZE, longest.to_be_bytes());
        message.options.set(code::REQUEST_LIST, self.identity.requested.as_slice());
        for (code, value) in &self.identity.provided {
            message.options.set(*code, value.as_slice());
        }
        message
    }

    /// Whether what [`Next::Send`] holds goes to the lease's server alone.
    #[must_use]
    pub fn is_unicast(&self) -> bool {
        matches!(self.state, State::Prolonging { by_unicast: true, .. })
    }

    fn change(&mut self, state: State, now: Duration) {
        self.state = state;
        self.sent = 0;
        self.again = now;
    }

    fn ignore_from(&mut self, server: Option<Ipv4Addr>, what: &str) {
        match server {
            Some(server) => self.ignore(format!("{server} {what}")),
            None => self.ignore(format!("a server {what}")),
        }
    }

    fn ignore(&mut self, reason: String) {
        if !self.ignored.contains(&reason) {
            self.ignored.push_back(reason);
            if self.ignored.len() > REMEMBERED {
                self.ignored.pop_front();
            }
        }
    }

    fn failure(&mut self, now: Duration) -> ExchangeError {
        if let State::Requesting(terms) = &self.state {
            let reason = format!("{} offered {} and then fell silent", terms.server, terms.address.addr());
            self.ignore(reason);
        }
        let seconds = (now - self.began).as_secs();
        match self.ignored.is_empty() {
            true => ExchangeError::Silent { seconds },
            false => ExchangeError::Unusable { seconds, ignored: self.ignored.iter().cloned().collect() },
        }
    }
}

fn blank(identity: &Identity, kind: Kind, xid: u32) -> Message {
    let mut options = Options::default();
    options.set(code::CLIENT_ID, identity.client_id.as_slice());
    Message {
        is_reply: false,
        kind,
        xid,
        seconds: 0,
        broadcast: false,
        client_address: Ipv4Addr::UNSPECIFIED,
        your_address: Ipv4Addr::UNSPECIFIED,
        relay: Ipv4Addr::UNSPECIFIED,
        mac: identity.mac,
        options,
    }
}

/// A server's words, on one line and not too many of them.
fn shown(reason: &[u8]) -> String {
    let text = String::from_utf8_lossy(reason);
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests;
