//! The loop: wait until something happened, make a pass, tell. Events only say when to look.

use std::cell::RefCell;
use std::collections::HashSet;
use std::convert::Infallible;
use std::fs::File;
use std::future::Future;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use kernel::KernelError;
use node_network::cluster::Freshness;
use node_network::plan::PlanDocument;
use node_network::{NodeName, Settings};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep_until;

use crate::atomic_file::FileError;
use crate::events::{FolderWatch, KernelEvents};
use crate::http;
use crate::leases::LeaseKeeper;
use crate::metrics::{Health, SharedHealth};
use crate::observe::Doubt;
use crate::paths::Paths;
use crate::reconcile::{PassError, ReconcileReport, Reconciler};
use crate::reports::Reporter;
use crate::runtime_sandboxes::RuntimeSandboxes;
use crate::source::{AnySource, FileSource, KubernetesSource, Source, SourceAddress};
use crate::status::{StateDocument, bounded};
use crate::uplink::UplinkKeeper;

mod pace;

use pace::Pace;

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the nodes are read from.
    pub source: SourceAddress,
    /// This node's name among them.
    pub node_name: NodeName,
    /// What the operator chose; validated.
    pub settings: Settings,
    /// Where files are.
    pub paths: Paths,
    /// Where health and metrics are served.
    pub listen: SocketAddr,
}

/// Why the agent could not do its work at all.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The kernel refused the sockets.
    #[error("{0}; the agent needs CAP_NET_ADMIN in the node's network namespace")]
    Kernel(#[from] KernelError),
    /// A pass could not be made.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// The source was not read.
    #[error("{0}")]
    NotSynced(String),
    /// Another agent, or an uninstall, is at work.
    #[error("another `hostgw agent` runs on this node (it holds {}): stop it first", .0.display())]
    AnotherAgent(PathBuf),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The runtime could not be started.
    #[error("failed to start the event loop: {0}")]
    Runtime(std::io::Error),
}

impl AgentError {
    /// The contract's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotSynced(_) => 3,
            Self::Kernel(error) if error.is_permission() => 4,
            Self::Pass(error) if error.is_permission() => 4,
            Self::File(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied => 4,
            _ => 1,
        }
    }
}

/// An agent that is just ending, or a child of its between fork and exec, may hold the lock a moment longer.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// What keeps a second agent out for as long as it lives.
#[derive(Debug)]
pub(crate) struct AgentLock {
    _file: File,
}

impl AgentLock {
    fn path(paths: &Paths) -> PathBuf {
        paths.run_dir().join("agent.lock")
    }

    /// Opens the file, and never waits for it: a FIFO of that name would hold the agent for ever.
    fn open(path: &Path, create: bool) -> std::io::Result<File> {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let file =
            File::options().create(create).truncate(false).write(true).custom_flags(flags).open(path)?;
        if !file.metadata()?.is_file() {
            let reason = "it is no regular file: remove it";
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, reason));
        }
        Ok(file)
    }

    pub(crate) fn take(paths: &Paths) -> Result<Self, AgentError> {
        let path = Self::path(paths);
        let open = || {
            std::fs::create_dir_all(paths.run_dir())?;
            Self::open(&path, true)
        };
        let file = open().map_err(|source| FileError::new("open", &path, source))?;
        let deadline = Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err(std::fs::TryLockError::WouldBlock) => return Err(AgentError::AnotherAgent(path)),
                Err(std::fs::TryLockError::Error(source)) => {
                    return Err(FileError::new("lock", &path, source).into());
                }
            }
        }
    }
}

fn open_source(options: &Options) -> AnySource {
    let this_node = options.node_name.clone();
    match &options.source {
        SourceAddress::File(path) => AnySource::File(FileSource::new(options.paths.on_node(path), this_node)),
        SourceAddress::Kubernetes(location) => AnySource::Kubernetes(KubernetesSource::new(
            location.clone(),
            this_node,
            options.paths.peers_file(),
        )),
    }
}

/// Runs on the calling thread, in its network namespace.
fn block_on<T>(work: impl Future<Output = Result<T, AgentError>>) -> Result<T, AgentError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(AgentError::Runtime)?;
    tokio::task::LocalSet::new().block_on(&runtime, work)
}

