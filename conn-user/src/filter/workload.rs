//! A filter of workloads: containers and systemd units. The kernel knows neither, so user space decides.

use crate::complaint::{Complaint, complaint};
use crate::event::workload::{Container, Workload, is_id};
use crate::filter::value::glob::{self, Glob};

/// Containers and units. An empty list admits everything; the lists combine with AND.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WorkloadFilter {
    /// Containers.
    pub containers: Vec<ContainerPattern>,
    /// Units and slices of the host's service manager.
    pub units: Vec<UnitPattern>,
    /// Units and slices of the users' service managers.
    pub user_units: Vec<UnitPattern>,
}

/// The fewest digits that select a container.
const MIN_DIGITS: usize = 4;
/// What stands between a container and the user whose runtime made the container.
const OF: char = '@';
/// The kinds of units. A name without a kind is that of a service, as with systemctl.
const KINDS: [&str; 11] = [
    ".service",
    ".scope",
    ".slice",
    ".socket",
    ".mount",
    ".swap",
    ".target",
    ".device",
    ".timer",
    ".path",
    ".automount",
];

/// Whose container a pattern selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Host,
    AnyUser,
    User(u32),
}

/// A pattern of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPattern {
    /// As typed.
    pub typed: String,
    /// The name or id without the user.
    pub name: String,
    /// `None` for a plain name.
    glob: Option<Glob>,
    maker: Maker,
}

impl ContainerPattern {
    /// Reads a name, an id, the first digits of an id, or a pattern; with `@USER` behind it for a container of a user's
    /// runtime, and `@*` for one of any user's.
    ///
    /// # Errors
    /// The user does not exist, or there is no name.
    pub(crate) fn new(
        typed: &str,
        user: impl Fn(&str) -> Result<Option<u32>, Complaint>,
    ) -> Result<Self, Complaint> {
        let (name, maker) = match typed.rsplit_once(OF) {
            None => (typed, Maker::Host),
            Some((name, "*")) => (name, Maker::AnyUser),
            Some((name, word)) => {
                let number = word.parse().ok().map_or_else(|| user(word), |number| Ok(Some(number)))?;
                let number = number.ok_or_else(|| complaint!("there is no user {word:?}"))?;
                (name, Maker::User(number))
            }
        };
        if name.is_empty() {
            return Err("an empty name is no container: write a name, an id or a pattern".into());
        }
        let glob = glob::is_pattern(name).then(|| Glob::new(name));
        Ok(Self { typed: typed.into(), name: name.into(), glob, maker })
    }

    /// True if a container matches.
    pub(crate) fn matches(&self, container: &Container) -> bool {
        let is_made = match self.maker {
            Maker::Host => container.user.is_none(),
            Maker::AnyUser => container.user.is_some(),
            Maker::User(user) => container.user == Some(user),
        };
        is_made && self.names(container)
    }

    /// True if the name or the id of a container matches, with any maker.
    pub(crate) fn names(&self, container: &Container) -> bool {
        let Container { id, names, .. } = container;
        match &self.glob {
            Some(glob) => glob.matches(id) || names.name.as_ref().is_some_and(|name| glob.matches(name)),
            None => {
                id == &self.name
                    || names.name.as_ref() == Some(&self.name)
                    || (is_id(id) && self.name.len() >= MIN_DIGITS && id.starts_with(&self.name))
            }
        }
    }
}

/// A pattern of systemd units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPattern {
    /// As typed.
    pub typed: String,
    glob: Glob,
}

impl UnitPattern {
    /// Reads the name of a unit, or a pattern of names.
    ///
    /// # Errors
    /// There is no name.
    pub(crate) fn new(typed: &str) -> Result<Self, Complaint> {
        if typed.is_empty() {
            return Err("an empty name is no unit: write a name or a pattern".into());
        }
        let is_whole = glob::is_pattern(typed) || KINDS.iter().any(|kind| typed.ends_with(kind));
        let glob = if is_whole { Glob::new(typed) } else { Glob::new(&format!("{typed}{}", KINDS[0])) };
        Ok(Self { typed: typed.into(), glob })
    }

    /// True if the unit matches, or a slice above it. `slice` is the innermost slice.
    pub(crate) fn matches(&self, unit: Option<&str>, slice: Option<&str>) -> bool {
        unit.is_some_and(|unit| self.glob.matches(unit))
            || slice.is_some_and(|slice| slices(slice).any(|slice| self.glob.matches(&slice)))
    }
}

/// A slice and those above it. `a-b.slice` is in `a.slice`, and every slice in `-.slice` (systemd.slice(5)).
fn slices(innermost: &str) -> impl Iterator<Item = String> {
    let above = |slice: &String| {
        let name = slice.strip_suffix(".slice")?;
        match name.rsplit_once('-') {
            _ if name == "-" => None,
            Some((above, _)) if !above.is_empty() => Some(format!("{above}.slice")),
            _ => Some("-.slice".to_owned()),
        }
    };
    std::iter::successors(Some(innermost.to_owned()), above)
}

impl WorkloadFilter {
    /// True if every workload passes, an unknown one too.
    pub const fn is_empty(&self) -> bool {
        self.containers.is_empty() && self.units.is_empty() && self.user_units.is_empty()
    }

