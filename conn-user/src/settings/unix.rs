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
    let options = [
        ("--min-age", args.min_age.is_some()),
        ("--sort", args.sort.is_some()),
        ("--columns", args.output.columns.is_some()),
        ("--resolve", args.output.resolve),
        ("--container", !args.filter.container.is_empty()),
        ("--unit", !args.filter.unit.is_empty()),
        ("--user-unit", !args.filter.user_unit.is_empty()),
    ];
    if let Some((option, _)) = options.into_iter().find(|&(_, is_given)| is_given) {
        return Err(UsageError::conflict(option, "it cannot be used with -p unix"));
    }
    let is_known = |field: &Field| matches!(field, Field::State | Field::Netns) || field.is_owners();
    if let Some(field) = filter.fields().find(|field| !is_known(field)) {
        return Err(UsageError::Field(complaint!(
            "a unix socket has no {}: use state, netns, pid, uid, comm or cgroup",
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
                "unix sockets have no line of conntrack: use table, json or csv",
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
        let refused = ["--sort bytes", "--unit nginx", "--dport 22", "dev = eth0", "-o xml", "proto udp"];
        insta::assert_snapshot!(refused.map(of).join("\n"), @"
        --sort: it cannot be used with -p unix
        --unit: it cannot be used with -p unix
        filter: a unix socket has no service: use state, netns, pid, uid, comm or cgroup
        filter: -p unix takes state, netns, pid, uid, comm and cgroup only
        --output: unix sockets have no line of conntrack: use table, json or csv
        --protocol: the expression lets only udp pass, and -p only unix
        ");
    }
}
