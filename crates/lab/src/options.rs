//! What a lab is asked to be; checked once, before anything is built.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::LabError;
pub use crate::planted::{Fault, Sabotage};

/// How pods are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A routed link for each pod.
    Ptp,
    /// Pods are ports of a bridge on their node.
    Bridge,
    /// Pods are ports of a bridge on their node that has its uplink as a port, with addresses of the nodes' LAN.
    L2,
    /// A routed link for each pod, with an address of the nodes' LAN, on which its node answers for it.
    #[serde(rename = "l2-routed")]
    L2Routed,
}

impl Mode {
    /// Whether pods are hosts of the nodes' LAN.
    #[must_use]
    pub const fn is_of_lan(self) -> bool {
        matches!(self, Self::L2 | Self::L2Routed)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ptp => "ptp",
            Self::Bridge => "bridge",
            Self::L2 => "l2",
            Self::L2Routed => "l2-routed",
        })
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// Which families the cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// Both.
    Dual,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Families {
    /// The families one by one, IPv4 first.
    #[must_use]
    pub fn each(self) -> &'static [Family] {
        match self {
            Self::Dual => &[Family::Ipv4, Family::Ipv6],
            Self::Ipv4 => &[Family::Ipv4],
            Self::Ipv6 => &[Family::Ipv6],
        }
    }
}

impl fmt::Display for Families {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dual => "dual",
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        })
    }
}

/// A lab's name: it becomes a file name, and is typed by people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LabName(String);

impl LabName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LabName {
    type Err = LabError;

    fn from_str(name: &str) -> Result<Self, LabError> {
        let fits = (1..=32).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !name.starts_with('-');
        if fits {
            Ok(Self(name.to_owned()))
        } else {
            let value =
                format!("`{}`", name.chars().take(64).flat_map(char::escape_default).collect::<String>());
            let remedy = "use 1 to 32 letters, digits and dashes, not beginning with a dash".to_owned();
            Err(LabError::Option { option: "the lab's name", value, remedy })
        }
    }
}

impl TryFrom<String> for LabName {
    type Error = LabError;

    fn try_from(name: String) -> Result<Self, LabError> {
        name.parse()
    }
}

impl From<LabName> for String {
    fn from(name: LabName) -> Self {
        name.0
    }
}

impl fmt::Display for LabName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The lab that is wanted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Options {
    /// How many nodes, 1 to [`MAX_NODES`].
    pub nodes: u8,
    /// How many pods on each node, 1 to [`MAX_PODS`].
    pub pods: u8,
    /// How pods are attached.
    pub mode: Mode,
    /// Which address families the cluster has.
    pub family: Families,
    /// Whether the lab stays after its probes.
    pub keep: bool,
    /// Where `hostgw` and `hostgw-cni` are.
    pub bin_dir: PathBuf,
    /// What the lab is called.
    pub name: LabName,
    /// Seconds after which everything is given up.
    pub timeout_s: u64,
    /// Decides the order of the probes, so that a failure that depends on it can be had again.
    pub seed: u64,
    /// Breaks the thing that a probe or a check proves, to show that it notices.
    pub fault: Option<Fault>,
    /// Faults that the cluster must heal.
    pub chaos: Option<Chaos>,
    /// Moves of a node's uplink, in the place of agents and pods.
    pub uplink: Option<UplinkRuns>,
    /// Agents and nodes that start anew, on a LAN that pods share.
    pub restarts: Option<Restarts>,
    /// Pods' addresses are lent by servers on the nodes' LAN, which go through trials.
    pub dhcp: Option<DhcpServers>,
}

/// Real DHCP servers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DhcpServers {
    /// The folder into which Debian's packages of them are unpacked; none: they are the machine's own.
    pub unpacked: Option<PathBuf>,
    /// Spoils the trials, to show that they notice.
    pub sabotage: Option<Sabotage>,
}

/// The nodes of a flat network drop by policy what they forward, as Docker and ufw leave them; an agent and a node start
/// anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarts {
    /// Pods form their IPv6 addresses of the prefix that the LAN's router announces; else they are of slices.
    pub slaac: bool,
    /// Spoils the run, to show that it notices.
    pub sabotage: Option<Sabotage>,
}

/// Joins of the first node's uplink to a bridge, each left again, while sessions go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UplinkRuns {
    /// So many.
    pub runs: u32,
    /// What the longest silence must stay under, in milliseconds; none: it is only told.
    pub budget_ms: Option<u64>,
}

/// Faults, one after the other, in an order that the seed decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chaos {
    /// For so many seconds, but every fault at least once.
    pub duration_s: u64,
    /// Spoils the run, to show that it notices.
    pub sabotage: Option<Sabotage>,
}

/// All namespaces of a machine share one neighbour table for each family, of 1,024 entries by default
/// (`net.ipv6.neigh.default.gc_thresh3`); more nodes that talk to each other would overflow it.
pub const MAX_NODES: u8 = 32;
/// A pod has a network namespace and a thread that answers its probes.
pub const MAX_PODS: u8 = 32;
/// For the same reason as [`MAX_NODES`].
pub const MAX_PODS_IN_ALL: u16 = 128;

/// No round of all faults takes longer, in seconds: it is ten times as long as on a machine that does nothing else.
const CHAOS_ROUND_S: u64 = 900;

