//! Which patterns of containers and units match nothing that runs now.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::enrich::cgroup::Hierarchy;
use crate::enrich::container_names;
use crate::event::workload::{Container, ContainerNames, Workload};
use crate::filter::Filter;
use crate::filter::workload::{ContainerPattern, UnitPattern, WorkloadFilter};

/// How long a search may take, and how long a caller waits for it. A directory takes some microseconds.
const MAX_WAIT: Duration = Duration::from_secs(1);
/// How many cgroups are looked at.
const MAX_CGROUPS: usize = 65_536;

/// A pattern that matches nothing that runs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Absent {
    /// The option, with its hyphens.
    option: &'static str,
    /// The pattern as typed.
    typed: String,
    near: Near,
}

/// The other matches of the pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Near {
    Nothing,
    /// A container of this user. Its pattern has the user behind the name.
    ContainerOf(String, u32),
    /// A unit of a user's service manager.
    UserUnit,
    /// There is nothing to search.
    NoHierarchy,
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, typed, near } = self;
        let noun = if *option == "--container" { "container" } else { "unit or slice" };
        write!(f, "{option} {typed}: no such {noun} runs now")?;
        match near {
            Near::Nothing => Ok(()),
            Near::ContainerOf(name, user) => write!(f, "; user {user} has one: {option} {name}@{user}"),
            Near::UserUnit => write!(f, "; a user's service manager has one: --user-unit {typed}"),
            Near::NoHierarchy => {
                f.write_str(", as far as can be seen: no cgroup v2 hierarchy is mounted here")
            }
        }
    }
}

/// A search in the background: a file of a container's runtime may be slow.
#[derive(Debug)]
pub(crate) struct Search(Option<Receiver<Vec<Absent>>>);

impl Search {
    /// Begins to search for what the patterns of a filter match, in the hierarchy at `root`.
    /// A run for one user searches nothing: what exists is not that user's to know.
    pub(crate) fn start(root: Option<&Path>, whole: &Filter, filter: &WorkloadFilter) -> Self {
        if filter.is_empty() || whole.viewer().is_some() {
            return Self(None);
        }
        let (answer, answered) = channel();
        let (hierarchy, filter) = (root.and_then(Hierarchy::new), filter.clone());
        let job = move || {
            let names =
                |container: &Container| container_names::names(Path::new("/"), &container.id, container.user);
            if let Some(absent) = absent(hierarchy.as_ref(), &filter, names) {
                // The command may have ended.
                let _ = answer.send(absent);
            }
        };
        Self(thread::Builder::new().name("patterns".into()).spawn(job).ok().map(|_| answered))
    }

    /// The patterns that match nothing, in the order of the options. Empty if the search takes too long.
    pub(crate) fn absent(self) -> Vec<Absent> {
        self.0.and_then(|answered| answered.recv_timeout(MAX_WAIT).ok()).unwrap_or_default()
    }
}

/// A pattern, and whether it has matched.
struct Sought<'a, P> {
    option: &'static str,
    pattern: &'a P,
    found: bool,
    near: Near,
}

fn sought<'a, P>(option: &'static str, patterns: &'a [P], near: &Near) -> Vec<Sought<'a, P>> {
    patterns.iter().map(|pattern| Sought { option, pattern, found: false, near: near.clone() }).collect()
}

fn absent_of<P>(sought: Vec<Sought<'_, P>>, typed: fn(&P) -> &str) -> impl Iterator<Item = Absent> {
    sought.into_iter().filter(|one| !one.found).map(move |one| Absent {
        option: one.option,
        typed: typed(one.pattern).to_owned(),
        near: one.near,
    })
}

/// The patterns that match no cgroup. `None` if there was no time for all cgroups.
fn absent(
    hierarchy: Option<&Hierarchy>,
    filter: &WorkloadFilter,
    names: impl Fn(&Container) -> ContainerNames,
) -> Option<Vec<Absent>> {
    let nothing = if hierarchy.is_some() { Near::Nothing } else { Near::NoHierarchy };
    let mut containers = sought("--container", &filter.containers, &nothing);
    let mut units = sought("--unit", &filter.units, &nothing);
    let mut user_units = sought("--user-unit", &filter.user_units, &nothing);
    let mut known: HashMap<(String, Option<u32>), ContainerNames> = HashMap::new();
    let is_complete = hierarchy.is_none_or(|hierarchy| {
        each(hierarchy, |workload| {
            let Workload { container, unit, slice, user_unit, user_slice } = workload;
            for one in &mut units {
                one.found |= one.pattern.matches(unit.as_deref(), slice.as_deref());
                if one.pattern.matches(user_unit.as_deref(), user_slice.as_deref()) {
                    one.near = Near::UserUnit;
                }
            }
            for one in &mut user_units {
                one.found |= one.pattern.matches(user_unit.as_deref(), user_slice.as_deref());
            }
            if let Some(mut container) = container
                && containers.iter().any(|one| !one.found)
            {
                if container.names.is_empty() {
                    let key = (container.id.clone(), container.user);
                    container.names = known.entry(key).or_insert_with(|| names(&container)).clone();
                }
                for one in &mut containers {
                    one.found |= one.pattern.matches(&container);
                    if let Some(user) = container.user.filter(|_| one.pattern.names(&container)) {
                        one.near = Near::ContainerOf(one.pattern.name.clone(), user);
                    }
                }
            }
        })
    });
    is_complete.then(|| {
        absent_of(containers, |pattern: &ContainerPattern| &pattern.typed)
            .chain(absent_of(units, |pattern: &UnitPattern| &pattern.typed))
            .chain(absent_of(user_units, |pattern: &UnitPattern| &pattern.typed))
            .collect()
    })
}

