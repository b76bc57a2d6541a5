//! What is generated and committed: manuals, completions, the schema, pages of the documentation. The
//! test says what is not current; with `CONNTRACE_DOCS=write`, as `cargo xtask docs` has it, it is written.
//! Commands, options and words that the pages name are tried.

#![expect(clippy::unwrap_used, reason = "test code: a panic is the failure report")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use clap::{Arg, Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use conntrace::cli::topics::Topic;
use conntrace::cli::{Cli, args, migration};
use conntrace::command::help;
use conntrace::host::facts::Host;
use conntrace::host::lookup::HostLookup;
use conntrace::ledger::metrics::family::ALL;
use conntrace::ledger::plot;
use conntrace::render::schema;
use conntrace::serve::openapi;
use conntrace::settings::Settings;

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
        ("metrics.md".to_owned(), metrics()),
        ("options.md".to_owned(), options()),
        ("openapi.json".to_owned(), openapi::text()),
        ("pictures/plot.svg".to_owned(), svg("conntrace stats --plot", &plot::day())),
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

/// A picture of a terminal in which a command has printed a text. Blocks of a plot are drawn, since fonts differ in them.
fn svg(command: &str, text: &str) -> String {
    const WIDE: f64 = 8.4;
    const HIGH: f64 = 18.0;
    const MARGIN: f64 = 14.0;
    let lines: Vec<String> =
        std::iter::once(format!("$ {command}")).chain(text.lines().map(str::to_owned)).collect();
    let most = lines.iter().map(|line| line.chars().count()).max().unwrap_or_default();
    let (width, height) = (most as f64 * WIDE + 2.0 * MARGIN, lines.len() as f64 * HIGH + 2.0 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" \
         viewBox=\"0 0 {width:.0} {height:.0}\" font-family=\"DejaVu Sans Mono, Menlo, monospace\" font-size=\"14\">\n\
         <rect width=\"100%\" height=\"100%\" rx=\"6\" fill=\"#1c2128\"/>\n"
    );
    for (row, line) in lines.iter().enumerate() {
        let bottom = MARGIN + (row + 1) as f64 * HIGH - 4.0;
        let is_drawn = |c: char| ('▁'..='█').contains(&c);
        let words: String = line.chars().map(|c| if is_drawn(c) { ' ' } else { c }).collect();
        let words = words.trim_end().replace('&', "&amp;").replace('<', "&lt;");
        writeln!(out, "<text x=\"{MARGIN}\" y=\"{bottom}\" fill=\"#d7dde4\" xml:space=\"preserve\" textLength=\"{:.1}\">{words}</text>", line.trim_end().chars().count() as f64 * WIDE).unwrap();
        let color = if line.trim_start().starts_with("failed") { "#e5746c" } else { "#5fa8e6" };
        for (column, block) in line.chars().enumerate().filter(|&(_, c)| is_drawn(c)) {
            let tall = f64::from(block as u32 - '▁' as u32 + 1) / 8.0 * (HIGH - 5.0);
            let (x, y) = (MARGIN + column as f64 * WIDE, bottom - tall + 1.0);
            writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{color}\"/>",
                WIDE - 0.8
            )
            .unwrap();
        }
    }
    out + "</svg>\n"
}

/// The page with all metrics, from the list of families.
fn metrics() -> String {
    let mut text = include_str!("metrics_head.md").to_owned();
    for family in ALL {
        let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind) = (family.full_name(), family.kind.name());
        writeln!(text, "| `{name}` | {kind} | {} | {} |", labels.join(", "), family.help).unwrap();
    }
    text
}

