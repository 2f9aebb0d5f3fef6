//! `hostgw uplink`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use agent::Paths;
use clap::{Args, Subcommand};
use link_name::LinkName;
use serde::Serialize;
use uplink::probe::Target;
use uplink::{Folders, LinkStatus, Prepared, Request, UplinkError};

use crate::output::{Output, fail, print, print_text};

const EXAMPLES: &str = "\
Examples:
  hostgw uplink join --link eth0 --bridge br0 --dry-run
  hostgw uplink join --link eth0 --bridge br0 --confirm-within 60s
  hostgw uplink confirm
  hostgw uplink leave --link eth0

The link's addresses, routes of every table, policy rules, neighbours and settings move with it; established \
connections stay. A watchdog, started before the first change, puts everything back if the gateways (or the --probe \
addresses) do not answer, if the command is killed, or if nobody confirms in time. A boot brings the state before, \
unless --persist changed what it brings.

Exit codes: 0 done; 1 failed and put back; 2 usage, or the move is refused; 4 no permission.";

/// Move the node's uplink into a bridge, or out of it, without losing a connection.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Uplink {
    #[command(subcommand)]
    verb: Verb,
    /// Put before every path, as where a container has the host's files.
    #[arg(long, global = true, value_name = "DIR", default_value = "/")]
    root: PathBuf,
    /// Where the node's /proc/sys/net can be written, for a container whose own is read-only: DIR/net.
    #[arg(long, global = true, value_name = "DIR", default_value = "/proc/sys")]
    sysctls: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make the link a port of a new bridge that takes over all it holds.
    #[command(after_help = EXAMPLES)]
    Join {
        /// The NIC, bond or VLAN link.
        #[arg(long, value_name = "NAME")]
        link: LinkName,
        /// The bridge to make.
        #[arg(long, value_name = "NAME")]
        bridge: LinkName,
        /// Change the configuration of systemd-networkd, netplan, NetworkManager or ifupdown as well, whichever has the link,
        /// once the move is settled; the changes are shown first.
        #[arg(long)]
        persist: bool,
        /// An address that must answer besides the gateways, or besides the --probe addresses.
        #[arg(long = "also-probe", value_name = "ADDR")]
        also: Vec<Target>,
        #[command(flatten)]
        guard: Guard,
    },
    /// Give the link back what the bridge holds, and delete the bridge.
    #[command(after_help = EXAMPLES)]
    Leave {
        /// The link.
        #[arg(long, value_name = "NAME")]
        link: LinkName,
        #[command(flatten)]
        guard: Guard,
    },
    /// Keep the move that was made.
    #[command(after_help = EXAMPLES)]
    Confirm,
    /// Tell how each link stands; put back what was broken off and has no watchdog any more.
    #[command(after_help = EXAMPLES)]
    Status {
        /// What to print.
        #[arg(short, long, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
}

/// What guards a move.
#[derive(Debug, Args)]
struct Guard {
    /// Put everything back unless `hostgw uplink confirm` is called within this time; 0s: the probes are enough.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    confirm_within: Duration,
    /// An address, or address and TCP port, that must answer before and after; the default gateways if none is given.
    #[arg(long = "probe", value_name = "ADDR")]
    probes: Vec<Target>,
    /// Print the sequence, and change nothing.
    #[arg(long)]
    dry_run: bool,
}

/// A whole number and `s`, `m` or `ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time: give such as 60s, 5m or 500ms");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let number: u64 = text[..split].parse().map_err(|_| wrong())?;
    let time = match &text[split..] {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err(wrong()),
    };
    if time <= Duration::from_secs(3600) { Ok(time) } else { Err(format!("`{text}` is longer than an hour")) }
}

/// What `status -o json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusDocument {
    schema_version: u32,
    links: Vec<LinkStatus>,
}

impl std::fmt::Display for StatusDocument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.links.is_empty() {
            return writeln!(f, "no link has been moved since the boot");
        }
        self.links.iter().try_for_each(|link| writeln!(f, "{link}"))
    }
}

/// Runs the command and gives the contract's exit code.
pub(crate) fn run(command: &Uplink) -> ExitCode {
    let root = std::path::absolute(&command.root).unwrap_or_else(|_| command.root.clone());
    let paths = Paths::below(&root);
    let sysctls = std::path::absolute(&command.sysctls).unwrap_or_else(|_| command.sysctls.clone());
    let folders = Folders { run: paths.run_dir(), lib: paths.var_dir(), root, sysctls };
    let done = match &command.verb {
        Verb::Join { link, bridge, persist, also, guard } => {
            let request = Request {
                link: link.clone(),
                bridge: bridge.clone(),
                confirm_within: guard.confirm_within,
                probes: guard.probes.clone(),
                also: also.clone(),
                persist: *persist,
            };
            uplink::prepare_join(&request, &folders).and_then(|prepared| make(prepared, guard))
        }
        Verb::Leave { link, guard } => {
            uplink::prepare_leave(link, &guard.probes, guard.confirm_within, &folders)
                .and_then(|prepared| make(prepared, guard))
        }
        Verb::Confirm => {
            uplink::confirm(&folders).map(|links| say(&format!("{}: confirmed\n", links.join(", "))))
        }
        Verb::Status { output } => uplink::status(&folders).map(|links| {
            let document = StatusDocument { schema_version: 1, links };
            print(&document, *output).map_or_else(|error| fail("uplink", &error, 1), |()| ExitCode::SUCCESS)
        }),
    };
    done.unwrap_or_else(|error| fail("uplink", &error, error.exit_code()))
}

/// Nothing is printed while changes are made: a terminal that hangs must not hold them up.
fn make(prepared: Prepared, guard: &Guard) -> Result<ExitCode, UplinkError> {
    let take_over = prepared.proposal().map(|proposal| proposal.take_over);
    let mut shown = uplink::persist::diff(prepared.files());
    if let Some(check) = prepared.proposal().and_then(|proposal| proposal.check) {
        shown += &format!("once it is written, this checks it: {check}\n");
    }
    prepared.notes().iter().for_each(|note| eprintln!("note: {note}"));
    let targets: Vec<_> = prepared.targets().iter().map(ToString::to_string).collect();
    if guard.dry_run {
        let steps: String = prepared.steps().iter().map(|step| format!("{step}\n")).collect();
        return Ok(say(&format!("{steps}probe {}\n{shown}", targets.join(", "))));
    }
    say(&shown);
    prepared.make()?;
    let mut answer = format!("moved; {} answered", targets.join(", "));
    if let Some(take_over) = take_over {
        answer += &format!("; its program takes over, DHCP client and all, by: {take_over}");
    }
    Ok(if guard.confirm_within.is_zero() {
        say(&format!("{answer}\n"))
    } else {
        let seconds = guard.confirm_within.as_secs_f64();
        say(&format!("{answer}; put back in {seconds} s unless `hostgw uplink confirm` is called\n"))
    })
}

fn say(text: &str) -> ExitCode {
    print_text(text).map_or_else(|error| fail("uplink", &error, 1), |()| ExitCode::SUCCESS)
}
