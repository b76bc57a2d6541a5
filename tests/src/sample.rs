//! Samples of the documents: fenced blocks under `<!-- sample: NAME -->`, each with the output of real runs.
//!
//! A test makes every sample again and compares its shape: the same words, other numbers. With `CONNTRACE_DOCS=write`,
//! as `cargo xtask docs --samples` has it, the test writes the blocks instead.

use crate::{
    harness::Outcome,
    stage::Stage,
    tracer::{Setup, Tracer, without_failures},
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

/// How often a sample is made before its shape counts as wrong. Other connections of the host may come between.
const TRIES: usize = 3;
/// JSON fields whose values belong to the host and not to the sample.
const OF_HOST: [&str; 8] =
    ["cgroup", "container", "container_name", "container_user", "pod", "pod_namespace", "unit", "user_unit"];
/// Options of samples of connections: of this host's, only the stage's.
const STAGE: &str = "--src 192.0.2.7";
/// The ports of samples of an attack: of `nginx`, and of a scan around `postgres`.
pub const ATTACKED: &str = "80,5001-6000";
/// Options of samples that no address chooses: the stage's ports.
const PORTS: &str = "--dport 22,23";

/// A document, by its path in the repository.
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// The path.
    pub path: &'static str,
    /// The text.
    pub text: &'static str,
}

/// How to make one sample.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// The name in the marker.
    pub name: &'static str,
    /// Runs conntrace and returns the lines of the block.
    pub make: fn(&Stage) -> Vec<String>,
}

/// The samples of a page: name and lines, without the fences.
///
/// # Panics
/// A marker has no block.
pub fn blocks(page: &str) -> BTreeMap<&str, Vec<&str>> {
    let mut found = BTreeMap::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(name) = name(line) else { continue };
        let fence = lines.next().unwrap_or_default();
        assert!(fence.starts_with("```") && fence.len() > 3, "no block under {line}");
        found.insert(name, lines.by_ref().take_while(|line| *line != "```").collect());
    }
    found
}

fn name(line: &str) -> Option<&str> {
    line.strip_prefix("<!-- sample: ")?.strip_suffix(" -->")
}

/// Makes samples and compares them with their blocks, or writes the blocks.
///
/// # Errors
/// The machine has no namespaces.
///
/// # Panics
/// A block has another shape, or there is no such block.
pub fn check(pages: &[Page], samples: &[Sample]) -> Outcome {
    let write = env::var_os("CONNTRACE_DOCS").is_some_and(|word| word == "write");
    for sample in samples {
        let mut found = pages.iter().filter_map(|page| Some((page, blocks(page.text).remove(sample.name)?)));
        let (page, block) = found.next().unwrap_or_else(|| panic!("no page has the sample {}", sample.name));
        let wanted = shape(&block);
        let mut made = Vec::new();
        for _ in 0..TRIES {
            made = (sample.make)(&Stage::new()?);
            if shape(&made) == wanted {
                break;
            }
        }
        if write {
            replace(page.path, sample.name, &made);
        } else {
            let [block, made_text] = [block.join("\n"), made.join("\n")];
            assert_eq!(
                shape(&made),
                wanted,
                "{} of {}: run `cargo xtask docs --samples`\n{block}\n\nis now\n\n{made_text}",
                sample.name,
                page.path
            );
        }
    }
    Ok(())
}

fn replace(path: &str, sample: &str, lines: &[String]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    let text = fs::read_to_string(&path).expect("a page");
    let mut old = text.lines();
    let mut new = Vec::new();
    while let Some(line) = old.next() {
        new.push(line);
        if name(line) == Some(sample) {
            new.extend(old.next());
            new.extend(lines.iter().map(String::as_str));
            new.extend(old.by_ref().find(|line| *line == "```"));
        }
    }
    fs::write(&path, new.join("\n") + "\n").expect("write the page");
}

/// What must stay the same: the words of every line. Numbers, the order of lines and the width of columns may differ.
pub fn shape<S: AsRef<str>>(lines: &[S]) -> BTreeSet<String> {
    lines.iter().map(|line| words(line.as_ref())).filter(|line| !line.is_empty()).collect()
}

