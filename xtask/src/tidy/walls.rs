//! What a folder must not use. Each wall is one row of a table.

use super::Finding;
use super::source::{Crate, ROOTS, Source};

/// One wall.
struct Wall {
    says: &'static str,
    /// The crate that the wall stands in.
    of: &'static str,
    /// The folder or file inside the wall, below the crate's `src`; empty: all.
    inside: &'static str,
    /// Folders and files below the crate's `src` that may.
    except: &'static [&'static str],
    /// What the others must not use.
    forbids: &'static [Forbidden],
}

/// Paths that a wall keeps out.
#[derive(Debug, Clone, Copy)]
enum Forbidden {
    /// A folder of the same crate.
    Folder(&'static str),
    /// Another crate.
    Crate(&'static str),
    /// Paths that end so, by whatever name their beginning was imported.
    End(&'static [&'static str]),
}

use Forbidden::{End, Folder};

const USER: &str = "conn-user";
const KERNEL: &str = "conn-ebpf";

const WALLS: [Wall; 9] = [
    Wall {
        says: "cli imports no command",
        of: USER,
        inside: "cli/",
        except: &[],
        forbids: &[Folder("command")],
    },
    Wall {
        says: "event imports neither enrich, render nor kernel",
        of: USER,
        inside: "event/",
        except: &[],
        forbids: &[Folder("enrich"), Folder("render"), Folder("kernel")],
    },
    Wall {
        says: "render imports no kernel",
        of: USER,
        inside: "render/",
        except: &[],
        forbids: &[Folder("kernel")],
    },
    Wall {
        says: "only output writes to standard output",
        of: USER,
        inside: "",
        // Asks whether standard output is a terminal, and how wide it is.
        except: &["output/", "settings/style.rs"],
        forbids: &[End(&["io", "stdout"]), End(&["io", "Stdout"]), End(&["println!"]), End(&["print!"])],
    },
    Wall {
        says: "only event/decode turns bytes into types",
        of: USER,
        inside: "",
        except: &["event/decode.rs", "event/decode/"],
        forbids: &[
            End(&["from_ne_bytes"]),
            End(&["from_le_bytes"]),
            End(&["transmute"]),
            End(&["read_unaligned"]),
            End(&["from_raw_parts"]),
            End(&["from_raw_parts_mut"]),
            End(&["bytes", "Buf"]),
        ],
    },
    Wall {
        says: "only kernel imports aya",
        of: USER,
        inside: "",
        except: &["kernel/"],
        forbids: &[Forbidden::Crate("aya")],
    },
    Wall {
        says: "storage imports neither hook nor iter",
        of: KERNEL,
        inside: "storage/",
        except: &[],
        forbids: &[Folder("hook"), Folder("iter")],
    },
    Wall {
        says: "iter imports no hook",
        of: KERNEL,
        inside: "iter/",
        except: &[],
        forbids: &[Folder("hook")],
    },
    Wall {
        says: "hook imports no iter",
        of: KERNEL,
        inside: "hook/",
        except: &[],
        forbids: &[Folder("iter")],
    },
];

/// Files that still cross a wall: what the wall says, and the file below the crate's `src`. An entry without its
/// crossing fails, too.
const KNOWN_CROSSINGS: &[(&str, &str)] = &[];

/// Checks one crate.
pub(super) fn check(of: &Crate) -> Vec<Finding> {
    against(of, KNOWN_CROSSINGS)
}

fn against(of: &Crate, known: &[(&str, &str)]) -> Vec<Finding> {
    let source_folder = format!("{}/src/", of.name);
    let mut found: Vec<Finding> = outside_of_stages(of).collect();
    let mut gone: Vec<&(&str, &str)> = known
        .iter()
        .filter(|(says, _)| WALLS.iter().any(|wall| wall.of == of.name && wall.says == *says))
        .collect();
    for wall in WALLS.iter().filter(|wall| wall.of == of.name) {
        for source in &of.sources {
            let inside = source.path.strip_prefix(&source_folder).unwrap_or(&source.path);
            if !inside.starts_with(wall.inside) || wall.except.iter().any(|may| inside.starts_with(may)) {
                continue;
            }
            let crossings: Vec<Finding> = wall.crossings(source).collect();
            if !crossings.is_empty() {
                gone.retain(|known| **known != (wall.says, inside));
            }
            if !known.contains(&(wall.says, inside)) {
                found.extend(crossings);
            }
        }
    }
    found.extend(gone.into_iter().map(|(says, inside)| Finding {
        path: source_folder.clone() + inside,
        line: 1,
        says: format!("{says:?} is crossed no more: remove it from KNOWN_CROSSINGS"),
        fails: true,
    }));
    found
}

/// A file at the top of `src` belongs to no stage. In the kernel's crate it may.
fn outside_of_stages(of: &Crate) -> impl Iterator<Item = Finding> {
    let outside = |source: &&Source| !source.is_in_folder && !ROOTS.contains(&source.top.as_str());
    of.sources.iter().filter(|_| of.name == USER).filter(outside).map(|source| Finding {
        path: source.path.clone(),
        line: 1,
        says: format!("a file of {USER} lies in the folder of its stage"),
        fails: true,
    })
}

impl Wall {
    /// Where a file crosses the wall.
    fn crossings<'a>(&'a self, source: &'a Source) -> impl Iterator<Item = Finding> + 'a {
        let crossed = source.uses.iter().filter(|used| self.forbids.iter().any(|one| one.covers(&used.path)));
        crossed.map(|used| Finding {
            path: source.path.clone(),
            line: used.line,
            says: format!("{}: {}", self.says, used.path.join("::")),
            fails: true,
        })
    }
}

impl Forbidden {
    fn covers(self, path: &[String]) -> bool {
        match self {
            Folder(name) => matches!(path, [root, top, ..] if root == "crate" && top == name),
            Forbidden::Crate(name) => path.first().is_some_and(|first| first == name),
            End(end) => path.len() >= end.len() && path[path.len() - end.len()..].iter().eq(end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::made_up;

    fn found(of: &'static str, path: &str, text: &str) -> Vec<String> {
        against(&made_up(of, &[(path, text)]), &[]).iter().map(Finding::to_string).collect()
    }

    /// The code crosses the wall once in `inside`, and is allowed in `outside`.
    #[track_caller]
    fn keeps_out(of: &'static str, code: &str, inside: &str, outside: &str, says: &str) {
        let crossed = found(of, inside, &format!("\n{code}"));
        assert_eq!(crossed.len(), 1, "{crossed:?}");
        assert!(crossed[0].starts_with(&format!("{of}/src/{inside}:2: {says}")), "{crossed:?}");
        assert_eq!(found(of, outside, code), Vec::<String>::new());
    }

    #[test]
    fn cli_keeps_commands_out() {
        keeps_out(USER, "use crate::command::events;", "cli/args.rs", "settings/mod.rs", "cli imports no");
        keeps_out(USER, "fn f() { super::super::command::run() }", "cli/a.rs", "host/a.rs", "cli imports no");
    }

    #[test]
    fn event_keeps_later_stages_out() {
        for stage in ["enrich", "render", "kernel"] {
            let code = format!("use crate::{{{stage}::X}};");
            keeps_out(USER, &code, "event/mod.rs", "stream/pipeline.rs", "event imports neither");
        }
    }

    #[test]
    fn render_keeps_the_kernel_out() {
        keeps_out(
            USER,
            "use crate::kernel::probe;",
            "render/json.rs",
            "command/list.rs",
            "render imports no",
        );
    }

    #[test]
    fn standard_output_has_one_writer() {
        let says = "only output writes";
        keeps_out(USER, "fn f() { println!(); }", "command/list.rs", "output/stdout.rs", says);
        keeps_out(USER, "fn f() { std::print!(\"\"); }", "main.rs", "output/stdout.rs", says);
        keeps_out(USER, "use std::io::{self, stdout};", "stream/a.rs", "output/stdout.rs", says);
        keeps_out(USER, "fn f() { io::stdout().lock(); }", "stream/a.rs", "settings/style.rs", says);
        assert_eq!(found(USER, "main.rs", "fn f() { eprintln!(); }"), Vec::<String>::new());
    }

    #[test]
    fn bytes_have_one_reader() {
        let says = "only event/decode turns";
        keeps_out(USER, "fn f() { u32::from_ne_bytes(b) }", "stream/ring.rs", "event/decode.rs", says);
        keeps_out(USER, "fn f() { mem::transmute(x) }", "ledger/reader.rs", "event/decode.rs", says);
        keeps_out(USER, "use bytes::Buf as _;", "ledger/reader.rs", "event/decode.rs", says);
    }

    #[test]
    fn aya_stays_in_the_kernel_stage() {
        keeps_out(USER, "use aya::Ebpf;", "host/btf.rs", "kernel/probe.rs", "only kernel imports aya");
        keeps_out(USER, "fn f() { aya::util::x() }", "ledger/a.rs", "kernel/probe.rs", "only kernel imports");
        assert_eq!(found(USER, "host/btf.rs", "use aya_log::EbpfLogger;"), Vec::<String>::new());
    }

    #[test]
    fn kernel_folders_keep_each_other_out() {
        let stays = "storage imports neither hook nor iter";
        keeps_out(KERNEL, "use crate::hook::X;", "storage/assoc_table.rs", "main.rs", stays);
        keeps_out(KERNEL, "use crate::iter::X;", "storage/assoc_table.rs", "main.rs", stays);
        keeps_out(KERNEL, "use crate::hook::X;", "iter/tcp.rs", "main.rs", "iter imports no hook");
        keeps_out(KERNEL, "use crate::iter::X;", "hook/accept.rs", "main.rs", "hook imports no iter");
    }

    #[test]
    fn every_file_has_a_stage() {
        assert_eq!(found(USER, "walk.rs", "").len(), 1);
        for root in ["main.rs", "lib.rs", "error.rs"] {
            assert_eq!(found(USER, root, ""), Vec::<String>::new());
        }
        assert_eq!(found(KERNEL, "filter.rs", ""), Vec::<String>::new());
    }

    #[test]
    fn tests_may_cross_walls() {
        let code = "#[cfg(test)]\nmod tests { use crate::kernel::X; }";
        assert_eq!(found(USER, "event/mod.rs", code), Vec::<String>::new());
    }

    #[test]
    fn known_crossings_are_exact() {
        let known = [("render imports no kernel", "render/json.rs")];
        let of = |text| against(&made_up(USER, &[("render/json.rs", text)]), &known);
        assert_eq!(of("use crate::kernel::probe;"), []);
        let gone = of("");
        assert!(gone[0].says.contains("remove it from KNOWN_CROSSINGS"), "{gone:?}");
    }
}