impl Options {
    /// Refuses what cannot be built.
    pub fn check(&self) -> Result<(), LabError> {
        let within = |option, value: u64, most: u64| {
            if (1..=most).contains(&value) {
                Ok(())
            } else {
                Err(LabError::Option {
                    option,
                    value: value.to_string(),
                    remedy: format!("give 1 to {most}"),
                })
            }
        };
        within("--nodes", self.nodes.into(), MAX_NODES.into())?;
        within("--pods", self.pods.into(), MAX_PODS.into())?;
        let in_all = u64::from(self.nodes) * u64::from(self.pods);
        within("--nodes times --pods", in_all, MAX_PODS_IN_ALL.into())?;
        if self.chaos.is_some() && self.mode.is_of_lan() {
            return Err(LabError::Option {
                option: "--chaos",
                value: format!("with --mode {}", self.mode),
                remedy: "use --mode ptp or bridge: its faults are those of routes to peers".to_owned(),
            });
        }
        self.check_sabotage()?;
        let is_slaac = self.restarts.is_some_and(|restarts| restarts.slaac);
        if is_slaac && !(self.mode.is_of_lan() && self.family == Families::Dual) {
            return Err(LabError::Option {
                option: "--scenario",
                value: format!("slaac with --mode {} --family {}", self.mode, self.family),
                remedy: "use --mode l2-routed or l2, and --family dual: pods have IPv4 addresses of slices beside what they form"
                    .to_owned(),
            });
        }
        if let Some(chaos) = self.chaos {
            within("--duration", chaos.duration_s, 86_400)?;
            if self.nodes < 2 || self.pods < 2 {
                let value = format!("with {} nodes of {} pods", self.nodes, self.pods);
                return Err(LabError::Option {
                    option: "--chaos",
                    value,
                    remedy: "give at least 2 --nodes and 2 --pods, so that there are flows to keep"
                        .to_owned(),
                });
            }
        }
        if let Some(servers) = &self.dhcp {
            if !self.mode.is_of_lan() || self.family != Families::Ipv4 {
                return Err(LabError::Option {
                    option: "--scenario",
                    value: format!("dhcp with --mode {} --family {}", self.mode, self.family),
                    remedy: "use --mode l2-routed or l2, and --family ipv4: a DHCP server lends addresses of the LAN, and \
                             DHCPv6 is not spoken"
                        .to_owned(),
                });
            }
            crate::dhcp::require(servers)?;
        }
        if let Some(uplink) = self.uplink {
            within("--runs", uplink.runs.into(), 10_000)?;
            if self.keep || self.fault.is_some() {
                return Err(LabError::Option {
                    option: "--scenario",
                    value: "uplink with --keep or --fault".to_owned(),
                    remedy: "leave these out: it has no pods".to_owned(),
                });
            }
        }
        within("--timeout", self.timeout_s, 3600)
    }

    /// What is planted must be of a kind that the run can notice.
    fn check_sabotage(&self) -> Result<(), LabError> {
        let of_chaos =
            self.chaos.and_then(|chaos| chaos.sabotage).map(|kind| (kind, &Sabotage::OF_CHAOS[..]));
        let of_restarts = self.restarts.and_then(|restarts| {
            let noticed = if restarts.slaac { &Sabotage::OF_SLAAC[..] } else { &Sabotage::OF_RESTARTS };
            restarts.sabotage.map(|kind| (kind, noticed))
        });
        let of_trials = self.dhcp.as_ref().and_then(|servers| servers.sabotage);
        let planted = of_chaos.or(of_restarts).or(of_trials.map(|kind| (kind, &Sabotage::OF_TRIALS[..])));
        match planted {
            Some((kind, noticed)) if !noticed.contains(&kind) => {
                let noticed: Vec<_> = noticed.iter().map(|kind| kind.name()).collect();
                Err(LabError::Option {
                    option: "--sabotage",
                    value: kind.name().to_owned(),
                    remedy: format!("use one that this run notices: {}", noticed.join(", ")),
                })
            }
            _ => Ok(()),
        }
    }

    /// After so many seconds everything is given up. Each fault may take its time beyond the duration.
    #[must_use]
    pub fn limit_s(&self) -> u64 {
        self.timeout_s + self.chaos.map_or(0, |chaos| chaos.duration_s + CHAOS_ROUND_S)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_pods_than_the_neighbour_table_holds_are_refused() {
        let options = |nodes, pods| crate::topology::tests::options(nodes, pods, Families::Dual);
        assert!(options(32, 4).check().is_ok());
        let error = options(32, 5).check().unwrap_err();
        assert_eq!(error.to_string(), "--nodes times --pods is 160: give 1 to 128");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn sabotage_that_a_run_would_not_notice_is_refused() {
        let mut options = crate::topology::tests::options(2, 2, Families::Dual);
        options.mode = Mode::L2;
        options.restarts = Some(Restarts { slaac: false, sabotage: Some(Sabotage::CutFlow) });
        assert_eq!(
            options.check().unwrap_err().to_string(),
            "--sabotage is cut-flow: use one that this run notices: hold-agents, no-damage, keep-dropping, lose-pods"
        );
        options.restarts = Some(Restarts { slaac: false, sabotage: Some(Sabotage::LosePods) });
        options.check().unwrap();
        let silent = |slaac| Some(Restarts { slaac, sabotage: Some(Sabotage::SilentRouter) });
        options.restarts = silent(false);
        assert!(options.check().is_err());
        options.restarts = silent(true);
        options.check().unwrap();
        options.family = Families::Ipv4;
        assert!(options.check().unwrap_err().to_string().contains("slaac with --mode l2 --family ipv4"));
    }

    #[test]
    fn a_name_that_is_no_file_name_is_refused() {
        for name in ["", "../x", "a b", "-x", &"x".repeat(33), "ä"] {
            assert!(name.parse::<LabName>().is_err(), "{name:?}");
        }
        assert!("lab-7".parse::<LabName>().is_ok());
    }
}
