//! `hostgw-cni`: every CNI plugin of hostgw in one program, picked by the name that it is called by.

fn main() -> std::process::ExitCode {
    cni_plugins::run()
}
