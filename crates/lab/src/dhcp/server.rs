//! Real DHCP servers on the lab's LAN: dnsmasq and Kea, as this machine has them or as Debian's packages unpack.

use std::fs;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::LabError;
use crate::options::DhcpServers;
use crate::place::Place;
use crate::topology::UPLINK;

/// Where the machine's own files are in the lab.
const HOST: &str = "/host";
/// Where a server may be that is not on `PATH`.
const SBIN: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];
/// What the packages link, below where they were unpacked.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu"];
/// After this, a server that does not listen never will.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// The shortest lease that dnsmasq knows.
const DNSMASQ_SECONDS: u32 = 120;
/// Port 67 as `/proc/net/udp` writes it.
const LISTENS: &str = ":0043 ";

/// A server's make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Make {
    /// `dnsmasq`.
    Dnsmasq,
    /// `kea-dhcp4`.
    Kea,
}

impl Make {
    const ALL: [Self; 2] = [Self::Dnsmasq, Self::Kea];

    pub(crate) const fn program(self) -> &'static str {
        match self {
            Self::Dnsmasq => "dnsmasq",
            Self::Kea => "kea-dhcp4",
        }
    }
}

/// What a server lends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool {
    /// The first address.
    pub(crate) first: Ipv4Addr,
    /// The last address.
    pub(crate) last: Ipv4Addr,
    /// For how many seconds; clients renew after half of it.
    pub(crate) seconds: u32,
}

/// The program of a server; `seen` says where a path of the machine's is.
fn find(servers: &DhcpServers, make: Make, seen: impl Fn(&Path) -> PathBuf) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = match &servers.unpacked {
        Some(root) => vec![root.join("usr/sbin")],
        None => std::env::split_paths(&path).chain(SBIN.map(PathBuf::from)).collect(),
    };
    folders.iter().map(|folder| seen(folder).join(make.program())).find(|file| file.is_file())
}

/// Refuses a lab whose servers are not there, before anything is built.
pub(crate) fn require(servers: &DhcpServers) -> Result<(), LabError> {
    let is_missing = |make: &Make| find(servers, *make, Path::to_owned).is_none();
    let missing: Vec<_> = Make::ALL.into_iter().filter(is_missing).map(Make::program).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let place = servers.unpacked.as_ref().map_or_else(
        || "on this machine".to_owned(),
        |root| format!("in {}", root.join("usr/sbin").display()),
    );
    Err(LabError::Option {
        option: "--dhcp-servers",
        value: format!("without {} {place}", missing.join(" and ")),
        remedy: "have `tests/dhcp-servers --fetch` unpack Debian's packages (nothing is installed), and name the folder \
                 that it prints"
            .to_owned(),
    })
}

