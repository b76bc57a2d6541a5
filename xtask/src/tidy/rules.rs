//! Rules that one file breaks or keeps, whatever the others contain.

use std::path::Path;

use super::{File, Finding};

/// One rule. `breaks` gives the numbers of the lines that break it.
struct Rule {
    says: &'static str,
    /// Whether to fail, or only to mention it.
    fails: bool,
    covers: fn(&str) -> bool,
    breaks: fn(&str) -> Vec<usize>,
}

const RULES: [Rule; 9] = [
    Rule {
        says: "every member takes the workspace's lints: `[lints]` and `workspace = true`",
        fails: true,
        covers: |path| path.ends_with("/Cargo.toml"),
        breaks: |text| if has_workspace_lints(text) { vec![] } else { vec![1] },
    },
    Rule {
        says: "conn-common depends on nothing (tests may)",
        fails: true,
        covers: |path| path == "conn-common/Cargo.toml",
        breaks: dependencies,
    },
    Rule {
        says: "a source file over 400 lines is about more than one thing",
        fails: false,
        covers: is_rust,
        breaks: |text| over(400, text),
    },
    Rule {
        says: "no source file is over 450 lines",
        fails: true,
        covers: is_rust,
        breaks: |text| over(450, text),
    },
    Rule {
        says: "kernel maps are declared in maps.rs",
        fails: true,
        // What is only measured beside conntrace has its own.
        covers: |path| {
            path.starts_with("conn-ebpf/src/")
                && !path.starts_with("conn-ebpf/src/bin/")
                && !path.ends_with("/maps.rs")
        },
        breaks: |text| lines_with(&["#[btf_map", "#[map"], text),
    },
    Rule {
        says: "only emit.rs touches the ring",
        fails: true,
        // maps.rs declares it.
        covers: |path| {
            path.starts_with("conn-ebpf/src/")
                && !["conn-ebpf/src/emit.rs", "conn-ebpf/src/maps.rs"].contains(&path)
        },
        breaks: |text| lines_with(&["EVENTS"], text),
    },
    Rule {
        says: "no white space ends a line",
        fails: true,
        covers: |path| {
            [".rs", ".toml", ".md", ".yml", ".sh", ".ci/run"].iter().any(|end| path.ends_with(end))
        },
        breaks: |text| numbers(text, |line| line.ends_with([' ', '\t', '\r'])),
    },
    Rule {
        says: "no line of a document is over 130 characters, outside of tables and code",
        fails: true,
        covers: is_document,
        breaks: long_prose,
    },
    Rule {
        says: "output in a document is a sample that a test makes: `<!-- sample: NAME -->` above the block",
        fails: true,
        covers: is_document,
        breaks: |text| {
            let lines: Vec<&str> = text.lines().collect();
            let is_bare = |at: usize| at == 0 || !lines[at - 1].starts_with("<!-- sample: ");
            (0..lines.len())
                .filter(|at| lines[*at] == "```console" && is_bare(*at))
                .map(|at| at + 1)
                .collect()
        },
    },
];

/// Holds every rule against every file.
pub(super) fn check(files: &[File]) -> Vec<Finding> {
    let mut found = Vec::new();
    for File { path, text } in files {
        for rule in RULES.iter().filter(|rule| (rule.covers)(path)) {
            found.extend((rule.breaks)(text).into_iter().map(|line| Finding {
                path: path.clone(),
                line,
                says: rule.says.to_owned(),
                fails: rule.fails,
            }));
        }
    }
    found
}

/// Whether a rule reads this file.
pub(super) fn covers(path: &str) -> bool {
    RULES.iter().any(|rule| (rule.covers)(path))
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|end| end == "rs")
}

fn is_document(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|end| end == "md")
}

/// The numbers of the lines for which `found` holds.
fn numbers(text: &str, mut found: impl FnMut(&str) -> bool) -> Vec<usize> {
    text.split('\n').enumerate().filter(|(_, line)| found(line)).map(|(index, _)| index + 1).collect()
}

/// Lines, except comments, that contain one of the words and not as the end of a longer one.
fn lines_with(words: &[&str], text: &str) -> Vec<usize> {
    let inside = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let holds = |line: &str, word: &str| {
        let starts_a_word = word.starts_with(|c: char| c.is_alphabetic());
        line.match_indices(word).any(|(at, _)| !(starts_a_word && inside(&line[..at])))
    };
    numbers(text, |line| !line.trim_start().starts_with("//") && words.iter().any(|word| holds(line, word)))
}

/// Lines of prose that are too long.
fn long_prose(text: &str) -> Vec<usize> {
    let mut is_code = false;
    numbers(text, |line| {
        is_code ^= line.starts_with("```");
        !is_code && !line.trim_start().starts_with('|') && line.chars().count() > 130
    })
}

/// The first line too many.
fn over(limit: usize, text: &str) -> Vec<usize> {
    if text.lines().count() > limit { vec![limit + 1] } else { vec![] }
}

fn has_workspace_lints(manifest: &str) -> bool {
    section_lines(manifest)
        .any(|(section, _, line)| section == "lints" && line.replace(' ', "") == "workspace=true")
}

/// Lines that name a dependency, except those of tests alone.
fn dependencies(manifest: &str) -> Vec<usize> {
    let names_one = |section: &str| {
        let ends = |part: &str| part == "dependencies" || part == "build-dependencies";
        section.split('.').any(ends)
    };
    let depends = section_lines(manifest).filter(|(section, ..)| names_one(section));
    depends.map(|(_, number, _)| number).collect()
}

