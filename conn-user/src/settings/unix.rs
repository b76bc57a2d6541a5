//! What `list -p unix` does not know: a Unix domain socket has no addresses, no ports and no counters.

use crate::cli::ListArgs;
use crate::complaint::complaint;
use crate::error::UsageError;
use crate::filter::Filter;
use crate::filter::expression::Field;

/// Checks the options and the filter of a list of Unix domain sockets.
///
/// # Errors
/// The first option or field that such a socket has no value for.
pub(super) fn check(args: &ListArgs, filter: &Filter) -> Result<(), UsageError> {
    const OF_WORKLOADS: &str =
        "a list of Unix domain sockets does not look up containers and units: use --cgroup, --comm or --pid";
    let options = [
        ("--min-age", args.min_age.is_some(), "the kernel keeps no age of a Unix domain socket"),
        ("--sort", args.sort.is_some(), "a list of Unix domain sockets is in the order of the addresses"),
        (
            "--columns",
            args.output.columns.is_some(),
            "Unix domain sockets have columns of their own: -o csv and -o json have all of them",
        ),
        ("--resolve", args.output.resolve, "the address of a Unix domain socket is a path"),
        ("--container", !args.filter.container.is_empty(), OF_WORKLOADS),
        ("--unit", !args.filter.unit.is_empty(), OF_WORKLOADS),
        ("--user-unit", !args.filter.user_unit.is_empty(), OF_WORKLOADS),
    ];
    if let Some((option, _, why)) = options.into_iter().find(|&(_, is_given, _)| is_given) {
        return Err(UsageError::conflict(option, why));
    }
    let is_known = |field: &Field| matches!(field, Field::State | Field::Netns) || field.is_owners();
    if let Some(field) = filter.fields().find(|field| !is_known(field)) {
        return Err(UsageError::Field(complaint!(
            "a Unix domain socket has no {}: use state, netns, pid, uid, comm or cgroup",
            field.word()
        )));
    }
    if filter.has_predicate() {
        return Err(UsageError::Field("-p unix takes state, netns, pid, uid, comm and cgroup only".into()));
    }
    let formats = args.output.output.iter().flat_map(|text| text.split(','));
    for word in formats.map(str::trim) {
        if !["table", "json", "csv"].iter().any(|known| known.eq_ignore_ascii_case(word)) {
            return Err(UsageError::value(
                "--output",
                word,
                "Unix domain sockets have no such format: use table, json or csv",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::Cli;
    use crate::filter::protocols::Protocols;
    use crate::host::lookup::fixed::FixedLookup;
    use crate::settings::Settings;

    #[test]
    fn unknown_options_and_fields_are_refused() {
        let of = |words: &str| {
            let args = ["conntrace", "list", "-p", "unix"].into_iter().chain(words.split_whitespace());
            match Settings::from_cli(&Cli::try_parse_from(args).unwrap(), &FixedLookup::default()) {
                Ok(Settings::List(settings)) => {
                    assert_eq!(settings.protocols, Protocols::UNIX);
                    "fine".to_owned()
                }
                Ok(other) => panic!("{other:?}"),
                Err(error) => error.to_string(),
            }
        };
        for words in ["", "-l -o json", "--pid 1 --state all", "uid = 0 or comm = x", "--netns blue -o csv"] {
            assert_eq!(of(words), "fine", "{words}");
        }
        let refused = [
            "--min-age 1s",
            "--sort bytes",
            "--columns pid",
            "--resolve",
            "--container web",
            "--unit nginx",
            "--user-unit x",
            "--dport 22",
            "--src 192.0.2.7",
            "-f ipv4",
            "--direction in",
            "dev = eth0",
            "bytes > 1M",
            "unit = nginx",
            "-o xml",
            "-o json,id",
            "proto udp",
        ];
        insta::assert_snapshot!(refused.map(of).join("\n"), @"
        --min-age: the kernel keeps no age of a Unix domain socket
        --sort: a list of Unix domain sockets is in the order of the addresses
        --columns: Unix domain sockets have columns of their own: -o csv and -o json have all of them
        --resolve: the address of a Unix domain socket is a path
        --container: a list of Unix domain sockets does not look up containers and units: use --cgroup, --comm or --pid
        --unit: a list of Unix domain sockets does not look up containers and units: use --cgroup, --comm or --pid
        --user-unit: a list of Unix domain sockets does not look up containers and units: use --cgroup, --comm or --pid
        filter: a Unix domain socket has no service: use state, netns, pid, uid, comm or cgroup
        filter: a Unix domain socket has no client: use state, netns, pid, uid, comm or cgroup
        filter: a Unix domain socket has no family: use state, netns, pid, uid, comm or cgroup
        filter: a Unix domain socket has no direction: use state, netns, pid, uid, comm or cgroup
        filter: -p unix takes state, netns, pid, uid, comm and cgroup only
        filter: a Unix domain socket has no bytes: use state, netns, pid, uid, comm or cgroup
        filter: -p unix takes state, netns, pid, uid, comm and cgroup only
        --output: Unix domain sockets have no such format: use table, json or csv
        --output: Unix domain sockets have no such format: use table, json or csv
        --protocol: the expression lets only udp pass, and -p only unix
        ");
    }
}