/// A server that runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts a server on the LAN of `place`, with the addresses of a subnet of 16 bits to lend, and waits until it listens.
    /// What it lent before it remembers by `memory`.
    pub(crate) fn start(
        place: &Place,
        servers: &DhcpServers,
        make: Make,
        (router, pool): (Ipv4Addr, Pool),
        memory: &str,
    ) -> Result<Self, LabError> {
        let folder = Path::new("/tmp").join(format!("{}-{memory}", make.program()));
        // The lab was refused where it is missing: it can only have gone since.
        let gone = || LabError::io(format!("find {}", make.program()))(io::ErrorKind::NotFound.into());
        let program = find(servers, make, seen_in_lab).ok_or_else(gone)?;
        let libraries = servers.unpacked.clone();
        place.run(move || {
            fs::create_dir_all(&folder).map_err(LabError::io(format!("create {}", folder.display())))?;
            let log = folder.join("log");
            let said = fs::File::create(&log).map_err(LabError::io(format!("create {}", log.display())))?;
            let mut command = Command::new(&program);
            match make {
                Make::Dnsmasq => command.args(dnsmasq(&folder, router, pool)),
                Make::Kea => {
                    let conf = folder.join("kea.json");
                    fs::write(&conf, kea(&folder, router, pool).to_string())
                        .map_err(LabError::io(format!("write {}", conf.display())))?;
                    command.arg("-c").arg(conf)
                }
            };
            if let Some(root) = libraries {
                let folders = LIBRARIES.map(|folder| seen_in_lab(&root).join(folder));
                let joined = std::env::join_paths(folders).map_err(io::Error::other);
                command.env("LD_LIBRARY_PATH", joined.map_err(LabError::io("name the servers' libraries"))?);
            }
            command
                .env("KEA_LOCKFILE_DIR", "none")
                .env("KEA_PIDFILE_DIR", &folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(said);
            let child = command.spawn().map_err(LabError::io(format!("run {}", program.display())))?;
            let mut server = Self { child };
            server.wait_until_it_listens(make, &log)?;
            Ok(server)
        })
    }

    /// In the server's namespaces.
    fn wait_until_it_listens(&mut self, make: Make, log: &Path) -> Result<(), LabError> {
        let began = Instant::now();
        loop {
            let sockets = fs::read_to_string("/proc/thread-self/net/udp").unwrap_or_default();
            if sockets.contains(LISTENS) {
                return Ok(());
            }
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || began.elapsed() > PATIENCE {
                let said = fs::read_to_string(log).unwrap_or_default();
                let how = ended.map_or_else(|| "it does not listen".to_owned(), |status| status.to_string());
                let program = make.program();
                return Err(LabError::Inner {
                    message: format!("{program}: {how}: {}", said.trim()),
                    exit: 1,
                });
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Holds it, as an overloaded machine would: what comes waits for it.
    pub(crate) fn hold(&self) -> Result<(), LabError> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) -> Result<(), LabError> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<(), LabError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        pid.map_or(Ok(()), |pid| kill_process(pid, signal).map_err(LabError::call("signal a DHCP server")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A path of the machine's, as the lab sees it.
fn seen_in_lab(path: &Path) -> PathBuf {
    Path::new(HOST).join(path.strip_prefix("/").unwrap_or(path))
}

fn dnsmasq(folder: &Path, router: Ipv4Addr, Pool { first, last, seconds }: Pool) -> Vec<String> {
    vec![
        // In the foreground, as whoever starts it: a user namespace lets it become nobody else.
        "--no-daemon".to_owned(),
        "--conf-file=/dev/null".to_owned(),
        "--port=0".to_owned(),
        format!("--interface={UPLINK}"),
        "--bind-interfaces".to_owned(),
        // Pods that ask at once are not to wait for three seconds each.
        "--no-ping".to_owned(),
        "--dhcp-authoritative".to_owned(),
        format!("--dhcp-leasefile={}", folder.join("leases").display()),
        format!("--dhcp-range={first},{last},255.255.0.0,{}", seconds.max(DNSMASQ_SECONDS)),
        format!("--dhcp-option=option:T1,{}", seconds / 2),
        format!("--dhcp-option=option:router,{router}"),
    ]
}

fn kea(folder: &Path, router: Ipv4Addr, Pool { first, last, seconds }: Pool) -> Value {
    let [a, b, ..] = first.octets();
    json!({"Dhcp4": {
        "interfaces-config": {"interfaces": [UPLINK]},
        "lease-database": {"type": "memfile", "lfc-interval": 0, "persist": true, "name": folder.join("leases.csv")},
        "valid-lifetime": seconds, "authoritative": true,
        "subnet4": [{
            "id": 1, "subnet": format!("{a}.{b}.0.0/16"), "pools": [{"pool": format!("{first} - {last}")}],
            "option-data": [{"name": "routers", "data": router}],
        }],
        "loggers": [{"name": "kea-dhcp4", "severity": "WARN", "output_options": [{"output": "stderr"}]}],
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_are_missing_are_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let sbin = folder.path().join("usr/sbin");
        fs::create_dir_all(&sbin).unwrap();
        fs::write(sbin.join("dnsmasq"), "").unwrap();
        let servers = DhcpServers { unpacked: Some(folder.path().to_owned()), sabotage: None };
        let error = require(&servers).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(
            text.contains("without kea-dhcp4 in") && text.contains("tests/dhcp-servers --fetch"),
            "{text}"
        );
        fs::write(sbin.join("kea-dhcp4"), "").unwrap();
        assert!(require(&servers).is_ok());
    }

    #[test]
    fn a_path_of_the_machine_is_below_its_mount_in_the_lab() {
        assert_eq!(seen_in_lab(Path::new("/usr/sbin")), Path::new("/host/usr/sbin"));
    }
}
