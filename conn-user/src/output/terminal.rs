//! What standard output is: a terminal, how wide, and whether it gets colours.

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
