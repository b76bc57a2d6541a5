//! Options of conntrack without a meaning for sockets, with the reason and a replacement.

use crate::complaint::{Complaint, as_typed, complaint};
use crate::filter::value::prefix;

/// Why a run of sockets knows no marks of flows.
pub(crate) const MARK: &str = "marks belong to packets and to connection tracking. Filter by port, address or owner instead: \
                               --dport, --src, --comm; or add --forwarded";
/// Why it knows no address translation.
pub(crate) const NAT: &str = "a socket knows nothing of NAT. Use --src and --dst with the addresses of the socket, or add \
                              --forwarded";
/// Why it knows no zones.
pub(crate) const ZONE: &str =
    "zones belong to connection tracking. Use --netns for a network namespace, or add --forwarded";
const LABEL: &str = "labels belong to connection tracking. Filter by port, address or owner instead: --dport, --src, \
                     --comm";
const CHANGE: &str =
    "conntrace changes nothing. Use ss -K to close a socket, and conntrack to change connection tracking";
const MASK: &str = "write the prefix with the address: --src 10.0.0.0/8";
const EXPECT: &str = "expectations belong to connection tracking. conntrace shows connections only";

/// Names of options, and why conntrace refuses them.
const REFUSED: [(&[&str], &str); 18] = [
    (&["-m", "--mark"], MARK),
    (
        &["-c", "--secmark"],
        "a security mark belongs to connection tracking. Filter by port, address or owner instead",
    ),
    (&["-l", "--label", "--label-add", "--label-del", "--labelmap"], LABEL),
    (&["-w", "--zone", "--orig-zone", "--reply-zone"], ZONE),
    (&["--src-nat", "-g", "--dst-nat", "-j", "--any-nat"], NAT),
    (&["--mask-src", "--mask-dst"], MASK),
    (&["-z", "--zero"], "counters are never reset. Use stats --interval for rates, or subtract two reports"),
    (
        &["-u", "--status"],
        "a socket has no status bits of connection tracking. Use --state, or the reason of an end in -o json",
    ),
    (
        &["-t"],
        "a socket has no timeout like an entry of connection tracking. Use --timeout 20s to end after some time",
    ),
    (&["-i", "--id"], "conntrace gives ids while it runs, so no id is known before. -o json shows them"),
    (&["-I", "--create"], CHANGE),
    (&["-A", "--add"], CHANGE),
    (&["-D", "--delete"], CHANGE),
    (&["-U", "--update"], CHANGE),
    (&["-F", "--flush"], CHANGE),
    (&["-R", "--load-file"], CHANGE),
    (
        &["-G", "--get"],
        "use a filter to find one connection: 'client 192.0.2.7:40000 and server 192.0.2.22:22'",
    ),
    (&["--tuple-src", "--tuple-dst", "--helper", "--timeout-policy", "-a"], EXPECT),
];

/// Tables of conntrack that conntrace does not have.
const TABLES: [&str; 3] = ["expect", "dying", "unconfirmed"];

/// Why conntrace refuses an option of conntrack's. `None` for other options.
pub(crate) fn why(option: &str) -> Option<Complaint> {
    let name = option.split('=').next().unwrap_or(option);
    let (_, why) = REFUSED.iter().find(|(names, _)| names.contains(&name))?;
    Some(complaint!("conntrack's {name} has no meaning here: {why}"))
}

/// True for a word that can only be an address or a prefix.
pub(crate) fn is_address(word: &str) -> bool {
    word.contains(['.', ':']) && prefix::parse(word).is_ok()
}

/// Why conntrace refuses conntrack's `-n ADDRESS`, in one word or two. `None` for anything else behind `-n`: here that is
/// a flag, and an address begins no expression.
pub(crate) fn source_nat(word: &str) -> Option<Complaint> {
    is_address(word).then(|| {
        complaint!("-n takes no address: it shows numbers of ports. In conntrack it is --src-nat, and {NAT}")
    })
}

/// Why conntrace refuses a table of conntrack's. `None` for other words.
pub(crate) fn table(name: &str) -> Option<Complaint> {
    TABLES.contains(&name).then(|| {
        complaint!(
            "there is no table {}: it belongs to connection tracking, and conntrace has connections only",
            as_typed(name)
        )
    })
}