    /// True if a workload passes. An unknown workload passes an empty filter only.
    pub fn matches(&self, workload: Option<&Workload>) -> bool {
        if self.is_empty() {
            return true;
        }
        let Some(workload) = workload else { return false };
        let Workload { container, unit, slice, user_unit, user_slice } = workload;
        let one_of = |patterns: &[UnitPattern], unit: &Option<String>, slice: &Option<String>| {
            let matches = |pattern: &UnitPattern| pattern.matches(unit.as_deref(), slice.as_deref());
            patterns.is_empty() || patterns.iter().any(matches)
        };
        let contained =
            |pattern: &ContainerPattern| container.as_ref().is_some_and(|one| pattern.matches(one));
        (self.containers.is_empty() || self.containers.iter().any(contained))
            && one_of(&self.units, unit, slice)
            && one_of(&self.user_units, user_unit, user_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn container(typed: &str) -> WorkloadFilter {
        let user = |name: &str| Ok((name == "ann").then_some(1_000));
        WorkloadFilter {
            containers: vec![ContainerPattern::new(typed, user).unwrap()],
            ..WorkloadFilter::default()
        }
    }

    fn unit(typed: &str) -> WorkloadFilter {
        WorkloadFilter { units: vec![UnitPattern::new(typed).unwrap()], ..WorkloadFilter::default() }
    }

    fn of_container(id: &str, user: Option<u32>, name: Option<&str>) -> Workload {
        let mut container = Container::new(id.into(), user);
        container.names.name = container.names.name.or(name.map(str::to_owned));
        Workload { container: Some(container), ..Workload::default() }
    }

    #[test]
    fn containers_are_chosen_by_id_name_and_pattern() {
        let (docker, lxc) = (of_container(ID, None, None), of_container("web", None, None));
        let named = of_container(ID, None, Some("web"));
        assert!(WorkloadFilter::default().is_empty() && WorkloadFilter::default().matches(None));
        assert!(container("0123").matches(Some(&docker)) && container(ID).matches(Some(&docker)));
        assert!(!container("012").matches(Some(&docker)) && !container("0123").matches(Some(&lxc)));
        assert!(!container("web").matches(Some(&docker)) && container("web").matches(Some(&lxc)));
        assert!(container("web").matches(Some(&named)) && !container("we").matches(Some(&named)));
        assert!(container("we*").matches(Some(&named)) && container("0123*").matches(Some(&docker)));
        assert!(!container("?").matches(Some(&named)) && !container("*").matches(None));
        assert!(!container("*").matches(Some(&Workload::default())));
    }

    #[test]
    fn containers_of_users_are_chosen_with_their_user() {
        let (host, user) = (of_container(ID, None, Some("web")), of_container(ID, Some(1_000), Some("web")));
        for pattern in ["web", "0123", "web*", "*"] {
            let passes = |typed: &str| [&host, &user].map(|one| container(typed).matches(Some(one)));
            assert_eq!(passes(pattern), [true, false], "{pattern}");
            for of in ["@1000", "@ann", "@*"] {
                assert_eq!(passes(&format!("{pattern}{of}")), [false, true], "{pattern}{of}");
            }
            assert_eq!(passes(&format!("{pattern}@7")), [false, false], "{pattern}");
        }
        let error = |typed| ContainerPattern::new(typed, |_| Ok(None)).unwrap_err().to_string();
        assert_eq!(error("web@bob"), r#"there is no user "bob""#);
        assert!(error("").contains("empty") && error("@*").contains("empty"));
    }

    #[test]
    fn units_are_chosen_by_name_pattern_and_slice() {
        let of = |slice: &str, unit: &str| Workload {
            unit: Some(unit.into()),
            slice: Some(slice.into()),
            ..Workload::default()
        };
        let nginx = of("system.slice", "nginx.service");
        let vpn = of("system-openvpn.slice", r"openvpn@site\x2da.service");
        for typed in ["nginx", "nginx.service", "ngin*", "*.service", "system.slice", "sys*", "-.slice"] {
            assert!(unit(typed).matches(Some(&nginx)), "{typed}");
        }
        for typed in ["ngin", "ngin?", "nginx.scope", "system", "user.slice", "system-openvpn.slice"] {
            assert!(!unit(typed).matches(Some(&nginx)), "{typed}");
        }
        for typed in [
            r"openvpn@site\x2da",
            "openvpn@*",
            "system-openvpn.slice",
            "system.slice",
            "-.slice",
            r"*\x2da.service",
        ] {
            assert!(unit(typed).matches(Some(&vpn)), "{typed}");
        }
        assert!(!unit("openvpn@site-a").matches(Some(&vpn)));
        assert!(!unit("nginx").matches(None));
        assert!(UnitPattern::new("").is_err());
        let all: Vec<String> = slices("a-b-c.slice").collect();
        assert_eq!(all, ["a-b-c.slice", "a-b.slice", "a.slice", "-.slice"]);
        assert_eq!(slices("-.slice").collect::<Vec<_>>(), ["-.slice"]);
    }

    #[test]
    fn units_of_users_are_not_units_of_the_host() {
        let users = Workload {
            unit: Some("user@1000.service".into()),
            slice: Some("user-1000.slice".into()),
            user_unit: Some("nginx.service".into()),
            user_slice: Some("app.slice".into()),
            ..Workload::default()
        };
        assert!(!unit("nginx").matches(Some(&users)) && unit("user@*").matches(Some(&users)));
        assert!(unit("user.slice").matches(Some(&users)) && !unit("app.slice").matches(Some(&users)));
        let user_unit = |typed: &str| WorkloadFilter {
            user_units: vec![UnitPattern::new(typed).unwrap()],
            ..WorkloadFilter::default()
        };
        assert!(user_unit("nginx").matches(Some(&users)) && user_unit("app.slice").matches(Some(&users)));
        assert!(!user_unit("user@*").matches(Some(&users)));
        let both = WorkloadFilter { units: unit("user.slice").units, ..user_unit("nginx") };
        let neither = WorkloadFilter { units: unit("system.slice").units, ..user_unit("nginx") };
        assert!(both.matches(Some(&users)) && !neither.matches(Some(&users)));
    }
}
