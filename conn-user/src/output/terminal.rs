//! What standard output is: a terminal, how wide, and whether it gets colours.

#![expect(clippy::disallowed_methods, reason = "the terminal behind standard output is looked at")]

use std::io::{self, IsTerminal as _};

use crate::render::style::{Color, Terminal};

/// Standard output of this process.
pub fn probe(color: Color) -> Terminal {
    let is_terminal = io::stdout().is_terminal();
    let is_disabled = || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    Terminal {
        width: terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0)),
        color: match color {
            Color::Auto => is_terminal && !is_disabled(),
            Color::Always => true,
            Color::Never => false,
        },
    }
}
