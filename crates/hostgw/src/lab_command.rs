//! `hostgw lab`: its options and what it prints; the work is the crate `lab`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use lab::options::{
    Chaos, DhcpServers, Families, Fault, LabName, MAX_NODES, MAX_PODS, Mode, Restarts, Sabotage, UplinkRuns,
};
use lab::registry::Registry;
use lab::report::Report;
use lab::{LabError, Options};

const EXAMPLES: &str = "\
Examples:
  hostgw lab                                three nodes, two pods each, both families
  hostgw lab --mode bridge --family ipv6    pods on a bridge, IPv6 only
  hostgw lab --nodes 5 -o json              one JSON document (`hostgw schema lab` describes it)
  hostgw lab --scenario l2-routed           pods on the nodes' own LAN, through restarts and firewalls
  hostgw lab --chaos --duration 2m          let faults come, and see each healed
  hostgw lab --keep --name mine             leave it running, then:
  hostgw lab exec mine node2/pod1 -- ip address
  hostgw lab down mine

Exit codes: 0 every check held; 1 one failed; 2 usage; 4 no permission to make namespaces; 130 interrupted.";

/// Build a small cluster on this machine in network namespaces, run the real agent and plugin in it, and prove with
/// packets that pods reach each other.
///
/// Needs no root where user namespaces are allowed, and never touches the machine's own network.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Lab {
    #[command(subcommand)]
    command: Option<LabSubcommand>,
    #[command(flatten)]
    build: Build,
}

#[derive(Debug, Args)]
struct Build {
    /// How many nodes.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_NODES)))]
    nodes: u8,
    /// How many pods on each node.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=i64::from(MAX_PODS)))]
    pods: u8,
    /// How pods are attached; default: ptp, or what the scenario says.
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    /// Which address families the cluster has; default: dual, with --scenario dhcp ipv4.
    #[arg(long, value_enum)]
    family: Option<FamilyArg>,
    /// Leave the lab running after its probes.
    #[arg(long)]
    keep: bool,
    /// The folder of `hostgw` and `hostgw-cni`; default: that of this program.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// The lab's name; default: one that is made up.
    #[arg(long)]
    name: Option<LabName>,
    /// Give up after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    /// Decides the order of the probes, and of faults and the nodes they meet; default: one that is made up, and told.
    #[arg(long)]
    seed: Option<u64>,
    /// Prove something else than the cluster, or more.
    #[arg(long, value_enum, conflicts_with = "chaos")]
    scenario: Option<ScenarioArg>,
    /// Where dnsmasq and Kea are unpacked, for --scenario dhcp; default: this machine's own.
    #[arg(long, value_name = "DIR", requires = "scenario")]
    dhcp_servers: Option<PathBuf>,
    /// How often the scenario does its work.
    #[arg(long, default_value_t = 20, requires = "scenario", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    runs: u32,
    /// Fail if a session is silent for so many milliseconds.
    #[arg(long, value_name = "MS", requires = "scenario")]
    budget: Option<u64>,
    /// Let faults come, one after the other, while pods come and go: each must be noticed, and healed.
    #[arg(long)]
    chaos: bool,
    /// For how long faults come, in seconds (s), minutes (m) or hours (h); each comes at least once.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = seconds, requires = "chaos")]
    duration: u64,
    /// Spoil a run of faults, restarts or trials, to see it fail.
    #[arg(long, value_name = "KIND", hide = true)]
    sabotage: Option<Sabotage>,
    /// What to print.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// Break what this kind of probe proves, or first-packet, or removed-node, to see it fail.
    #[arg(long, value_name = "KIND", hide = true)]
    fault: Option<Fault>,
}

