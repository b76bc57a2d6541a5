//! The protocols that a run shows: those of `-p`, or those for which the filter expression tests.

use crate::cli::migration;
use crate::complaint::{Complaint, as_typed, complaint};
use crate::error::UsageError;
use crate::filter::Filter;
use crate::filter::protocols::Protocols;
use crate::filter::value::list::{self, ValueList};
use crate::settings::optional;

/// How to write a protocol, for messages.
const HOW: &str = "write tcp, udp, unix, all, or a list like tcp,udp";

/// A command, and the protocols that it can show.
#[derive(Clone, Copy, Debug)]
pub(super) struct Command {
    name: &'static str,
    shows: Protocols,
}

impl Command {
    pub(super) const EVENTS: Self = Self { name: "events", shows: Protocols::INET };
    pub(super) const LIFE: Self = Self { name: "life", shows: Protocols::INET };
    pub(super) const LIST: Self = Self { name: "list", shows: Protocols::INET.union(Protocols::UNIX) };
    pub(super) const COUNT: Self = Self { name: "count", shows: Protocols::INET };
    pub(super) const STATS: Self = Self { name: "stats", shows: Protocols::INET };

    /// The remedy for a protocol that the command cannot show.
    fn refusal(self, wanted: Protocols) -> Complaint {
        let others = Self::LIST.shows.contains(wanted);
        let other = if others { format!(", or conntrace list -p {wanted}") } else { String::new() };
        complaint!("{} cannot show {wanted}: use -p {}{other}", self.name, self.shows)
    }
}

/// The protocols of a run of `command`, never none. `option` is the value of `-p`.
///
/// # Errors
/// The command cannot show one of them, or the expression excludes all that the option names.
pub(super) fn protocols(
    option: Option<&str>,
    filter: &Filter,
    command: Command,
) -> Result<Protocols, UsageError> {
    let typed = optional("--protocol", option, |text| parse(text, command))?;
    // An expression that excludes each protocol gets a warning like other contradictions.
    let Some(asked) = filter.protocols().filter(|asked| !asked.is_empty()) else {
        return Ok(typed.unwrap_or(Protocols::TCP));
    };
    match typed {
        Some(typed) if typed.intersects(asked) => Ok(typed.intersection(asked)),
        Some(typed) => Err(UsageError::conflict(
            "--protocol",
            complaint!("the expression lets only {asked} pass, and -p only {typed}"),
        )),
        None if asked.intersects(command.shows) => Ok(asked.intersection(command.shows)),
        None => Err(UsageError::Field(command.refusal(asked))),
    }
}

fn parse(text: &str, command: Command) -> Result<Protocols, Complaint> {
    let ValueList { wanted, unwanted } =
        list::parse(text, "a protocol", HOW, |item| one(item, command)).map_err(|error| error.complaint)?;
    let union = |sets: Vec<Protocols>| sets.into_iter().reduce(Protocols::union);
    let all = Protocols::INET.intersection(command.shows);
    let rest = union(wanted).unwrap_or(all).without(union(unwanted).unwrap_or(Protocols::NONE));
    if rest.is_empty() {
        return Err(complaint!("{} leaves no protocol: {HOW}", as_typed(text)));
    }
    if rest.contains(Protocols::UNIX) && rest != Protocols::UNIX {
        return Err("Unix domain sockets have columns of their own: use -p unix alone".into());
    }
    Ok(rest)
}

fn one(item: &str, command: Command) -> Result<Protocols, Complaint> {
    if item.eq_ignore_ascii_case("all") {
        return Ok(Protocols::INET.intersection(command.shows));
    }
    let Some(protocol) = Protocols::from_word(item) else {
        // bcc's tools take a process there.
        let hint = migration::hint('p', "-p").filter(|_| item.parse::<u32>().is_ok());
        let hint = hint.map(|hint| format!(". {hint}")).unwrap_or_default();
        return Err(complaint!("unknown protocol {}: {HOW}{hint}", as_typed(item)));
    };
    if command.shows.contains(protocol) { Ok(protocol) } else { Err(command.refusal(protocol)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::expression;
    use crate::host::lookup::fixed::FixedLookup;

    const SHOWS_INET: Command = Command { name: "watch", shows: Protocols::INET };

    fn chosen(option: &str, expression: &str, command: Command) -> Result<String, String> {
        let parse = |text: &str| expression::parse(text, &FixedLookup::default()).unwrap();
        let filter = Filter::new(Some(expression).filter(|text| !text.is_empty()).map(parse));
        let option = Some(option).filter(|option| !option.is_empty());
        protocols(option, &filter, command).map(|set| set.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn option_and_expression_choose_protocols() {
        for (option, expression, expected) in [
            ("", "", "tcp"),
            ("6", "", "tcp"),
            ("17", "", "udp"),
            ("udp, TCP", "", "tcp,udp"),
            ("all", "", "tcp,udp"),
            ("!tcp", "", "udp"),
            ("all,!17", "", "tcp"),
            ("", "proto udp", "udp"),
            ("", "not proto udp", "tcp"),
            ("", "protocol != 6", "udp"),
            ("", "proto udp,tcp", "tcp,udp"),
            ("", "proto udp and service = 53 or proto tcp and service = 22", "tcp,udp"),
            ("", "proto udp or service = 22", "tcp,udp"),
            ("all", "proto udp", "udp"),
            // The filter itself warns of this contradiction.
            ("", "proto udp proto tcp", "tcp"),
        ] {
            assert_eq!(
                chosen(option, expression, SHOWS_INET).as_deref(),
                Ok(expected),
                "{option} {expression}"
            );
        }
        let only_tcp = Command { name: "watch", shows: Protocols::TCP };
        assert_eq!(chosen("all", "", only_tcp).as_deref(), Ok("tcp"));
        assert_eq!(chosen("", "proto udp or service = 22", only_tcp).as_deref(), Ok("tcp"));
    }

    #[test]
    fn errors_name_the_remedy() {
        let only_tcp = Command { name: "watch", shows: Protocols::TCP };
        let errors = [
            chosen("udp", "", only_tcp),
            chosen("", "not proto tcp", only_tcp),
            chosen("icmp", "", SHOWS_INET),
            chosen("181", "", SHOWS_INET),
            chosen("unix", "", SHOWS_INET),
            chosen("tcp,", "", SHOWS_INET),
            chosen("!all", "", SHOWS_INET),
            chosen("tcp", "proto udp", SHOWS_INET),
            chosen("tcp,unix", "", Command::LIST),
        ]
        .map(|chosen| chosen.unwrap_err());
        insta::assert_snapshot!(errors.join("\n"), @r#"
        --protocol: watch cannot show udp: use -p tcp, or conntrace list -p udp
        filter: watch cannot show udp: use -p tcp, or conntrace list -p udp
        --protocol: unknown protocol "icmp": write tcp, udp, unix, all, or a list like tcp,udp
        --protocol: unknown protocol "181": write tcp, udp, unix, all, or a list like tcp,udp. tcplife -p 181 is here: conntrace life --pid 181; tcpconnect -p 181 is here: conntrace -e NEW --direction out --pid 181
        --protocol: watch cannot show unix: use -p tcp,udp, or conntrace list -p unix
        --protocol: a protocol is missing beside a comma in "tcp,": write tcp, udp, unix, all, or a list like tcp,udp
        --protocol: "!all" leaves no protocol: write tcp, udp, unix, all, or a list like tcp,udp
        --protocol: the expression lets only udp pass, and -p only tcp
        --protocol: Unix domain sockets have columns of their own: use -p unix alone
        "#);
    }
}