/// What a pass would change.
pub fn plan(options: &Options) -> Result<PlanDocument, AgentError> {
    block_on(async {
        let mut source = open_source(options);
        source.settled().await;
        let reading = source.read();
        let Some(snapshot) = reading.snapshot.filter(|snapshot| snapshot.freshness == Freshness::Synced)
        else {
            return Err(AgentError::NotSynced(reading.problem.unwrap_or_default()));
        };
        Ok(reconciler(options)?.plan(snapshot, reading.whole)?)
    })
}

fn reconciler(options: &Options) -> Result<Reconciler, AgentError> {
    Ok(Reconciler::new(options.node_name.clone(), options.settings.clone(), options.paths.clone())?)
}

/// One pass, and what came of it.
pub fn run_once(options: &Options) -> Result<StateDocument, AgentError> {
    let _lock = AgentLock::take(&options.paths)?;
    block_on(async {
        let mut uplink = UplinkKeeper::new(options.settings.uplink.as_ref(), &options.paths);
        uplink.begin().await;
        let mut source = open_source(options);
        let mut reconciler = reconciler(options)?;
        let mut state = StateDocument::new(&options.node_name, options.source.to_string());
        state.once = true;
        source.settled().await;
        let reading = source.read();
        let mut report = reconciler.pass(&reading)?;
        report.conditions.extend(uplink.conditions());
        tell(&report);
        state.update(&report);
        state.write(&options.paths.state_file())?;
        match (reading.snapshot, reading.problem) {
            (None, problem) => Err(AgentError::NotSynced(problem.unwrap_or_default())),
            _ => Ok(state),
        }
    })
}

/// Why the agent ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// SIGTERM: the ordinary way.
    Terminated,
    /// SIGINT: a person at a terminal.
    Interrupted,
}

/// Whether an agent runs on this node.
pub fn is_running(paths: &Paths) -> Result<bool, AgentError> {
    match AgentLock::open(&AgentLock::path(paths), false) {
        Ok(file) => Ok(matches!(file.try_lock_shared(), Err(std::fs::TryLockError::WouldBlock))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::new("open", &AgentLock::path(paths), source).into()),
    }
}

/// Runs until it is told to stop. Everything in the kernel stays as it is.
pub fn run(options: &Options) -> Result<Ended, AgentError> {
    run_until(options, signalled())
}

/// Runs until `stop` resolves, on the calling thread and in its network namespace.
pub fn run_until(
    options: &Options,
    stop: impl Future<Output = Result<Ended, std::io::Error>>,
) -> Result<Ended, AgentError> {
    let _lock = AgentLock::take(&options.paths)?;
    block_on(async {
        let mut uplink = UplinkKeeper::new(options.settings.uplink.as_ref(), &options.paths);
        let ended = tokio::select! {
            // Looked at first, so that signals are heard from before the first pass on.
            biased;
            ended = stop => ended.map_err(AgentError::Runtime),
            failed = serve(options, &mut uplink) => failed.map(|never| match never {}),
        };
        uplink.finish().await;
        ended
    })
}

pub(crate) async fn signalled() -> Result<Ended, std::io::Error> {
    let mut terminated = signal(SignalKind::terminate())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminated.recv() => Ok(Ended::Terminated),
        _ = interrupted.recv() => Ok(Ended::Interrupted),
    }
}

