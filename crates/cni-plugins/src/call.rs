//! One call: from the name that the program was called by, the environment and standard input, to the plugin's verb
//! and an exit code.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;

use cni_spec::{
    BaseConf, CallEnvironment, CniError, ErrorCode, GcRequest, LogConf, MAX_INPUT_LEN, NetConf, SpecVersion,
    StatusConf, StoreConf, version_report,
};

use crate::answer::Answer;
use crate::failure::io_failed;
use crate::{
    bandwidth_plugin, bridge, closing, dhcp, firewall, host_local, hostgw, loopback, portmap, ptp,
    static_ipam, tuning,
};

const SUCCESS: u8 = 0;
const FAILURE: u8 = 1;

/// The reference plugins that the program stands in for, by the names of their files.
pub const DROP_IN_NAMES: [&str; 10] = [
    "bandwidth",
    "bridge",
    "dhcp",
    "firewall",
    "host-local",
    "loopback",
    "portmap",
    "ptp",
    "static",
    "tuning",
];

/// A plugin, by the name of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plugin {
    Hostgw,
    Loopback,
    Bridge,
    Ptp,
    HostLocal,
    Static,
    Portmap,
    Firewall,
    Tuning,
    Bandwidth,
    Dhcp,
}

impl Plugin {
    /// The names that the program answers to: its own, and those of the reference plugins that it stands in for.
    const NAMES: [(&str, Self); 12] = [
        ("hostgw", Self::Hostgw),
        ("hostgw-cni", Self::Hostgw),
        ("loopback", Self::Loopback),
        ("bridge", Self::Bridge),
        ("ptp", Self::Ptp),
        ("host-local", Self::HostLocal),
        ("static", Self::Static),
        ("portmap", Self::Portmap),
        ("firewall", Self::Firewall),
        ("tuning", Self::Tuning),
        ("bandwidth", Self::Bandwidth),
        ("dhcp", Self::Dhcp),
    ];

    /// The runtime executes a file that is named as the configuration's `type`.
    fn named(program: &OsStr) -> Option<Self> {
        let name = Path::new(program).file_name()?.to_str()?;
        Self::NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, plugin)| plugin)
    }

    fn names() -> String {
        Self::NAMES.map(|(name, _)| name).join(", ")
    }

    fn serve(self, call: &Call<'_>, answer: &mut Answer) -> Result<(), CniError> {
        match self {
            Self::Hostgw => serve_hostgw(call.environment, call.stdin, answer),
            Self::Loopback => serve_loopback(call.environment, call.base, answer),
            Self::Bridge => bridge::serve(call, answer),
            Self::Ptp => ptp::serve(call, answer),
            Self::HostLocal => host_local::serve(call, answer),
            Self::Static => static_ipam::serve(call, answer),
            Self::Portmap => portmap::serve(call, answer),
            Self::Firewall => firewall::serve(call, answer),
            Self::Tuning => tuning::serve(call, answer),
            Self::Bandwidth => bandwidth_plugin::serve(call, answer),
            Self::Dhcp => dhcp::serve(call, answer),
        }
    }
}

/// What a plugin is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) environment: &'a CallEnvironment,
    /// The keys that every configuration has.
    pub(crate) base: &'a BaseConf,
    /// The whole configuration, as it was written to standard input.
    pub(crate) stdin: &'a [u8],
}

/// Serves one call, and gives the exit code; the runtime reads standard output, too.
pub fn run() -> u8 {
    let program = std::env::args_os().next().unwrap_or_default();
    let Some(plugin) = Plugin::named(&program) else {
        let msg = format!(
            "this program was called as `{}`: give its file one of the names {}",
            Path::new(&program).display(),
            Plugin::names()
        );
        return fail(&CniError::new(ErrorCode::InvalidEnvironment, msg), SpecVersion::NEWEST);
    };
    if std::env::var_os("CNI_COMMAND").is_none() {
        return introduce();
    }
    let mut answer = Answer::new(String::new());
    let mut version = SpecVersion::NEWEST;
    let code = match serve(plugin, &mut answer, &mut version) {
        Ok(()) => SUCCESS,
        Err(error) => {
            answer.error(&error.to_string());
            fail(&error, version)
        }
    };
    closing::leave();
    code
}

/// A person called, not a runtime.
#[expect(clippy::print_stdout, reason = "this is what a person asked for")]
fn introduce() -> u8 {
    println!(
        "hostgw-cni {}: CNI plugins, one by the name that this file is called by: {}.\n\
         CNI protocol versions supported: {}\n\n\
         A container runtime calls it, with CNI_COMMAND and others in the environment and a configuration on standard \
         input.\nTo try it by hand:\n\n  echo '{{\"cniVersion\":\"1.1.0\"}}' | CNI_COMMAND=VERSION hostgw-cni",
        env!("CARGO_PKG_VERSION"),
        Plugin::names(),
        SpecVersion::ALL.map(SpecVersion::as_str).join(", ")
    );
    SUCCESS
}