#[derive(Debug, Subcommand)]
enum LabSubcommand {
    /// List kept labs.
    List {
        /// What to print.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Run a command in a place of a kept lab, and exit with its code.
    #[command(after_help = "Examples:\n  hostgw lab exec mine node2 -- ip route\n  \
        hostgw lab exec mine node2/pod1 -- ping -c1 10.244.1.2\n  hostgw lab exec mine lan -- tcpdump -ni lan0")]
    Exec {
        /// The lab.
        name: String,
        /// node2, node2/pod1, outside, or lan.
        #[arg(value_name = "WHERE")]
        place: String,
        /// The command.
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// End a kept lab.
    Down {
        /// The lab.
        name: String,
    },
    #[command(name = lab::INNER_COMMAND, hide = true)]
    Inner,
    #[command(name = lab::FOREIGN_PROGRAM_COMMAND, hide = true)]
    ForeignProgram { trade: String },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// A routed link for each pod.
    Ptp,
    /// Pods are ports of a bridge.
    Bridge,
    /// Pods are hosts of the nodes' LAN, on a bridge with the node's uplink.
    L2,
    /// Pods are hosts of the nodes' LAN, behind routed links.
    L2Routed,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ScenarioArg {
    /// A node's uplink joins a bridge and leaves it while sessions and pings go over it.
    Uplink,
    /// Pods are hosts of the nodes' LAN, on bridges; nodes drop what they forward, an agent and a node start anew.
    L2,
    /// The same with pods behind routed links.
    L2Routed,
    /// The same with IPv6 addresses that pods form of what the LAN's router announces; on bridges with --mode l2.
    Slaac,
    /// Real DHCP servers lend pods their addresses, and are down, slow, empty, changed, or two; on bridges with --mode l2.
    Dhcp,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FamilyArg {
    /// IPv4 and IPv6.
    Dual,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people.
    Text,
    /// One document.
    Json,
}

/// Runs the command and gives the contract's exit code.
pub(crate) fn run(lab: Lab) -> ExitCode {
    let outcome = match lab.command {
        None => build(lab.build),
        Some(LabSubcommand::Inner) => return ExitCode::from(lab::inner()),
        Some(LabSubcommand::ForeignProgram { trade }) => return ExitCode::from(lab::foreign_program(&trade)),
        Some(LabSubcommand::List { output }) => list(output),
        Some(LabSubcommand::Exec { name, place, command }) => {
            Registry::of_this_user().find(&name).and_then(|entry| lab::exec(&entry, &place, &command))
        }
        Some(LabSubcommand::Down { name }) => Registry::of_this_user().down(&name).map(|()| 0),
    };
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("hostgw lab: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn build(wanted: Build) -> Result<u8, LabError> {
    let made_up = made_up();
    let name = match wanted.name {
        Some(name) => name,
        None => format!("lab-{:04x}", made_up & 0xffff).parse()?,
    };
    let spoiled = wanted.chaos
        || matches!(
            wanted.scenario,
            Some(ScenarioArg::L2 | ScenarioArg::L2Routed | ScenarioArg::Slaac | ScenarioArg::Dhcp)
        );
    if let Some(kind) = wanted.sabotage.filter(|_| !spoiled) {
        let remedy = "add --chaos, or --scenario l2, l2-routed, slaac or dhcp, for it to spoil".to_owned();
        return Err(LabError::Option { option: "--sabotage", value: kind.name().to_owned(), remedy });
    }
    let is_dhcp = matches!(wanted.scenario, Some(ScenarioArg::Dhcp));
    let unpacked = wanted.dhcp_servers.as_deref().map(std::path::absolute).transpose();
    let unpacked = unpacked
        .map_err(|source| LabError::Io { attempted: "make --dhcp-servers absolute".to_owned(), source })?;
    let options = Options {
        nodes: wanted.nodes,
        pods: wanted.pods,
        mode: mode(wanted.scenario, wanted.mode)?,
        family: match wanted.family.unwrap_or(if is_dhcp { FamilyArg::Ipv4 } else { FamilyArg::Dual }) {
            FamilyArg::Dual => Families::Dual,
            FamilyArg::Ipv4 => Families::Ipv4,
            FamilyArg::Ipv6 => Families::Ipv6,
        },
        keep: wanted.keep,
        bin_dir: bin_dir(wanted.bin_dir)?,
        name,
        timeout_s: wanted.timeout,
        seed: wanted.seed.unwrap_or(made_up),
        fault: wanted.fault,
        uplink: matches!(wanted.scenario, Some(ScenarioArg::Uplink))
            .then_some(UplinkRuns { runs: wanted.runs, budget_ms: wanted.budget }),
        restarts: matches!(
            wanted.scenario,
            Some(ScenarioArg::L2 | ScenarioArg::L2Routed | ScenarioArg::Slaac)
        )
        .then_some(Restarts {
            slaac: matches!(wanted.scenario, Some(ScenarioArg::Slaac)),
            sabotage: wanted.sabotage,
        }),
        dhcp: is_dhcp.then_some(DhcpServers { unpacked, sabotage: wanted.sabotage }),
        chaos: wanted.chaos.then_some(Chaos { duration_s: wanted.duration, sabotage: wanted.sabotage }),
    };
    let report = lab::launch(&options)?;
    print(&render(&report, wanted.output)?)?;
    Ok(u8::from(!report.ok))
}

/// How pods are attached: as the scenario says, which for DHCP and SLAAC leaves a choice.
fn mode(scenario: Option<ScenarioArg>, wanted: Option<ModeArg>) -> Result<Mode, LabError> {
    let wanted = wanted.map(|wanted| match wanted {
        ModeArg::Ptp => Mode::Ptp,
        ModeArg::Bridge => Mode::Bridge,
        ModeArg::L2 => Mode::L2,
        ModeArg::L2Routed => Mode::L2Routed,
    });
    let of_scenario = match scenario {
        None => return Ok(wanted.unwrap_or(Mode::Ptp)),
        Some(ScenarioArg::Dhcp | ScenarioArg::Slaac) => return Ok(wanted.unwrap_or(Mode::L2Routed)),
        Some(ScenarioArg::Uplink) => Mode::Ptp,
        Some(ScenarioArg::L2) => Mode::L2,
        Some(ScenarioArg::L2Routed) => Mode::L2Routed,
    };
    match wanted {
        None => Ok(of_scenario),
        Some(wanted) => Err(LabError::Option {
            option: "--mode",
            value: format!("{wanted} beside a --scenario that decides it"),
            remedy: "leave it out".to_owned(),
        }),
    }
}

/// Reads `90`, `90s`, `2m` or `1h`.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(number) if text.ends_with('m') => (number, 60),
        Some(number) if text.ends_with('h') => (number, 3600),
        Some(number) => (number, 1),
        None => (text, 1),
    };
    let read: Option<u64> = number.parse().ok();
    read.and_then(|number| number.checked_mul(unit))
        .filter(|seconds| *seconds > 0)
        .ok_or_else(|| format!("`{text}` is no time: give seconds, or a number with s, m or h"))
}

/// A number that differs from run to run; JSON readers keep 53 bits of it.
fn made_up() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id()) & 0xffff_ffff
}

fn bin_dir(given: Option<PathBuf>) -> Result<PathBuf, LabError> {
    let failed = |attempted: &str| {
        let attempted = attempted.to_owned();
        move |source| LabError::Io { attempted, source }
    };
    let folder = match given {
        Some(folder) => folder,
        None => {
            let own = std::env::current_exe()
                .map_err(failed("find this program's folder (name it with --bin-dir)"))?;
            own.parent().map(PathBuf::from).unwrap_or_default()
        }
    };
    // The lab's first process may stand elsewhere.
    std::path::absolute(&folder).map_err(failed("make --bin-dir absolute"))
}

fn render(report: &Report, output: Output) -> Result<String, LabError> {
    match output {
        Output::Text => Ok(format!("\n{}\n{}", lab::picture(report), lab::matrix(report))),
        Output::Json => json(report),
    }
}

fn json(document: &impl serde::Serialize) -> Result<String, LabError> {
    match serde_json::to_string_pretty(document) {
        Ok(text) => Ok(text + "\n"),
        Err(error) => Err(LabError::Io { attempted: "render the report".to_owned(), source: error.into() }),
    }
}

/// A reader that has seen enough is no failure.
fn print(text: &str) -> Result<(), LabError> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(source) if source.kind() != io::ErrorKind::BrokenPipe => {
            Err(LabError::Io { attempted: "print the report".to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn list(output: Output) -> Result<u8, LabError> {
    let labs = Registry::of_this_user().list()?;
    let text = match output {
        Output::Json => json(&serde_json::json!({"schemaVersion": 1, "labs": labs}))?,
        Output::Text if labs.is_empty() => {
            "no lab is kept: `hostgw lab --keep` leaves one running\n".to_owned()
        }
        Output::Text => labs
            .iter()
            .map(|lab| {
                let (nodes, pods) = (lab.nodes, lab.pods);
                format!(
                    "{:<16} {nodes} nodes, {pods} pods each, {}, {}\n",
                    lab.name.as_str(),
                    lab.mode,
                    lab.family
                )
            })
            .collect(),
    };
    print(&text)?;
    Ok(0)
}
