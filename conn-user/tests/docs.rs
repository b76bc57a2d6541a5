//! What is generated and committed: manuals, completions, the schema, pages of the documentation. The
//! test says what is not current; with `CONNTRACE_DOCS=write`, as `cargo xtask docs` has it, it is written.

#![expect(clippy::unwrap_used, reason = "test code: a panic is the failure report")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use conntrace::cli::topics::Topic;
use conntrace::command::help::{self, migration};
use conntrace::render::schema;

/// Directories in which nothing else is.
const OURS: [&str; 2] = ["man", "completions"];

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Every file, by its path under `docs`.
fn generated() -> BTreeMap<String, String> {
    let mut files = BTreeMap::from([
        ("columns.md".to_owned(), schema::markdown()),
        ("events.schema.json".to_owned(), schema::text()),
        ("from.md".to_owned(), migration::markdown()),
        ("completions/conntrace.bash".to_owned(), help::completions(Shell::Bash)),
        ("completions/_conntrace".to_owned(), help::completions(Shell::Zsh)),
        ("completions/conntrace.fish".to_owned(), help::completions(Shell::Fish)),
    ]);
    let mut all = help::definition();
    files.insert("man/conntrace.1".into(), page(&all, "conntrace", true));
    all.build();
    for command in all.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("conntrace-{}", command.get_name());
        files.insert(format!("man/{name}.1"), page(command, &name, false));
    }
    files
}

/// One page of the manual.
fn page(command: &Command, name: &str, is_main: bool) -> String {
    let mut out = Vec::new();
    let examples = command.get_before_help().map(ToString::to_string).unwrap_or_default();
    let command = command.clone().display_name(name.to_owned()).bin_name(name.replace('-', " "));
    let man = Man::new(command.disable_help_flag(true));
    man.render_title(&mut out).unwrap();
    man.render_name_section(&mut out).unwrap();
    man.render_synopsis_section(&mut out).unwrap();
    man.render_description_section(&mut out).unwrap();
    man.render_options_section(&mut out).unwrap();
    if is_main {
        man.render_subcommands_section(&mut out).unwrap();
    }
    let mut text = String::from_utf8(out).unwrap();
    if !examples.is_empty() {
        literal("EXAMPLES", examples.trim_start_matches("Examples:\n"), &mut text);
    }
    if is_main {
        for (title, topic) in [
            ("FILTERS", Topic::Filters),
            ("FORMATS", Topic::Formats),
            ("STATES", Topic::States),
            ("EXACTNESS", Topic::Exactness),
        ] {
            literal(title, &topic.text(), &mut text);
        }
        literal("EXIT STATUS", "0  a normal end, also by Ctrl-C\n1  an error\n2  wrong usage\n", &mut text);
    } else {
        text.push_str(".SH \"SEE ALSO\"\n\\fBconntrace\\fR(1)\n");
    }
    text.lines().flat_map(|line| [line.trim_end(), "\n"]).collect()
}

/// Text whose lines stay as they are.
fn literal(title: &str, text: &str, out: &mut String) {
    writeln!(out, ".SH \"{title}\"\n.nf").unwrap();
    for line in text.trim_end().lines() {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
        writeln!(out, "{guard}{line}").unwrap();
    }
    out.push_str(".fi\n");
}

#[test]
fn what_is_committed_is_current() {
    let write = env::var_os("CONNTRACE_DOCS").is_some_and(|word| word == "write");
    let generated = generated();
    let mut stale = Vec::new();
    for (path, text) in &generated {
        let file = docs().join(path);
        if fs::read_to_string(&file).ok().as_ref() == Some(text) {
            continue;
        }
        if write {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, text).unwrap();
        } else {
            stale.push(path.clone());
        }
    }
    for directory in OURS {
        for entry in fs::read_dir(docs().join(directory)).into_iter().flatten() {
            let name = format!("{directory}/{}", entry.unwrap().file_name().to_string_lossy());
            if generated.contains_key(&name) {
                continue;
            }
            if write {
                fs::remove_file(docs().join(&name)).unwrap();
            } else {
                stale.push(format!("{name} (nobody generates it)"));
            }
        }
    }
    assert!(stale.is_empty(), "run `cargo xtask docs` and commit: {stale:#?}");
}
