//! Whoever talks over the uplink meanwhile: a TCP session as a shell over SSH is one, and pings, a hundred a second each,
//! and how long nothing came back.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use kernel::ping::Pinger;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::LabError;
use crate::place::Place;
use crate::uplink::FlowReport;

/// A hundred messages a second.
const BEAT: Duration = Duration::from_millis(10);
/// What TCP has to say again arrives within this.
const PATIENCE: Duration = Duration::from_secs(30);
const PORT: u16 = 2222;
const MESSAGE: usize = 8;

/// How one talk went so far.
#[derive(Debug)]
struct Tally {
    sent: u64,
    answered: u64,
    last: Instant,
    longest: Duration,
    longest_of_run: Duration,
    runs: Vec<Duration>,
    broken: Option<String>,
}

impl Tally {
    fn new() -> Self {
        Self {
            sent: 0,
            answered: 0,
            last: Instant::now(),
            longest: Duration::ZERO,
            longest_of_run: Duration::ZERO,
            runs: Vec::new(),
            broken: None,
        }
    }

    /// So many answers came now.
    fn heard(&mut self, answers: u64) {
        self.silent();
        self.answered += answers;
        self.last = Instant::now();
    }

    /// Nothing came until now.
    fn silent(&mut self) {
        let silence = self.last.elapsed();
        self.longest = self.longest.max(silence);
        self.longest_of_run = self.longest_of_run.max(silence);
    }
}

/// A talk that goes on until it is finished.
#[derive(Debug)]
pub(crate) struct Flow {
    name: String,
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    talker: JoinHandle<()>,
}

impl Flow {
    fn start(
        name: String,
        talk: impl FnOnce(&Mutex<Tally>, &AtomicBool) -> std::io::Result<()> + Send + 'static,
    ) -> Self {
        let tally = Arc::new(Mutex::new(Tally::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (its_tally, its_stop) = (Arc::clone(&tally), Arc::clone(&stop));
        let talker = thread::spawn(move || {
            if let Err(error) = talk(&its_tally, &its_stop) {
                with(&its_tally, |tally| tally.broken = Some(error.to_string()));
            }
        });
        Self { name, tally, stop, talker }
    }

    /// Closes the account of one run.
    pub(crate) fn end_of_run(&self) {
        with(&self.tally, |tally| {
            tally.silent();
            let longest = std::mem::take(&mut tally.longest_of_run);
            tally.runs.push(longest);
        });
    }

    /// Ends the talk, and tells how it went.
    pub(crate) fn finish(self) -> FlowReport {
        self.stop.store(true, Ordering::Relaxed);
        let died = self.talker.join().is_err();
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        with(&self.tally, |tally| {
            tally.runs.sort_unstable();
            FlowReport {
                flow: self.name.clone(),
                answered: tally.answered,
                lost: tally.sent.saturating_sub(tally.answered),
                longest_silence_ms: ms(tally.longest),
                median_silence_ms: tally.runs.get(tally.runs.len() / 2).copied().map_or(0, ms),
                broken: tally.broken.take().or_else(|| died.then(|| "its thread died".to_owned())),
            }
        })
    }
}

fn with<T>(tally: &Mutex<Tally>, work: impl FnOnce(&mut Tally) -> T) -> T {
    work(&mut tally.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A session and pings from `outside` to each of the node's addresses.
pub(crate) fn start_all(outside: &Place, node: &Place, addresses: &[IpNet]) -> Result<Vec<Flow>, LabError> {
    let mut flows = Vec::new();
    for ip in addresses.iter().map(IpNet::addr) {
        let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
        let server = node.run(move || {
            TcpListener::bind(SocketAddr::new(ip, PORT)).map_err(LabError::io("listen on the node"))
        })?;
        thread::spawn(move || answer(&server));
        let client = outside.run(move || connect(ip))?;
        flows.push(Flow::start(format!("tcp {family}"), move |tally, stop| converse(client, tally, stop)));
        let pinger = outside.run(move || Pinger::open(ip, *b"hg").map_err(LabError::kernel("outside")))?;
        flows.push(Flow::start(format!("ping {family}"), move |tally, stop| ping(&pinger, tally, stop)));
    }
    Ok(flows)
}

fn answer(server: &TcpListener) {
    let Ok((mut session, _)) = server.accept() else { return };
    let _ = session.set_nodelay(true);
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = session.read(&mut bytes) {
        if session.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}

fn connect(ip: IpAddr) -> Result<TcpStream, LabError> {
    let open = || {
        let session = TcpStream::connect_timeout(&SocketAddr::new(ip, PORT), PATIENCE)?;
        session.set_nodelay(true)?;
        Ok(session)
    };
    open().map_err(LabError::io(format!("connect to {ip}")))
}

fn converse(mut session: TcpStream, tally: &Mutex<Tally>, stop: &AtomicBool) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    let mut next = Instant::now();
    let mut odd = 0;
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            session.write_all(&[0; MESSAGE])?;
            with(tally, |tally| tally.sent += 1);
            next = Instant::now() + BEAT;
        }
        let patience = next.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        session.set_read_timeout(Some(patience))?;
        match session.read(&mut bytes) {
            Ok(0) => return Err(std::io::Error::new(ErrorKind::UnexpectedEof, "the node ended the session")),
            Ok(read) => {
                odd += read;
                with(tally, |tally| tally.heard((odd / MESSAGE) as u64));
                odd %= MESSAGE;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => return Err(error),
        }
    }
    // What is under way may arrive.
    session.set_read_timeout(Some(PATIENCE))?;
    while with(tally, |tally| tally.answered < tally.sent) {
        let read = session.read(&mut bytes)?;
        odd += read;
        with(tally, |tally| tally.answered += (odd / MESSAGE) as u64);
        odd %= MESSAGE;
        if read == 0 {
            break;
        }
    }
    Ok(())
}

fn ping(pinger: &Pinger, tally: &Mutex<Tally>, stop: &AtomicBool) -> std::io::Result<()> {
    let mut number = 0_u16;
    let mut next = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            // A refusal is a lost ping, and counted as such.
            let _ = pinger.ask(number, 0);
            number = number.wrapping_add(1);
            with(tally, |tally| tally.sent += 1);
            next = Instant::now() + BEAT;
        }
        let left = next.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap_or_default();
        poll(&mut [PollFd::new(pinger, PollFlags::IN)], Some(&timeout))?;
        match pinger.answers() {
            0 => {}
            answers => with(tally, |tally| tally.heard(answers)),
        }
    }
    Ok(())
}
