//! Families before hosts and ports, as in ss: `inet6:*`, `inet::22`.

use std::collections::BTreeSet;

use crate::complaint::{Complaint, complaint};
use crate::filter::expression::lexer::{Token, TokenKind};
use crate::filter::expression::{Expression, Field};
use crate::filter::value::ranges::Ranges;

/// The families of TCP, by word and by the number of [`Field::Family`].
const FAMILIES: [(&str, u128); 2] = [("inet6:", 6), ("inet:", 4)];
/// Families of ss whose sockets filters do not have, and the commands that show these.
const OTHERS: [(&str, &str); 4] = [
    ("unix:", "conntrace list -p unix"),
    ("link:", "ss -0"),
    ("netlink:", "ss -f netlink"),
    ("vsock:", "ss --vsock"),
];

/// The family before a host or a port, if any, and the rest.
///
/// # Errors
/// The family is not one of TCP.
pub(super) fn split(item: &str) -> Result<(Option<Expression>, &str), Complaint> {
    for (word, number) in FAMILIES {
        if let Some(rest) = item.strip_prefix(word) {
            return Ok((Some(test(number)), rest));
        }
    }
    match OTHERS.iter().find(|(word, _)| item.starts_with(word)) {
        Some((word, tool)) => {
            Err(complaint!("{word} is a family of sockets that filters do not have: use {tool}"))
        }
        None => Ok((None, item)),
    }
}

/// The family of the whole expression. A family before one host or port holds for all of the expression, as in ss. `None`
/// if there is none, and if there are both: ss takes the last one then, against its manual.
pub(super) fn of_all(tokens: &[Token]) -> Option<Expression> {
    let mut found = BTreeSet::new();
    let mut is_host = false;
    for token in tokens {
        match &token.kind {
            TokenKind::Compare(_) => {}
            TokenKind::Word(items) if is_host => {
                let items = items.split(',').map(|item| item.trim_start_matches('!'));
                let families = items.filter_map(|item| {
                    FAMILIES.iter().find(|(word, _)| item.starts_with(word)).map(|(_, number)| *number)
                });
                found.extend(families);
                is_host = false;
            }
            TokenKind::Word(word) => {
                let field = Field::by_word(&word.to_ascii_lowercase());
                is_host = field.is_some_and(|field| field.is_address() || field.is_port());
            }
            _ => is_host = false,
        }
    }
    if found.len() == 1 { found.pop_first().map(test) } else { None }
}

fn test(family: u128) -> Expression {
    Expression::test(Field::Family, Ranges::one(family))
}

#[cfg(test)]
mod tests {
    use crate::filter::expression::parser::parse;
    use crate::host::lookup::fixed::FixedLookup;

    fn simplified(text: &str) -> String {
        let expression =
            parse(text, &FixedLookup::default()).unwrap_or_else(|error| panic!("{}", error.show(text)));
        expression.simplified().to_string()
    }

    #[test]
    fn a_family_holds_for_the_whole_expression() {
        for (text, expected) in [
            ("sport = inet::22", "family = ipv4 and sport = 22"),
            ("sport > inet6::22", "family = ipv6 and sport = 23-65535"),
            (
                "dport = 22 or sport = inet6:80",
                "family = ipv6 and (dport = 22 or family = ipv6 and sport = 80)",
            ),
            ("not src inet:*", "family != *"),
            ("comm = inet6:x sport = 22", "comm = inet6:x and sport = 22"),
        ] {
            assert_eq!(simplified(text), expected, "{text}");
        }
        // The manual allows both, each for its own test.
        assert_eq!(
            simplified("sport inet::22 or sport inet6::80"),
            "family = ipv4 and sport = 22 or family = ipv6 and sport = 80"
        );
    }

    #[test]
    fn other_families_are_refused_with_a_remedy() {
        let errors = ["src unix:/run/x", "dst link:ip", "src netlink:kernel", "sport vsock:3"]
            .map(|text| parse(text, &FixedLookup::default()).unwrap_err().complaint.to_string());
        insta::assert_snapshot!(errors.join("\n"), @"
        unix: is a family of sockets that filters do not have: use conntrace list -p unix
        link: is a family of sockets that filters do not have: use ss -0
        netlink: is a family of sockets that filters do not have: use ss -f netlink
        vsock: is a family of sockets that filters do not have: use ss --vsock
        ");
    }
}
