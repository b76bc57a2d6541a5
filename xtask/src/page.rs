//! Pages of the documentation with measured parts.

use std::env;
use std::fs;

use anyhow::{Context as _, Result};

use crate::command;

/// Replaces the part of a page between the lines `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
pub(crate) fn replace(page: &str, name: &str, part: &str) -> Result<()> {
    let path = command::workspace().join(page);
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {page}"))?;
    let text = replaced(&text, name, part).with_context(|| format!("{page} has no part {name:?}"))?;
    fs::write(&path, text).with_context(|| format!("cannot write {page}"))
}

fn replaced(text: &str, name: &str, part: &str) -> Option<String> {
    let [begin, end] = ["begin", "end"].map(|word| format!("<!-- {name}: {word} -->\n"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some([before, &begin, part, &end, after].concat())
}

/// The host of a measurement: kernel, architecture and processors.
pub(crate) fn host() -> Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = std::thread::available_parallelism()?;
    let version = kernel.trim().split('-').next().unwrap_or_default();
    Ok(format!("Linux {version} on {}, {cpus} CPUs", env::consts::ARCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_part_is_replaced() {
        let text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n<!-- y: begin -->\n<!-- y: end -->\n";
        let new = replaced(text, "x", "new\n");
        let expected = "a\n<!-- x: begin -->\nnew\n<!-- x: end -->\nb\n<!-- y: begin -->\n<!-- y: end -->\n";
        assert_eq!(new.as_deref(), Some(expected));
        assert_eq!(replaced(text, "z", "new\n"), None);
    }
}
