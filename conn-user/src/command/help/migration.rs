//! Commands of other tools, and the commands of conntrace for the same purpose.

use std::fmt::Write as _;

/// A pair of commands.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    /// The command of the other tool.
    pub before: &'static str,
    /// The command of conntrace.
    pub now: &'static str,
}

const fn from(before: &'static str, now: &'static str) -> Migration {
    Migration { before, now }
}

/// The pairs, by tool.
pub const MIGRATIONS: &[Migration] = &[
    from("netstat -t", "conntrace list -o table --resolve"),
    from("netstat -tn", "conntrace list -o table -n"),
    from("netstat -tnc", "conntrace"),
    from("netstat -tn | grep -c :443", "conntrace count --dport 443"),
    from("ss -t", "conntrace list -o table"),
    from("ss -tn", "conntrace list -o table -n"),
    from("ss -tn dport = :ssh", "conntrace list -o table -n dport = :ssh"),
    from("ss -tnp", "conntrace list --columns +uid,thread"),
    from("ss -tln", "conntrace list --listening -n"),
    from("ss -s", "conntrace count --by state"),
    from("ss -tE", "conntrace -e DESTROY"),
    from("conntrack -E", "conntrace -E"),
    from("conntrack -E -e NEW -p tcp --dport 22", "conntrace -E -e NEW -p tcp --dport 22"),
    from("conntrack -E -o timestamp,id", "conntrace -E -o timestamp,id"),
    from("conntrack -E -o xml", "conntrace -E -o xml"),
    from("conntrack -L -p tcp", "conntrace -L -p tcp"),
    from("conntrack -C", "conntrace -C"),
    from("conntrack -S", "conntrace -S"),
    from("conntrackd -s", "conntrace stats --total"),
    from("conntrackd -i", "conntrace list"),
    from("tail -f conntrackd-stats.log", "conntrace -e DESTROY -o timestamp"),
    from("tcplife", "conntrace life"),
    from("tcplife -s", "conntrace life -o csv"),
    from("tcplife -D 80", "conntrace life --direction out --dport 80"),
    from("tcplife -L 80", "conntrace life --direction in --dport 80"),
    from("tcptracer", "conntrace -e NEW,DESTROY"),
    from("tcptracer -t", "conntrace -e NEW,DESTROY -o table"),
    from("tcpconnect -P 80", "conntrace -e NEW --direction out --dport 80"),
    from("tcpaccept", "conntrace -e NEW --direction in"),
    from("tcpconnlat", "conntrace -e UPDATES --direction out --columns pid,comm,dst,dport,handshake"),
    from("tcpstates", "conntrace --columns time,pid,comm,src,dst,old_state,state"),
];

/// As aligned text.
pub fn text() -> String {
    let width = MIGRATIONS.iter().map(|line| line.before.len()).max().unwrap_or_default();
    let mut out = format!("{:<width$}  now I type\n\n", "I used to type");
    for line in MIGRATIONS {
        // Writing into a string does not fail.
        _ = writeln!(out, "{:<width$}  {}", line.before, line.now);
    }
    out
}

/// As a page of the documentation.
pub fn markdown() -> String {
    let mut out = "# From other tools\n\nEach command on the right is run by a test. `conntrace help from` \
                   prints the same.\n\n| I used to type | now I type |\n| --- | --- |\n"
        .to_owned();
    for line in MIGRATIONS {
        // Writing into a string does not fail.
        _ = writeln!(out, "| `{}` | `{}` |", line.before.replace('|', "\\|"), line.now);
    }
    out
}