async fn serve(options: &Options, uplink: &mut UplinkKeeper) -> Result<Infallible, AgentError> {
    uplink.begin().await;
    // Subscribed before the first look, so that nothing happens unheard.
    let mut events = KernelEvents::subscribe()?;
    let mut source = open_source(options);
    let mut reconciler = reconciler(options)?;
    let resync = options.settings.resync_interval.as_duration();
    if let Some(socket) = &options.settings.runtime.socket {
        let socket = options.paths.on_node(Path::new(socket));
        reconciler.heed(RuntimeSandboxes::follow(socket, resync));
    }
    let health: SharedHealth = Rc::new(RefCell::new(Health::new(resync)));
    tokio::task::spawn_local(http::serve(options.listen, Rc::clone(&health)));
    let conflist = options.paths.on_node(Path::new(&options.settings.cni.conf_file));
    let mut conflist_folder = FolderWatch::of_file(&conflist);
    let mut state = StateDocument::new(&options.node_name, options.source.to_string());
    state.resync_seconds = resync.as_secs();
    let mut teller = Teller::default();
    let mut pace = Pace::new(resync);
    let tally = health.borrow().leases();
    let leases = LeaseKeeper::start(options.paths.lease_dir(), tally).map_err(AgentError::Runtime)?;
    let mut reporter = source.reporter(&options.node_name, &options.settings);
    let mut resync_is_due = true;
    loop {
        conflist_folder.renew();
        if let Err(error) = events.drain(reconciler.seen()) {
            tracing::error!(%error, "netlink events are lost; subscribing anew");
            events = KernelEvents::subscribe()?;
        }
        uplink.heed();
        let doubt = events.take_doubt();
        let doubt = if std::mem::take(&mut resync_is_due) { Doubt::Everything } else { doubt };
        let began = Instant::now();
        let look_again_in = match reconciler.pass_after(&source.read(), doubt) {
            Ok(mut report) => {
                report.conditions.extend(leases.conditions());
                report.conditions.extend(reporter.iter_mut().flat_map(Reporter::conditions));
                report.conditions.extend(uplink.conditions());
                teller.tell(&report);
                if let Some(reporter) = &mut reporter {
                    reporter.tell(&report, source.take_news(), events.links_are_settling());
                }
                state.update(&report);
                state.name_opponent(events.deletions.opponent());
                health.borrow_mut().update(&report);
                pace.passed(began, report.changed_something());
                report.look_again_in
            }
            Err(error) => {
                tracing::error!(%error, "no pass could be made; tried again");
                state.fail(error.to_string());
                health.borrow_mut().fail();
                pace.passed(began, true);
                Some(Duration::from_secs(1))
            }
        };
        if let Err(error) = state.write(&options.paths.state_file()) {
            tracing::warn!(%error, "the state cannot be written");
        }
        let mut deadline = pin!(sleep_until(pace.resync_at(look_again_in).into()));
        tokio::select! {
            () = &mut deadline => resync_is_due = true,
            () = source.changed() => {}
            () = conflist_folder.changed() => {}
            () = leases.changed() => {}
            () = reports_changed(reporter.as_mut()) => {}
            () = uplink.changed() => {}
            heard = events.heard(reconciler.seen()) => if let Err(error) = heard {
                tracing::warn!(%error, "netlink events are lost; looking at everything");
                resync_is_due = true;
            },
        }
        // What comes in bursts is looked at once, and a program that keeps undoing ours is not raced with.
        let pause = pace.pause();
        if pace.owed() > Duration::from_millis(100) {
            tracing::warn!(
                pause_ms = pause.as_millis(),
                "this node's network is being changed again and again; repairs are slowed down"
            );
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// Resolves when what the API server refuses has changed; never where nothing is reported.
async fn reports_changed(reporter: Option<&mut Reporter>) {
    match reporter {
        Some(reporter) => reporter.changed().await,
        None => std::future::pending().await,
    }
}

/// Tells what changed, and each condition once.
#[derive(Debug, Default)]
struct Teller {
    last: HashSet<String>,
}

impl Teller {
    fn tell(&mut self, report: &ReconcileReport) {
        let conditions =
            bounded::conditions(&report.conditions).into_iter().map(|condition| condition.message);
        let problems: Vec<String> = conditions
            .chain(report.source_problem.iter().cloned())
            .chain(bounded::texts(report.pods_problems.iter().cloned()))
            .collect();
        for problem in problems.iter().filter(|problem| !self.last.contains(*problem)) {
            tracing::warn!("{problem}");
        }
        self.last = problems.into_iter().collect();
        tell(report);
    }
}

fn tell(report: &ReconcileReport) {
    // A first pass on a large cluster changes thousands of routes.
    const SHOWN: usize = 20;
    for outcome in report.applied.outcomes.iter().filter(|outcome| outcome.error.is_none()).take(SHOWN) {
        tracing::info!(change = %outcome.line, "done");
    }
    for done in report.pods_done.iter().take(SHOWN) {
        tracing::info!("{done}");
    }
    for (line, error) in report.applied.failures().take(SHOWN) {
        tracing::error!(change = %line, %error, "failed");
    }
    let (applied, failed) = (report.applied.made(), report.applied.failures().count());
    if applied + failed > 0 {
        let ms = report.duration.as_millis();
        tracing::info!(applied, failed, ms, "reconciled");
    }
}