/// Visits the workload of every cgroup. False if there was no time for all.
fn each(hierarchy: &Hierarchy, mut visit: impl FnMut(Workload)) -> bool {
    let deadline = Instant::now() + MAX_WAIT;
    let mut directories = vec![hierarchy.path().to_owned()];
    let mut visited = 0;
    while let Some(directory) = directories.pop() {
        visited += 1;
        if visited > MAX_CGROUPS || Instant::now() > deadline {
            return false;
        }
        if let Some(workload) = hierarchy.workload(&directory) {
            visit(workload);
        }
        // A cgroup that is gone has no children.
        let entries = fs::read_dir(&directory).into_iter().flatten().flatten();
        directories.extend(
            entries
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
    }
    true
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::event::workload::is_id;

    /// A directory in place of a hierarchy.
    struct Directory(PathBuf);

    impl Directory {
        fn new(cgroups: &[&str]) -> Self {
            let path = std::env::temp_dir().join(format!("conntrace-existing-{}", std::process::id()));
            for cgroup in cgroups {
                fs::create_dir_all(path.join(cgroup)).unwrap();
            }
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn filter(containers: &[&str], units: &[&str], user_units: &[&str]) -> WorkloadFilter {
        let unit = |text: &&str| UnitPattern::new(text).unwrap();
        WorkloadFilter {
            containers: containers
                .iter()
                .map(|text| ContainerPattern::new(text, |_| Ok(None)).unwrap())
                .collect(),
            units: units.iter().map(unit).collect(),
            user_units: user_units.iter().map(unit).collect(),
        }
    }

    #[test]
    fn patterns_without_a_match_are_named() {
        let id = "0123456789abcdef".repeat(4);
        let root = Directory::new(&[
            "system.slice/ssh.service",
            &format!("system.slice/docker-{id}.scope/sub"),
            "user.slice/user-1000.slice/user@1000.service/app.slice/editor.service",
            "lxc/db",
        ]);
        let hierarchy = Hierarchy::new(&root.0).unwrap();
        let names = |container: &Container| {
            assert!(is_id(&container.id), "a name needs no look-up");
            ContainerNames { name: Some("web".into()), ..ContainerNames::default() }
        };
        let report = |containers: &[&str], units: &[&str], user_units: &[&str]| {
            let absent = absent(Some(&hierarchy), &filter(containers, units, user_units), names).unwrap();
            absent.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        assert_eq!(report(&["web", "0123", "d?"], &["ssh", "system.slice", "user@*"], &["editor"]), "");
        insta::assert_snapshot!(report(&["we", "web@1000", "web"], &["sshd", "editor", "x*"], &["ssh"]), @"
        --container we: no such container runs now
        --container web@1000: no such container runs now
        --unit sshd: no such unit or slice runs now
        --unit editor: no such unit or slice runs now; a user's service manager has one: --user-unit editor
        --unit x*: no such unit or slice runs now
        --user-unit ssh: no such unit or slice runs now
        ");
        let nowhere = absent(None, &filter(&["web"], &[], &[]), names).unwrap();
        insta::assert_snapshot!(nowhere[0], @"--container web: no such container runs now, as far as can be seen: no cgroup v2 hierarchy is mounted here");
    }

    #[test]
    fn without_patterns_nothing_is_searched() {
        assert!(Search::start(None, &Filter::all(), &WorkloadFilter::default()).0.is_none());
        let two = filter(&["a"], &["b"], &[]);
        assert_eq!(Search::start(None, &Filter::all(), &two).absent().len(), 2);
        assert_eq!(Search::start(None, &Filter::of_viewer(None, 1_000, true), &two).absent(), []);
    }
}
