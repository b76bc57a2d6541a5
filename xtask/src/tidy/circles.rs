//! No two folders of a crate import each other, whether directly or through others.

use std::collections::{BTreeMap, BTreeSet};

use super::Finding;
use super::source::{Crate, ROOTS};

/// Imports that still close a circle: crate, importing folder, imported folder. An entry without its import fails, too.
const KNOWN_CIRCLES: &[(&str, &str, &str)] = &[];

/// Which folder imports which, each with the first file and line that does.
type Imports<'a> = BTreeMap<(&'a str, &'a str), (&'a str, usize)>;

/// Checks one crate.
pub(super) fn check(of: &Crate) -> Vec<Finding> {
    against(of, KNOWN_CIRCLES)
}

fn against(of: &Crate, known: &[(&str, &str, &str)]) -> Vec<Finding> {
    let imports = imports(of);
    let circular: BTreeMap<_, _> =
        imports.iter().filter(|((from, to), _)| reaches(&imports, to, from)).collect();
    let known: BTreeSet<(&str, &str)> =
        known.iter().filter(|(name, ..)| *name == of.name).map(|(_, from, to)| (*from, *to)).collect();
    let new =
        circular.iter().filter(|(edge, _)| !known.contains(**edge)).map(|((from, to), (path, line))| {
            let says =
                format!("the folders {from} and {to} are in a circle of imports; {from} imports {to} here");
            Finding { path: (*path).to_owned(), line: *line, says, fails: true }
        });
    let gone = known.iter().filter(|edge| !circular.contains_key(*edge)).map(|(from, to)| {
        let says = format!("{from} imports {to} in no circle any more: remove it from KNOWN_CIRCLES");
        Finding { path: of.name.to_owned(), line: 1, says, fails: true }
    });
    new.chain(gone).collect()
}

/// The imports from folder to folder.
fn imports(of: &Crate) -> Imports<'_> {
    let folders: BTreeSet<&str> =
        of.sources.iter().filter(|source| source.is_in_folder).map(|source| source.top.as_str()).collect();
    let mut imports = Imports::new();
    let stages = of.sources.iter().filter(|source| !ROOTS.contains(&source.top.as_str()));
    for source in stages.filter(|source| folders.contains(source.top.as_str())) {
        for used in &source.uses {
            if let Some(to) = used.top().filter(|to| *to != source.top && folders.contains(to)) {
                imports.entry((&source.top, to)).or_insert((&source.path, used.line));
            }
        }
    }
    imports
}

/// Whether imports lead from one folder to another.
fn reaches(imports: &Imports<'_>, from: &str, to: &str) -> bool {
    let (mut seen, mut left) = (BTreeSet::from([from]), vec![from]);
    while let Some(folder) = left.pop() {
        if folder == to {
            return true;
        }
        let next =
            imports.keys().filter(|(importing, _)| *importing == folder).map(|(_, imported)| *imported);
        left.extend(next.filter(|imported| seen.insert(imported)));
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::source::made_up;

    fn found(files: &[(&str, &str)], known: &[(&str, &str, &str)]) -> Vec<String> {
        against(&made_up("conn-user", files), known).iter().map(Finding::to_string).collect()
    }

    #[test]
    fn two_folders_do_not_import_each_other() {
        let files = [("a/mod.rs", "use crate::b::C;"), ("b/mod.rs", "\nfn f() { crate::a::g() }")];
        let both = [
            "conn-user/src/a/mod.rs:1: the folders a and b are in a circle of imports; a imports b here",
            "conn-user/src/b/mod.rs:2: the folders b and a are in a circle of imports; b imports a here",
        ];
        assert_eq!(found(&files, &[]), both);
    }

    #[test]
    fn a_longer_circle_is_one_too() {
        let files = [
            ("a/x.rs", "use crate::b::C;"),
            ("b/x.rs", "use crate::c::D;"),
            ("c/x.rs", "use super::super::a::x;"),
            ("d/x.rs", "use crate::a::x;"),
        ];
        assert_eq!(found(&files, &[]).len(), 3);
    }

    #[test]
    fn one_direction_is_no_circle() {
        let files = [
            ("a/x.rs", "use crate::b::C; use crate::error::Error;"),
            ("b/x.rs", "#[cfg(test)] mod tests { use crate::a::x; }"),
            ("error.rs", "use crate::a::x;"),
            ("lib.rs", "mod a; mod b; use crate::a::x;"),
        ];
        assert_eq!(found(&files, &[]), Vec::<String>::new());
    }

    #[test]
    fn known_circles_are_exact() {
        let files = [("a/x.rs", "use crate::b::C;"), ("b/x.rs", "use crate::a::x;")];
        let known = [("conn-user", "a", "b"), ("conn-user", "b", "a")];
        assert_eq!(found(&files, &known), Vec::<String>::new());
        let gone = found(&files[..1], &known);
        assert_eq!(gone.len(), 2);
        assert!(gone[0].contains("remove it from KNOWN_CIRCLES"), "{gone:?}");
    }
}
