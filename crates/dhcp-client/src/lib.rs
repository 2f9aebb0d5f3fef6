//! The client's side of DHCP for IPv4 (RFC 2131, 2132, 3396, 3442): packets, exchanges and leases, as functions of bytes
//! and of the time that the caller passes. It opens no socket, reads no clock and rolls no dice.

mod exchange;
mod frame;
mod message;
mod options;
mod pace;
mod schedule;
mod terms;

pub use exchange::{Exchange, ExchangeError, Goal, Identity, Next, Outcome};
pub use frame::{CLIENT_PORT, Endpoints, SERVER_PORT, build_frame, parse_frame};
pub use message::{Kind, MAX_MESSAGE, Message, MessageError};
pub use options::{Options, code};
pub use pace::Dice;
pub use schedule::{Due, Phase, due};
pub use terms::{Route, Terms, TermsError};

/// An Ethernet address.
pub type Mac = [u8; 6];