/// The page with all options, from the definition of the command line.
fn options() -> String {
    let mut all = Cli::command();
    all.build();
    let commands: Vec<&Command> = all.get_subcommands().filter(|command| !command.is_hide_set()).collect();
    let shown = |command: &Command| -> Vec<Arg> {
        command.get_arguments().filter(|arg| !arg.is_hide_set() && arg.get_id() != "help").cloned().collect()
    };
    let mut text = "# Options\n\nGenerated by `cargo xtask docs` from the definition of the command line. \
                    `conntrace help COMMAND` prints the same.\n\n"
        .to_owned();
    let mut seen: Vec<(&str, String, Arg)> = Vec::new();
    for command in &commands {
        writeln!(text, "## {}\n\n{}.\n", command.get_name(), command.get_about().unwrap()).unwrap();
        let mut known: BTreeMap<usize, (&str, Vec<String>)> = BTreeMap::new();
        for arg in shown(command) {
            let line = format!("{}: {}", entry(&arg), arg.get_help().unwrap());
            if let Some((of, _, same)) = seen.iter().find(|(_, other, _)| *other == line) {
                let index = commands.iter().position(|command| command.get_name() == *of).unwrap();
                known.entry(index).or_insert_with(|| (of, Vec::new())).1.push(name(same));
            } else {
                writeln!(text, "- {}", folded(&line).replace('\n', "\n  ")).unwrap();
                seen.push((command.get_name(), line, arg));
            }
        }
        for (of, names) in known.into_values() {
            let gap = if text.ends_with(".\n\n") { "" } else { "\n" };
            writeln!(text, "{gap}{}", folded(&format!("As in `{of}`: {}.", names.join(", ")))).unwrap();
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

/// Names and value of an option, as code.
fn entry(arg: &Arg) -> String {
    let short = arg.get_short().map(|short| format!("`-{short}`"));
    let long = arg.get_long().map(|long| format!("`--{long}`"));
    let aliases =
        arg.get_visible_aliases().unwrap_or_default().into_iter().map(|alias| format!("`--{alias}`"));
    let names: Vec<String> = short.into_iter().chain(long).chain(aliases).collect();
    let values = arg.get_value_names().unwrap_or_default().iter().map(|value| format!("`{value}`"));
    let takes_value = arg.get_action().takes_values();
    let values: Vec<String> = values.filter(|_| takes_value).collect();
    [names.join(", "), values.join(" ")]
        .iter()
        .filter(|part| !part.is_empty())
        .cloned()
        .collect::<Vec<_>>()
        .join(" ")
}

/// The first name of an option, as code.
fn name(arg: &Arg) -> String {
    match (arg.get_long(), arg.get_short()) {
        (Some(long), _) => format!("`--{long}`"),
        (None, Some(short)) => format!("`-{short}`"),
        (None, None) => format!("`{}`", arg.get_value_names().unwrap_or_default().join(" ")),
    }
}

/// The text in lines of a readable length.
fn folded(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().unwrap();
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= 118 {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}

/// One page of the manual.
fn page(command: &Command, name: &str, is_main: bool) -> String {
    let mut out = Vec::new();
    let examples = command.get_before_help().map(ToString::to_string).unwrap_or_default();
    let command = command.clone().display_name(name.to_owned()).bin_name(name.replace('-', " "));
    // clap_mangen leaves out the text of an option that the short help leaves out.
    let command = command.mut_args(|arg| arg.hide_short_help(false));
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
        literal(
            "EXIT STATUS",
            "0  normal end, also by Ctrl-C\n1  error; with --exit-code: nothing was found\n\
             2  wrong usage; with --exit-code: any error\n3  with --strict: a loss\n",
            &mut text,
        );
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

#[test]
fn each_picture_is_whole_small_and_shown() {
    // Then the pages are being written.
    if env::var_os("CONNTRACE_DOCS").is_some() {
        return;
    }
    let mut pages = String::new();
    for entry in fs::read_dir(docs()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "md") {
            pages += &fs::read_to_string(path).unwrap();
        }
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(docs().join("pictures")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let content = fs::read(&path).unwrap();
        let is_whole = match path.extension().and_then(|end| end.to_str()) {
            Some("svg") => content.starts_with(b"<svg ") && content.ends_with(b"</svg>\n"),
            Some("png") => content.starts_with(b"\x89PNG") && content.ends_with(b"IEND\xaeB`\x82"),
            _ => false,
        };
        assert!(is_whole && content.len() < 150_000, "{name}: {} bytes", content.len());
        assert!(pages.contains(&format!("](pictures/{name})")), "no page shows {name}");
        names.push(name);
    }
    for (_, rest) in pages.match_indices("](pictures/").map(|(at, start)| pages.split_at(at + start.len())) {
        let name = rest.split(')').next().unwrap();
        assert!(
            names.iter().any(|known| known == name),
            "{name} is missing: `cargo xtask pictures` draws it"
        );
    }
}

/// Every document, by its path in the repository.
fn documents() -> Vec<(String, String)> {
    let read = |path: &Path| (path.display().to_string(), fs::read_to_string(path).unwrap());
    let mut pages = vec![read(&docs().join("../README.md"))];
    for entry in fs::read_dir(docs()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "md") {
            pages.push(read(&path));
        }
    }
    pages
}

/// What is wrong with a command line, if something is.
fn complaint(line: &str) -> Option<String> {
    let words = shell_words::split(line).unwrap().into_iter().map(Into::into).collect();
    let cli = match args::read(words, None) {
        Ok((cli, _)) => cli,
        Err(refusal) => return Some(format!("{refusal:?}")),
    };
    Settings::from_cli(&cli, &HostLookup::new(&Host::probe())).err().map(|error| error.to_string())
}

/// The command lines of conntrace in the blocks of a document, without what the shell does with them.
fn commands(text: &str) -> Vec<String> {
    let mut fence = "";
    let mut found = Vec::new();
    for line in text.lines() {
        if line.starts_with("```") {
            fence = line;
            continue;
        }
        let command = match fence {
            "```sh" => Some(line),
            "```console" => line.strip_prefix("$ "),
            _ => None,
        };
        let Some(command) = command.and_then(|line| line.split("  #").next()) else { continue };
        let Ok(words) = shell_words::split(command) else { continue };
        let is_end = |word: &String| {
            ["|", "&", ";"].contains(&word.as_str()) || (word.contains('>') && !word.contains(' '))
        };
        let words = words.into_iter().skip_while(|word| word == "sudo" || word.contains('='));
        let words: Vec<String> = words.take_while(|word| !is_end(word)).collect();
        if words.first().is_some_and(|word| word == "conntrace") {
            found.push(shell_words::join(words));
        }
    }
    found
}

#[test]
fn commands_in_documents_are_understood() {
    let mut count = 0;
    for (path, text) in documents() {
        for line in commands(&text) {
            assert_eq!(complaint(&line), None, "{path}: {line}");
            count += 1;
        }
    }
    assert!(count > 15, "{count}");
}

/// The first cells of the table under a heading, each split into its words in backticks.
fn first_cells(page: &str, heading: &str) -> Vec<String> {
    let text = fs::read_to_string(docs().join(page)).unwrap();
    let (_, section) = text.split_once(&format!("{heading}\n")).unwrap();
    let rows = section.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    let cells = rows.take_while(|line| line.starts_with('|')).map(|line| line.split('|').nth(1).unwrap());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// Values of which at least one fits every option of conntrack that takes one.
const VALUES: [&str; 7] = ["", "tcp", "22", "192.0.2.1", "established", "NEW", "timestamp"];

#[test]
fn refused_options_are_refused() {
    let options = first_cells("conntrack.md", "## Options that are refused");
    assert!(options.len() > 40, "{options:?}");
    for option in options {
        for value in VALUES {
            let line = format!("conntrace {option} {value}");
            assert!(complaint(&line).is_some(), "{line}");
        }
    }
}

#[test]
fn options_of_conntrack_are_taken() {
    let options = first_cells("conntrack.md", "## Options");
    assert!(options.len() > 25, "{options:?}");
    for option in options {
        // Some are of flows only.
        let takes = |command: &str| {
            let takes_value = |value: &&str| complaint(&format!("{command} {option} {value}")).is_none();
            VALUES.iter().chain(&["ipv4"]).any(takes_value)
        };
        assert!(takes("conntrace") || takes("conntrace --forwarded"), "{option}");
    }
}

#[test]
fn refused_words_of_filters_are_refused() {
    let words =
        first_cells("filters.md", "are refused, each with what to use instead. A test tries all of them.");
    assert!(words.len() > 3, "{words:?}");
    for word in words {
        for filter in [word.clone(), format!("{word} = 1"), format!("{word} eth0")] {
            assert!(complaint(&format!("conntrace '{filter}'")).is_some(), "{filter}");
        }
    }
}
