//! `resolv.conf(5)`, as far as a result's `dns` can say it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cni_spec::{CniError, Dns};

use crate::failure::io_failed;

/// More than any resolver reads.
const MAX_LEN: u64 = 1 << 20;

/// Reads the file that `ipam.resolvConf` names.
pub(super) fn read(path: &Path) -> Result<Dns, CniError> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_LEN).read_to_end(&mut text))
        .map_err(|error| io_failed(&format!("read `ipam.resolvConf` {}", path.display()), &error))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// As the reference reads it: the last `domain` counts, all the others add up.
fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
        let mut words = line.split_whitespace().map(str::to_owned);
        let keyword = words.next();
        let Some(first) = words.next() else { continue };
        let all = std::iter::once(first.clone()).chain(words);
        match keyword.as_deref() {
            Some("nameserver") => dns.nameservers.push(first),
            Some("domain") => dns.domain = Some(first),
            Some("search") => dns.search.extend(all),
            Some("options") => dns.options.extend(all),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_the_reference_reads_is_read() {
        let dns = parse(
            "# a comment\n;another\nnameserver 192.0.2.53 ignored\nnameserver\n  nameserver 2001:db8::53\n\
             domain first.example\ndomain second.example\nsearch a.example b.example\nsearch c.example\n\
             options ndots:5 rotate\nsortlist 192.0.2.0\n",
        );
        assert_eq!(dns.nameservers, ["192.0.2.53", "2001:db8::53"]);
        assert_eq!(dns.domain.as_deref(), Some("second.example"));
        assert_eq!(dns.search, ["a.example", "b.example", "c.example"]);
        assert_eq!(dns.options, ["ndots:5", "rotate"]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text: String) {
            parse(&text);
        }
    }
}