/// `(section, number, line)` of each line of a manifest that is neither empty, nor a comment, nor a header.
fn section_lines(manifest: &str) -> impl Iterator<Item = (&str, usize, &str)> {
    let mut section = "";
    manifest.lines().enumerate().filter_map(move |(index, line)| {
        let line = line.trim();
        if line.starts_with('[') {
            section = line.trim_matches(['[', ']']);
            return None;
        }
        (!line.is_empty() && !line.starts_with('#')).then_some((section, index + 1, line))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `text` that break the rule which says this, if it covers the path.
    fn broken(says: &str, path: &str, text: &str) -> Option<Vec<usize>> {
        let rule = RULES.iter().find(|rule| rule.says.contains(says)).expect("such a rule");
        (rule.covers)(path).then(|| (rule.breaks)(text))
    }

    #[test]
    fn a_member_without_the_lints_fails() {
        let lints = |path, text| broken("workspace's lints", path, text);
        assert_eq!(lints("xtask/Cargo.toml", "[package]\n\n[lints]\nworkspace = true\n"), Some(vec![]));
        assert_eq!(lints("xtask/Cargo.toml", "[lints]\n# workspace = true\n"), Some(vec![1]));
        assert_eq!(lints("xtask/Cargo.toml", "[package]\nworkspace = true\n[lints]\n"), Some(vec![1]));
        assert_eq!(lints("Cargo.toml", ""), None);
    }

    #[test]
    fn a_dependency_of_the_common_crate_fails() {
        let depends = |text| broken("depends on nothing", "conn-common/Cargo.toml", text);
        let free =
            "[package]\nname = \"x\"\n[dependencies]\n# none\n\n[dev-dependencies]\nproptest = \"1\"\n";
        assert_eq!(depends(free), Some(vec![]));
        assert_eq!(depends("[dependencies]\nlibc = \"0.2\"\n"), Some(vec![2]));
        assert_eq!(depends("[build-dependencies]\ncc = \"1\"\n"), Some(vec![2]));
        assert_eq!(depends("[target.'cfg(unix)'.dependencies]\nlibc = \"0.2\"\n"), Some(vec![2]));
        assert_eq!(depends("[dependencies.libc]\nversion = \"0.2\"\n"), Some(vec![2]));
        assert_eq!(broken("depends on nothing", "conn-user/Cargo.toml", "[dependencies]\na = 1"), None);
    }

    #[test]
    fn a_long_file_fails() {
        assert_eq!(broken("over 400", "xtask/src/a.rs", &"\n".repeat(400)), Some(vec![]));
        assert_eq!(broken("over 400", "xtask/src/a.rs", &"\n".repeat(401)), Some(vec![401]));
        assert_eq!(broken("over 450", "xtask/src/a.rs", &"\n".repeat(450)), Some(vec![]));
        assert_eq!(broken("over 450", "xtask/src/a.rs", &"\n".repeat(451)), Some(vec![451]));
        assert_eq!(broken("over 450", "docs/a.md", &"\n".repeat(999)), None);
    }

    #[test]
    fn maps_are_declared_in_one_file() {
        let maps = |path, text| broken("maps are declared", path, text);
        assert_eq!(maps("conn-ebpf/src/owner.rs", "use x;\n#[map]\nstatic A"), Some(vec![2]));
        assert_eq!(maps("conn-ebpf/src/main.rs", "#[btf_map(name = \"X\")]"), Some(vec![1]));
        assert_eq!(maps("conn-ebpf/src/main.rs", "// #[map] is for maps.rs\n.map(|x| x)"), Some(vec![]));
        assert_eq!(maps("conn-ebpf/src/maps.rs", "#[map]"), None);
        assert_eq!(maps("conn-ebpf/src/bin/empty.rs", "#[map]"), None);
    }

    #[test]
    fn the_ring_has_one_writer() {
        let ring = |path, text| broken("touches the ring", path, text);
        assert_eq!(
            ring("conn-ebpf/src/filter.rs", "use crate::maps::EVENTS;\nEVENTS.reserve(0)"),
            Some(vec![1, 2])
        );
        assert_eq!(ring("conn-ebpf/src/storage/pending_owner.rs", "TABLE.reserve(first)"), Some(vec![]));
        assert_eq!(ring("conn-ebpf/src/emit.rs", "EVENTS.reserve(0)"), None);
        assert_eq!(ring("conn-user/src/stream/ring.rs", "name::EVENTS"), None);
    }

    #[test]
    fn long_prose_of_a_document_fails() {
        let long = |text: &str| broken("over 130", "docs/a.md", text);
        let line = "x".repeat(131);
        assert_eq!(long(&format!("a\n{line}\n| {line}\n```text\n{line}\n```\n{line}\n")), Some(vec![2, 7]));
        assert_eq!(broken("over 130", "xtask/src/a.rs", &line), None);
    }

    #[test]
    fn output_without_a_maker_fails() {
        let bare = |text| broken("a sample that a test makes", "README.md", text);
        assert_eq!(bare("<!-- sample: a -->\n```console\n$ b\n```\n"), Some(vec![]));
        assert_eq!(bare("```sh\nb\n```\n\n```console\n$ b\n```\n"), Some(vec![5]));
    }

    #[test]
    fn trailing_white_space_fails() {
        let ends = |path, text| broken("white space", path, text);
        assert_eq!(ends("README.md", "a\nb \n\n\tc\t\nd\r\n"), Some(vec![2, 4, 5]));
        assert_eq!(ends(".ci/run", "a \n"), Some(vec![1]));
        assert_eq!(ends("Cargo.lock", "a \n"), None);
    }
}
