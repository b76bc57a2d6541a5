//! Options of conntrack without a meaning for sockets, with the reason and a replacement.

use crate::complaint::{Complaint, complaint};

const MARK: &str = "marks belong to packets and to connection tracking, not to what a socket shows: choose by ports, \
                    addresses or owners (--dport, --src, --comm)";
const NAT: &str = "a socket knows one pair of addresses, NAT happens outside of it: use --src and --dst with the \
                   addresses that the socket has";
const ZONE: &str = "zones belong to connection tracking: use --netns for a network namespace";
const LABEL: &str = "labels belong to connection tracking: choose by ports, addresses or owners (--dport, --src, \
                     --comm)";
const CHANGE: &str = "conntrace only looks and changes nothing: to close a socket use ss -K, to change connection \
                      tracking conntrack";
const MASK: &str = "write the prefix with the address instead: --src 10.0.0.0/8";
const EXPECT: &str = "expectations belong to connection tracking: conntrace shows connections only";

/// Names of options, and why conntrace refuses them.
const REFUSED: [(&[&str], &str); 18] = [
    (&["-m", "--mark"], MARK),
    (&["-c", "--secmark"], MARK),
    (&["-l", "--label", "--label-add", "--label-del", "--labelmap"], LABEL),
    (&["-w", "--zone", "--orig-zone", "--reply-zone"], ZONE),
    (&["--src-nat", "-g", "--dst-nat", "-j", "--any-nat"], NAT),
    (&["--mask-src", "--mask-dst"], MASK),
    (
        &["-z", "--zero"],
        "counters are never set back, they belong to everybody: take the difference of two readings, \
                         or use stats --interval",
    ),
    (
        &["-u", "--status"],
        "the status bits of connection tracking do not exist for sockets: use --state, or the \
                           cause of an end in -o json",
    ),
    (
        &["-t"],
        "a socket has no timeout like an entry of connection tracking: to end after some time use --timeout 20s",
    ),
    (&["-i", "--id"], "ids are given while conntrace runs, so none can be known before: -o json shows them"),
    (&["-I", "--create"], CHANGE),
    (&["-A", "--add"], CHANGE),
    (&["-D", "--delete"], CHANGE),
    (&["-U", "--update"], CHANGE),
    (&["-F", "--flush"], CHANGE),
    (&["-R", "--load-file"], CHANGE),
    (
        &["-G", "--get"],
        "to look for one connection use a filter: 'src 192.0.2.7:40000 and dst 192.0.2.22:22'",
    ),
    (&["--tuple-src", "--tuple-dst", "--helper", "--timeout-policy", "-a"], EXPECT),
];

/// Tables of conntrack that conntrace does not have.
const TABLES: [&str; 3] = ["expect", "dying", "unconfirmed"];

/// Why conntrace refuses an option of conntrack's. `None` for other options.
pub(crate) fn why(option: &str) -> Option<Complaint> {
    let name = option.split('=').next().unwrap_or(option);
    let (_, why) = REFUSED.iter().find(|(names, _)| names.contains(&name))?;
    Some(complaint!("{name} of conntrack has no meaning here: {why}"))
}

/// Why conntrace refuses a table of conntrack's. `None` for other words.
pub(crate) fn table(name: &str) -> Option<Complaint> {
    TABLES.contains(&name).then(|| {
        complaint!(
            "there is no table {name:?}: that is one of connection tracking's; conntrace has connections only"
        )
    })
}