fn words(line: &str) -> String {
    // Whether all ports stood still, and what the kernel skipped, depends on the host.
    if line.starts_with("skipped by the kernel, seen by other hooks") {
        return String::new();
    }
    // Other connections of the host may make the programs fail.
    let line = &without_failures(line);
    let mut line = match (line.find(" ago, "), line.find(" between bounds")) {
        (Some(from), Some(to)) => line[..from + 4].to_owned() + &line[to + 15..],
        _ => line.to_owned(),
    };
    for field in OF_HOST {
        let key = format!("\"{field}\":");
        if let Some((before, after)) = line.split_once(&key) {
            let rest = after.find([',', '}']).map_or("", |end| &after[end..]);
            line = format!("{before}{key}#{rest}");
        }
    }
    let is_plot = |c: char| ('\u{2581}'..='\u{2588}').contains(&c);
    let line = line.replace(is_plot, " ");
    let separated = |c: char| c.is_whitespace() || ",\"{}[]()=>".contains(c);
    let mut out: Vec<&str> = Vec::new();
    for part in line.split_inclusive(separated) {
        let word = part.trim_end_matches(separated);
        let end = part[word.len()..].trim();
        let is_number = word.trim_start_matches(':').starts_with(|c: char| c.is_ascii_digit());
        out.push(if is_number { "#" } else { word });
        out.push(end);
    }
    out.retain(|word| !word.is_empty());
    out.join(" ")
}

/// Runs conntrace on a terminal until Ctrl-C, which is typed when `play` returns.
pub fn watch(columns: u16, words: &[&str], play: impl FnOnce(&Tracer)) -> Vec<String> {
    let tracer = setup(columns, words).start();
    play(&tracer);
    tracer.interrupt();
    ended(words, tracer)
}

/// The same with options that the sample does not show, in place of those that choose the stage.
pub fn watch_with(options: &str, words: &[&str], play: impl FnOnce(&Tracer)) -> Vec<String> {
    let tracer = setup(80, words).variable("CONNTRACE_OPTS", options).start();
    play(&tracer);
    tracer.interrupt();
    ended(words, tracer)
}

/// Runs conntrace on a terminal to its own end.
pub fn ask(columns: u16, words: &[&str]) -> Vec<String> {
    ended(words, setup(columns, words).spawn())
}

/// Waits until so many lines with this word have been printed.
pub fn await_lines(tracer: &Tracer, count: usize, word: &str) {
    let seen = Cell::new(0);
    tracer.await_stdout(word, |line| {
        seen.set(seen.get() + usize::from(line.contains(word)));
        seen.get() == count
    });
}

/// Runs `stats` on a terminal to its own end, while `play` makes traffic.
pub fn count(columns: u16, words: &[&str], play: impl FnOnce()) -> Vec<String> {
    let tracer = setup(columns, words).start();
    play();
    ended(words, tracer)
}

fn setup(columns: u16, words: &[&str]) -> Setup {
    let has = |word| words.contains(&word);
    let options = match () {
        // Samples of attacks and of UDP choose their ports themselves.
        () if has("udp") || has("-v") || has("ATTEMPT") || has(ATTACKED) => "",
        () if has("stats") || has("--listening") || has("LISTEN") => PORTS,
        () => STAGE,
    };
    let setup = Setup::new(words).on_terminal(columns).variable("NO_COLOR", "1");
    setup.variable("CONNTRACE_OPTS", options).variable("LC_ALL", "C.UTF-8")
}

fn ended(words: &[&str], tracer: Tracer) -> Vec<String> {
    let ended = tracer.await_end();
    ended.expect_code(0);
    let quoted = words
        .iter()
        .map(|word| if word.contains([' ', '!', '(']) { format!(" '{word}'") } else { format!(" {word}") });
    let prompt = format!("$ sudo conntrace{}", quoted.collect::<String>());
    [prompt].into_iter().chain(ended.stdout.iter().map(|line| line.trim_end().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_by_their_markers() {
        let page = "a\n```sh\nb\n```\n<!-- sample: x -->\n```console\n$ c\nd\n```\n<!-- other -->\n";
        assert_eq!(blocks(page), BTreeMap::from([("x", vec!["$ c", "d"])]));
    }

    #[test]
    fn a_shape_has_words_and_no_numbers() {
        let same = |a: &str, b: &str| assert_eq!(shape(&[a]), shape(&[b]));
        same("dport=22 pid=7 age>=1.5", "dport=22   pid=19 age>=0.25");
        same("ssh  9.86us  ▄ █▄▄▄  500ms", "ssh  1.2ms  █  2s");
        same("{\"unit\":null,\"pid\":1}", "{\"unit\":\"ssh.service\",\"pid\":22}");
        assert_ne!(shape(&["pid=7 comm=ssh"]), shape(&["pid=7 comm=sshd"]));
        assert_ne!(shape(&["reset=null"]), shape(&["reset=1"]));
        assert_ne!(shape(&["state=a"]), shape(&["state=a", "state=b"]));
    }
}
