//! Patterns of names, as fnmatch(3) with `FNM_NOESCAPE`, which systemctl uses: `*`, `?`, `[a-z]`, `[!a-z]`.

use std::iter::Peekable;
use std::str::Chars;

/// A pattern that a whole name must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Vec<Item>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    /// This character.
    Char(char),
    /// Any character.
    Any,
    /// Any number of characters.
    Many,
    /// A character in one of the ranges, or in none of them.
    Set { excludes: bool, ranges: Vec<(char, char)> },
}

impl Item {
    /// True if one character matches.
    fn admits(&self, c: char) -> bool {
        match self {
            Self::Char(own) => *own == c,
            Self::Any => true,
            Self::Many => false,
            Self::Set { excludes, ranges } => {
                ranges.iter().any(|&(first, last)| (first..=last).contains(&c)) != *excludes
            }
        }
    }
}

/// True if a text is a pattern and no plain name.
pub(crate) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

impl Glob {
    /// Reads a pattern. A `[` without `]` stands for itself.
    pub(crate) fn new(text: &str) -> Self {
        let mut items = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(c) = rest.next() {
            items.push(match c {
                '*' => Item::Many,
                '?' => Item::Any,
                '[' => {
                    let mut ahead = rest.clone();
                    match set(&mut ahead) {
                        Some(set) => {
                            rest = ahead;
                            set
                        }
                        None => Item::Char('['),
                    }
                }
                c => Item::Char(c),
            });
        }
        Self(items)
    }

    /// True if the whole name matches.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let (mut at, mut rest) = (0, name.chars());
        // The item after the last `*`, and what follows the characters that the `*` has taken.
        let mut star: Option<(usize, Chars<'_>)> = None;
        loop {
            let mut ahead = rest.clone();
            match (self.0.get(at), ahead.next()) {
                (Some(Item::Many), _) => {
                    at += 1;
                    star = Some((at, rest.clone()));
                    continue;
                }
                (Some(item), Some(c)) if item.admits(c) => {
                    at += 1;
                    rest = ahead;
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            // The `*` takes one more character.
            let Some((after, taken)) = &mut star else { return false };
            if taken.next().is_none() {
                return false;
            }
            (at, rest) = (*after, taken.clone());
        }
    }
}

/// A set behind its `[`. `None` if no `]` ends it.
fn set(rest: &mut Peekable<Chars<'_>>) -> Option<Item> {
    let excludes = rest.next_if(|&c| c == '!' || c == '^').is_some();
    let mut ranges = Vec::new();
    loop {
        let first = rest.next()?;
        // A `]` at the beginning is a member.
        if first == ']' && !ranges.is_empty() {
            return Some(Item::Set { excludes, ranges });
        }
        let mut ahead = rest.clone();
        let last = ahead.next_if_eq(&'-').and_then(|_| ahead.next()).filter(|&last| last != ']');
        if last.is_some() {
            *rest = ahead;
        }
        ranges.push((first, last.unwrap_or(first)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch() {
        for (pattern, matching, others) in [
            ("ssh", &["ssh"][..], &["", "sshd", "xssh", "SSH"][..]),
            ("ssh*", &["ssh", "sshd.service"], &["xssh", "ss"]),
            ("*.service", &["a.service", ".service", "a.b.service"], &["a.scope", "service"]),
            ("a*b*c", &["abc", "aXbXbXc", "abcbc"], &["ab", "acb", "abcd"]),
            ("*", &["", "ä"], &[]),
            ("??", &["ab", "äö"], &["a", "abc"]),
            ("[a-c]1", &["a1", "c1"], &["d1", "-1", "1"]),
            ("[!a-c]1", &["d1", "é1"], &["a1", "1"]),
            ("[^a]", &["b"], &["a"]),
            ("[]-]x", &["]x", "-x"], &["ax"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[abc", &["[abc"], &["a"]),
            ("[", &["["], &[]),
            (r"openvpn@site\x2da.service", &[r"openvpn@site\x2da.service"], &["openvpn@site-a.service"]),
            (r"openvpn@*\x2d?.service", &[r"openvpn@site\x2da.service"], &[r"openvpn@site\x2da"]),
        ] {
            let glob = Glob::new(pattern);
            assert!(matching.iter().all(|name| glob.matches(name)), "{pattern}");
            assert!(!others.iter().any(|name| glob.matches(name)), "{pattern}");
        }
    }

    #[test]
    fn plain_names_are_no_patterns() {
        assert!(["a*", "?", "a[b"].iter().all(|text| is_pattern(text)));
        assert!(["", "ssh.service", r"a\x2db@"].iter().all(|text| !is_pattern(text)));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        assert!(!Glob::new(&"*a".repeat(30)).matches(&"a".repeat(29)));
        assert!(Glob::new(&"*a".repeat(30)).matches(&"a".repeat(3_000)));
        assert!(!Glob::new(&format!("{}b", "*a".repeat(30))).matches(&"a".repeat(3_000)));
    }
}