fn fail(error: &CniError, version: SpecVersion) -> u8 {
    // Nobody is left to tell where standard output is gone.
    Answer::new(String::new()).give(&error.to_json(version)).ok();
    FAILURE
}

fn serve(plugin: Plugin, answer: &mut Answer, version: &mut SpecVersion) -> Result<(), CniError> {
    let environment = CallEnvironment::read(|name| {
        std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
    });
    let stdin = read_stdin()?;
    // The answer to a bad environment is in the version that the configuration asks for, where it can be read.
    let base = BaseConf::parse(&stdin);
    if let Ok(base) = &base {
        *version = base.cni_version;
    }
    let environment = environment?;
    if environment == CallEnvironment::Version {
        let report = version_report(&stdin);
        return answer
            .give(&report)
            .map_err(|error| io_failed("write the versions to standard output", &error));
    }
    let base = base?;
    environment.command().check_allowed_in(base.cni_version)?;
    *answer = Answer::new(describe(&environment, &base));
    plugin.serve(&Call { environment: &environment, base: &base, stdin: &stdin }, answer)
}

fn serve_hostgw(environment: &CallEnvironment, stdin: &[u8], answer: &mut Answer) -> Result<(), CniError> {
    match environment {
        CallEnvironment::Add(call) => {
            let conf = logged(NetConf::parse(stdin)?, |conf| &conf.log, answer);
            answer.explain(|| "the configuration is read".to_owned());
            hostgw::add(call, &conf, answer)?;
            answer.inform("attached");
            answer.explain(|| "answered".to_owned());
        }
        CallEnvironment::Check(call) => {
            hostgw::check(call, &logged(NetConf::parse(stdin)?, |conf| &conf.log, answer))?;
        }
        CallEnvironment::Del(call) => {
            hostgw::del(call, &logged(StoreConf::parse(stdin)?, |conf| &conf.log, answer))?;
            answer.inform("detached");
        }
        CallEnvironment::Gc => {
            hostgw::gc(&logged(GcRequest::parse(stdin)?, |request| &request.store.log, answer), answer)?;
        }
        CallEnvironment::Status => {
            hostgw::status(&StatusConf::parse(stdin)?, stdin)?;
        }
        CallEnvironment::Version => {}
    }
    Ok(())
}

fn serve_loopback(
    environment: &CallEnvironment,
    base: &BaseConf,
    answer: &mut Answer,
) -> Result<(), CniError> {
    match environment {
        CallEnvironment::Add(call) => loopback::add(&call.netns, base, answer),
        CallEnvironment::Check(call) => loopback::check(&call.netns),
        CallEnvironment::Del(call) => loopback::del(call.netns.as_deref()),
        CallEnvironment::Gc | CallEnvironment::Status | CallEnvironment::Version => Ok(()),
    }
}

/// The configuration, whose log is from now on the answer's.
fn logged<C>(conf: C, log: impl Fn(&C) -> &LogConf, answer: &mut Answer) -> C {
    answer.log_to(log(&conf).clone());
    conf
}

fn describe(environment: &CallEnvironment, base: &BaseConf) -> String {
    let verb = environment.command();
    match environment.attachment() {
        Some(attachment) => format!("{verb} {} {attachment}", base.name),
        None => format!("{verb} {}", base.name),
    }
}

/// All of standard input, or an error where it is longer than any configuration may be.
fn read_stdin() -> Result<Vec<u8>, CniError> {
    let mut stdin = Vec::with_capacity(4096);
    stdin.extend_from_slice(early_loopback::taken());
    std::io::stdin()
        .lock()
        .take((MAX_INPUT_LEN + 1).saturating_sub(stdin.len()) as u64)
        .read_to_end(&mut stdin)
        .map_err(|error| io_failed("read the configuration from standard input", &error))?;
    Ok(stdin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_picked_by_the_name_of_its_file_wherever_it_lies() {
        assert_eq!(Plugin::named(OsStr::new("/opt/cni/bin/hostgw")), Some(Plugin::Hostgw));
        assert_eq!(Plugin::named(OsStr::new("./hostgw-cni")), Some(Plugin::Hostgw));
        assert_eq!(Plugin::named(OsStr::new("loopback")), Some(Plugin::Loopback));
        assert_eq!(Plugin::named(OsStr::new("/opt/cni/bin/host-local")), Some(Plugin::HostLocal));
        assert_eq!(Plugin::named(OsStr::new("/opt/cni/bin/")), None);
        assert_eq!(Plugin::named(OsStr::new("calico")), None);
        assert!(DROP_IN_NAMES.iter().all(|name| Plugin::named(OsStr::new(name)).is_some()));
    }
}
