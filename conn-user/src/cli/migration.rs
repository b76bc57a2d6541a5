//! Commands of other tools, and the commands of conntrace for the same purpose: for `help from`, and for hints beside an
//! option that conntrace refuses.

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
    from("netstat -tan", "conntrace list -o table -n --state all"),
    from("netstat -tulpn", "conntrace list --listening -n -p tcp,udp"),
    from("netstat -xap", "conntrace list -p unix --state all"),
    from("netstat -tnc", "conntrace"),
    from("netstat -tn | grep -c :443", "conntrace count --dport 443"),
    from("ss -t", "conntrace list -o table"),
    from("ss -tn", "conntrace list -o table -n"),
    from("ss -tn dport = :ssh", "conntrace list -o table -n dport = :ssh"),
    from("ss -ta", "conntrace list -o table --state all"),
    from("ss -t4", "conntrace list -o table -f ipv4"),
    from("ss -t6", "conntrace list -o table -f ipv6"),
    from("ss -tH", "conntrace list -o table --no-header"),
    from("ss -ti", "conntrace list -o table --columns +srtt_us,retransmits"),
    from("ss -tnp", "conntrace list --columns +uid,thread"),
    from("ss -tln", "conntrace list --listening -n"),
    from("ss -tulpn", "conntrace list --listening -n -p tcp,udp"),
    from("ss -ua", "conntrace list -p udp --state all -o table"),
    from("ss -xa", "conntrace list -p unix --state all"),
    from("ss -xlp", "conntrace list -p unix --listening"),
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
    from("tcplife -T", "conntrace life"),
    from("tcplife -p 181", "conntrace life --pid 181"),
    from("tcplife -D 80", "conntrace life --direction out --dport 80"),
    from("tcplife -L 80", "conntrace life --direction in --dport 80"),
    from("tcptracer", "conntrace -e NEW,DESTROY"),
    from("tcptracer -t", "conntrace -e NEW,DESTROY -o table"),
    from("tcpconnect -P 80", "conntrace -e NEW --direction out --dport 80"),
    from("tcpconnect -p 181", "conntrace -e NEW --direction out --pid 181"),
    from("tcpaccept", "conntrace -e NEW --direction in"),
    from("tcpaccept -P 80", "conntrace -e NEW --direction in --dport 80"),
    from("tcpconnlat", "conntrace -e UPDATES --direction out --columns pid,comm,dst,dport,handshake"),
    from("tcpstates", "conntrace --columns time,pid,comm,src,dst,old_state,state"),
];

/// Tools whose options conntrace takes with the same meaning, or refuses by name. They need no hint.
const CONNTRACKS: [&str; 3] = ["conntrack", "conntrackd", "tail"];
/// How many tools a hint names.
const MAX_TOOLS: usize = 3;

/// The commands for what a short option means to other tools. `cluster` is the word in which the option was typed:
/// `-tulpn`. `None` if no command in the table has the option.
pub(crate) fn hint(option: char, cluster: &str) -> Option<String> {
    let typed: Vec<char> = cluster.chars().filter(|&c| c != '-').collect();
    let mut best: Vec<(&str, usize, &Migration)> = Vec::new();
    for line in MIGRATIONS {
        let mut words = line.before.split(' ');
        let tool = words.next().unwrap_or_default();
        let Some(own) = words.filter_map(|word| word.strip_prefix('-')).find(|own| own.contains(option))
        else {
            continue;
        };
        if CONNTRACKS.contains(&tool) || line.before.contains('|') {
            continue;
        }
        // The letters that only one of both has.
        let differences = own.chars().filter(|c| !typed.contains(c)).count()
            + typed.iter().filter(|&&c| !own.contains(c)).count();
        match best.iter_mut().find(|(known, ..)| *known == tool) {
            Some(known) if known.1 <= differences => {}
            Some(known) => *known = (tool, differences, line),
            None => best.push((tool, differences, line)),
        }
    }
    // A form for exactly what was typed makes others needless.
    if best.iter().any(|&(_, differences, _)| differences == 0) {
        best.retain(|&(_, differences, _)| differences == 0);
    }
    let hints: Vec<String> = best
        .iter()
        .take(MAX_TOOLS)
        .map(|(_, _, line)| format!("{} is here: {}", line.before, line.now))
        .collect();
    (!hints.is_empty()).then(|| hints.join("; "))
}

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
