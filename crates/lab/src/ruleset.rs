//! nftables as far as the lab needs them: a foreign table to plant, tables of ours to break, and everybody else's to
//! compare (`linux/netfilter/nf_tables.h`).

use kernel::KernelError;
use kernel::netlink::{Attributes, Batch, CREATE, EXCL, Protocol, Socket};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEWTABLE: u16 = message(0);
const GETTABLE: u16 = message(1);
const DELTABLE: u16 = message(2);
const NEWCHAIN: u16 = message(3);
const GETCHAIN: u16 = message(4);
const NEWRULE: u16 = message(6);
const GETRULE: u16 = message(7);
const GETSET: u16 = message(10);

/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;
/// The first attribute of tables, chains, rules and sets alike is the table's name.
const TABLE_NAME: u16 = 1;

/// The tables that are ours, in the family `inet`: the agent's and the plugin's.
const OURS: [&str; 2] = [AGENT_TABLE, HOST_PORT_TABLE];
/// Masquerading and protection, kept by the agent.
pub(crate) const AGENT_TABLE: &str = "hostgw";
/// Host ports, kept by the plugin.
pub(crate) const HOST_PORT_TABLE: &str = "hostgw_hostport";

const fn message(kind: u16) -> u16 {
    (SUBSYSTEM << 8) | kind
}

/// `struct nfgenmsg`.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Carries out `write` as one transaction.
fn transaction(write: impl FnOnce(&mut Batch)) -> Result<(), KernelError> {
    let mut batch = Batch::new();
    batch.message("begin a ruleset transaction", BATCH_BEGIN, 0, &header(0, SUBSYSTEM));
    write(&mut batch);
    batch.message("end a ruleset transaction", BATCH_END, 0, &header(0, SUBSYSTEM));
    let failures = Socket::open(Protocol::Netfilter)?.execute_transaction(&mut batch)?;
    failures.into_iter().next().map_or(Ok(()), |failure| Err(failure.error))
}

/// `table ip foreign { chain forward { type filter hook forward priority 0; policy accept; accept } }`
pub(crate) fn plant_foreign_table() -> Result<(), KernelError> {
    const FOREIGN: &str = "foreign";
    transaction(|batch| {
        let ip = header(IPV4, 0);
        batch.message("add a table", NEWTABLE, CREATE | EXCL, &ip).text(TABLE_NAME, FOREIGN);
        batch
            .message("add a chain", NEWCHAIN, CREATE | EXCL, &ip)
            .text(TABLE_NAME, FOREIGN)
            .text(3, "forward")
            .nest(4, |hook| {
                hook.be32(1, 2).be32(2, 0);
            })
            .be32(5, 1)
            .text(7, "filter");
        batch.message("add a rule", NEWRULE, CREATE, &ip).text(TABLE_NAME, FOREIGN).text(2, "forward").nest(
            4,
            |expressions| {
                expressions.nest(1, |expression| {
                    expression.text(1, "immediate").nest(2, |immediate| {
                        immediate.be32(1, 0).nest(2, |data| {
                            data.nest(2, |verdict| {
                                verdict.be32(1, 1);
                            });
                        });
                    });
                });
            },
        );
    })
}

/// Deletes a table of ours, as `nft delete table inet NAME` does.
pub(crate) fn delete_our_table(name: &'static str) -> Result<(), KernelError> {
    transaction(|batch| {
        batch.message("delete a table", DELTABLE, 0, &header(INET, 0)).text(TABLE_NAME, name);
    })
}

/// Every table, chain, rule and set that is not of ours, as the kernel's own bytes: they are only compared.
pub(crate) fn dump_foreign() -> Result<Vec<Vec<u8>>, KernelError> {
    let mut socket = Socket::open(Protocol::Netfilter)?;
    let mut objects = Vec::new();
    for kind in [GETTABLE, GETCHAIN, GETRULE, GETSET] {
        let mut request = Batch::new();
        request.message("list the ruleset", kind, 0, &header(0, 0));
        let before = objects.len();
        socket.dump(&mut request, |object| match object {
            Some((_, payload)) => objects.extend(foreign(payload)),
            None => objects.truncate(before),
        })?;
    }
    Ok(objects)
}

/// The family and the attributes of an object that is not ours. Between them stands the ruleset's generation, which
/// every change of anybody's moves.
fn foreign(payload: &[u8]) -> Option<Vec<u8>> {
    let (header, attributes) = payload.split_at_checked(4)?;
    let table = Attributes::new(attributes).get(TABLE_NAME)?.text();
    let ours = header[0] == INET && OURS.contains(&table.as_str());
    (!ours).then(|| [&header[..1], attributes].concat())
}
