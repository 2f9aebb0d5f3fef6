//! A DHCP server of a test, on a LAN of its own behind the node's bridge. It does what it is told to, right or wrong;
//! real servers are in the lab.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dhcp_client::{Kind, Message, Options, code};
use kernel::link::{Veth, VethEnd};
use kernel::netns::NetNs;
use kernel::{address, link};

use super::new_pod;
use super::node::{change, index_of, name};

/// The bridge of the node, with the LAN as a port.
pub(crate) const BRIDGE: &str = "lan";
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The node's own address on the bridge.
pub(crate) const NODE: &str = "198.51.100.2/24";

/// How a question is answered; `None` is silence.
pub(crate) type Answers = dyn Fn(&Message, Message) -> Vec<Message> + Send;

/// The LAN's namespace, and the server in it.
pub(crate) struct Lan {
    pub(crate) ns: NetNs,
    heard: Receiver<Message>,
    _stop: Sender<()>,
}

/// Makes bridge and LAN in the calling thread's namespace; the server answers as `answers` makes of what is right.
pub(crate) fn lan(answers: impl Fn(&Message, Message) -> Vec<Message> + Send + 'static) -> Lan {
    let ns = segment();
    let socket = ns
        .run(|| {
            let socket = UdpSocket::bind("0.0.0.0:67").unwrap();
            socket.set_broadcast(true).unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            socket
        })
        .unwrap();
    let (tell, heard) = channel();
    let (stop, stopped) = channel::<()>();
    std::thread::spawn(move || serve(&socket, &answers, &tell, &stopped));
    Lan { ns, heard, _stop: stop }
}

/// Makes the bridge in the calling thread's namespace; the namespace of the LAN's first host, which has [`SERVER`].
pub(crate) fn segment() -> NetNs {
    let bridge = name(BRIDGE);
    change(|batch, _| link::create_bridge(batch, &bridge, [2, 0, 0, 0, 0, 0x11], 1500, true));
    let index = index_of(BRIDGE);
    change(|batch, _| address::add(batch, index, NODE.parse().unwrap(), 0));
    join("port0", &format!("{SERVER}/24"))
}

/// A host of the LAN behind this port of the bridge: its namespace, in which `lan0` has the address.
pub(crate) fn join(port: &str, held: &str) -> NetNs {
    let ns = new_pod();
    let (near, far) = (name(port), name("lan0"));
    let veth = Veth {
        host: VethEnd { name: &near, mac: None, netns: None },
        peer: VethEnd { name: &far, mac: None, netns: Some(ns.as_fd()) },
        mtu: 1500,
        master: Some(index_of(BRIDGE)),
        up: true,
    };
    change(|batch, _| link::create_veth(batch, &veth));
    ns.run(|| {
        let index = index_of("lan0");
        change(|batch, _| {
            address::add(batch, index, held.parse().unwrap(), 0);
            link::set_up(batch, index);
            link::request(batch, index);
        });
    })
    .unwrap();
    let index = index_of(port);
    change(|batch, _| link::request(batch, index));
    ns
}

/// A server that does all right, from 198.51.100.10 on.
pub(crate) fn right(_: &Message, answer: Message) -> Vec<Message> {
    vec![answer]
}

impl Lan {
    /// Waits for a question of this kind.
    pub(crate) fn hears(&self, kind: Kind) -> Message {
        let deadline = Instant::now() + super::PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.heard.recv_timeout(left).unwrap_or_else(|_| panic!("no {kind:?} was sent"));
            if message.kind == kind {
                return message;
            }
        }
    }

    /// The kinds of all that was asked so far.
    pub(crate) fn heard(&self) -> Vec<Kind> {
        self.heard.try_iter().map(|message| message.kind).collect()
    }
}

fn serve(socket: &UdpSocket, answers: &Answers, tell: &Sender<Message>, stopped: &Receiver<()>) {
    let book = Arc::new(Mutex::new(BTreeMap::new()));
    let mut buffer = [0; 2000];
    while !matches!(stopped.try_recv(), Err(std::sync::mpsc::TryRecvError::Disconnected)) {
        let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
        let question = Message::decode(&buffer[..length]).unwrap();
        tell.send(question.clone()).ok();
        let Some(answer) = answer(&question, &mut book.lock().unwrap()) else { continue };
        for answer in answers(&question, answer) {
            let to = if question.client_address.is_unspecified() {
                Ipv4Addr::new(198, 51, 100, 255)
            } else {
                question.client_address
            };
            socket.send_to(&answer.encode(), SocketAddr::from((to, 68))).ok();
        }
    }
}

/// What a server answers that does all right.
fn answer(question: &Message, book: &mut BTreeMap<Vec<u8>, u8>) -> Option<Message> {
    let client = question.options.get(code::CLIENT_ID).unwrap_or_default().to_vec();
    let next = 10 + u8::try_from(book.len()).unwrap();
    let kind = match question.kind {
        Kind::Discover => Kind::Offer,
        Kind::Request => Kind::Ack,
        _ => return None,
    };
    let host = *book.entry(client).or_insert(next);
    let mut options = Options::default();
    options.set(code::SERVER, SERVER.octets());
    options.set(code::SUBNET_MASK, [255, 255, 255, 0]);
    options.set(code::ROUTER, SERVER.octets());
    options.set(code::NAME_SERVER, [198, 51, 100, 53]);
    options.set(code::LEASE_TIME, 600_u32.to_be_bytes());
    Some(Message {
        is_reply: true,
        kind,
        your_address: Ipv4Addr::new(198, 51, 100, host),
        options,
        ..question.clone()
    })
}
