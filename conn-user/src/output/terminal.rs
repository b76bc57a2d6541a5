//! What standard output and standard error are: a terminal, how wide, and whether it gets colours.

#![expect(clippy::disallowed_methods, reason = "the terminal behind standard output is looked at")]

use std::env;
use std::io::{self, IsTerminal as _};

use crate::render::style::{Color, Terminal};

/// True if people read standard error.
pub fn is_stderr() -> bool {
    io::stderr().is_terminal()
}

/// The environment variable in which the daemon describes the terminal of a client: `WIDTH[,utf8][,color]`.
pub const VARIABLE: &str = "CONNTRACE_TERMINAL";

/// Standard output of this process, or of the client that it works for.
pub fn probe(color: Color) -> Terminal {
    if let Some(terminal) = env::var(VARIABLE).ok().and_then(|text| described(&text, color)) {
        return terminal;
    }
    let is_terminal = io::stdout().is_terminal();
    Terminal {
        width: terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0)),
        is_terminal,
        color: match color {
            Color::Auto => is_terminal && has_colors(|name| env::var(name).ok()),
            Color::Always => true,
            Color::Never => false,
        },
        utf8: is_utf8(|name| env::var(name).ok()),
    }
}

/// The terminal of a client.
pub(crate) fn described(text: &str, color: Color) -> Option<Terminal> {
    let mut words = text.split(',');
    let width = words.next()?.parse().ok()?;
    let words: Vec<&str> = words.collect();
    Some(Terminal {
        width: Some(width),
        is_terminal: true,
        color: color == Color::Always || color == Color::Auto && words.contains(&"color"),
        utf8: words.contains(&"utf8"),
    })
}

/// True unless `NO_COLOR` has a value, or `TERM` names a terminal without escapes.
fn has_colors(variable: impl Fn(&str) -> Option<String>) -> bool {
    let has_value = |name| variable(name).is_some_and(|value| !value.is_empty());
    !has_value("NO_COLOR") && variable("TERM").as_deref() != Some("dumb")
}

/// True if the locale's encoding is UTF-8: by the first of these variables that has a value, as in `setlocale(3)`.
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .find_map(|name| variable(name).filter(|value| !value.is_empty()));
    locale.is_some_and(|locale| {
        let encoding = locale.split_once('.').map_or("", |(_, encoding)| encoding).to_ascii_lowercase();
        encoding.starts_with("utf-8") || encoding.starts_with("utf8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + use<'a> {
        move |name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
    }

    #[test]
    fn a_terminal_of_a_client_is_described() {
        let terminal = described("120,utf8,color", Color::Auto).unwrap();
        assert_eq!(
            (terminal.width, terminal.is_terminal, terminal.color, terminal.utf8),
            (Some(120), true, true, true)
        );
        assert!(
            !described("80,color", Color::Never).unwrap().color && described("wide", Color::Auto).is_none()
        );
    }

    #[test]
    fn dumb_terminals_have_no_colors() {
        assert!(has_colors(with(&[("TERM", "xterm-256color"), ("NO_COLOR", "")])) && has_colors(with(&[])));
        assert!(!has_colors(with(&[("TERM", "dumb")])) && !has_colors(with(&[("NO_COLOR", "1")])));
    }

    #[test]
    fn encoding_is_that_of_the_locale() {
        for (set, expected) in [
            (&[][..], false),
            (&[("LANG", "en_US.UTF-8")], true),
            (&[("LANG", "C.utf8")], true),
            (&[("LANG", "de_DE.UTF-8@euro")], true),
            (&[("LANG", "en_US.UTF-8"), ("LC_ALL", "C")], false),
            (&[("LANG", "C"), ("LC_CTYPE", "C.UTF-8")], true),
            (&[("LANG", "en_US.UTF-8"), ("LC_ALL", "")], true),
            (&[("LANG", "de_DE.ISO-8859-1")], false),
        ] {
            assert_eq!(is_utf8(with(set)), expected, "{set:?}");
        }
    }
}
