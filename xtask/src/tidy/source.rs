//! Rust files as lists of the paths that they use. The compiler's own tokens are read, not lines: comments and
//! strings hold no paths, and macros hold theirs. Code for tests alone is left out.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr as _;

use anyhow::{Context as _, Result, anyhow};
use proc_macro2::{Delimiter, Group, Spacing, TokenStream, TokenTree};

use super::File;

/// Modules at the top of a crate that belong to no stage: they compose stages, or wrap the errors of all of them.
pub(super) const ROOTS: [&str; 4] = ["lib", "main", "error", "complaint"];

/// One crate: its files without tests.
#[derive(Debug)]
pub(super) struct Crate {
    /// The crate's folder.
    pub(super) name: &'static str,
    pub(super) sources: Vec<Source>,
}

/// One file.
#[derive(Debug)]
pub(super) struct Source {
    /// Relative to the top of the checkout.
    pub(super) path: String,
    /// The first module below the crate's root, or one of [`ROOTS`].
    pub(super) top: String,
    /// Whether the first module is a folder.
    pub(super) is_in_folder: bool,
    pub(super) uses: Vec<Use>,
}

/// One path that a file uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Use {
    /// Counted from 1.
    pub(super) line: usize,
    /// A path of this crate begins with `crate`; a macro ends with `!`.
    pub(super) path: Vec<String>,
}

impl Use {
    /// The module of the crate's root that the path enters.
    pub(super) fn top(&self) -> Option<&str> {
        match &self.path[..] {
            [root, top, ..] if root == "crate" => Some(top),
            _ => None,
        }
    }
}

impl Crate {
    /// Reads the crate's files below `src`, except further binaries.
    pub(super) fn new(name: &'static str, files: &[File]) -> Result<Self> {
        let source_folder = format!("{name}/src/");
        let own = files.iter().filter_map(|file| {
            let inside = file.path.strip_prefix(&source_folder)?.strip_suffix(".rs")?;
            (!inside.starts_with("bin/")).then_some((file, inside))
        });
        let (mut sources, mut tests) = (Vec::new(), BTreeSet::new());
        for (file, inside) in own {
            let mut parts: Vec<String> = inside.split('/').map(str::to_owned).collect();
            let is_in_folder = parts.len() > 1;
            let top = parts[0].clone();
            let is_root = !is_in_folder && (top == "lib" || top == "main");
            let folder = match parts.last().map(String::as_str) {
                Some("mod") => inside.trim_end_matches("mod").to_owned(),
                _ if is_root => String::new(),
                _ => format!("{inside}/"),
            };
            if is_root || parts.last().is_some_and(|last| last == "mod") {
                parts.pop();
            }
            let tokens = TokenStream::from_str(&file.text)
                .map_err(|error| anyhow!("{error}"))
                .with_context(|| format!("{} is no Rust", file.path))?;
            let mut reader = Reader::default();
            reader.items(tokens, &parts);
            tests.extend(reader.test_files.iter().map(|module| format!("{source_folder}{folder}{module}")));
            sources.push(Source { path: file.path.clone(), top, is_in_folder, uses: reader.uses });
        }
        sources.retain(|source| !tests.iter().any(|test| is_module_file(&source.path, test)));
        resolve_reexports(&mut sources);
        Ok(Self { name, sources })
    }
}

/// Whether the file holds the module, or a module below it.
fn is_module_file(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
}

/// Replaces names that the crate's root exports again by what they stand for.
fn resolve_reexports(sources: &mut [Source]) {
    let tops: BTreeSet<String> = sources.iter().map(|source| source.top.clone()).collect();
    let mut exports = BTreeMap::new();
    for source in sources.iter().filter(|source| source.top == "lib") {
        for used in &source.uses {
            let path = if used.top().is_some() { &used.path[1..] } else { &used.path[..] };
            if let [top, .., name] = path
                && tops.contains(top)
                && !tops.contains(name)
            {
                exports.insert(name.clone(), top.clone());
            }
        }
    }
    for used in sources.iter_mut().flat_map(|source| &mut source.uses) {
        if let Some(top) = used.top().and_then(|name| exports.get(name)) {
            used.path.insert(1, top.clone());
        }
    }
}

/// Gathers the paths of one file.
#[derive(Debug, Default)]
struct Reader {
    uses: Vec<Use>,
    /// Names of modules that are compiled for tests only and have a file of their own.
    test_files: Vec<String>,
}

impl Reader {
    /// Reads tokens of the module `module`.
    fn items(&mut self, tokens: TokenStream, module: &[String]) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = self.next(&tokens, at, module);
        }
    }

    /// Reads what begins at `at`; gives the index behind it.
    fn next(&mut self, tokens: &[TokenTree], at: usize, module: &[String]) -> usize {
        match &tokens[at] {
            TokenTree::Punct(punct) if punct.as_char() == '#' => match tokens.get(at + 1) {
                Some(TokenTree::Group(attribute)) if is_for_tests(attribute) => {
                    self.skip_item(tokens, at + 2)
                }
                Some(TokenTree::Group(attribute)) if attribute.delimiter() == Delimiter::Bracket => at + 2,
                _ => at + 1,
            },
            TokenTree::Ident(word) if *word == "use" => self.import(tokens, at + 1, module),
            TokenTree::Ident(word) if *word == "mod" => match (tokens.get(at + 1), tokens.get(at + 2)) {
                (Some(TokenTree::Ident(name)), Some(TokenTree::Group(body))) => {
                    let inner = [module, &[name.to_string()]].concat();
                    self.items(body.stream(), &inner);
                    at + 3
                }
                _ => at + 2,
            },
            TokenTree::Ident(_) => self.path(tokens, at, module),
            TokenTree::Group(group) => {
                self.items(group.stream(), module);
                at + 1
            }
            _ => at + 1,
        }
    }

    /// Reads a path outside of imports.
    fn path(&mut self, tokens: &[TokenTree], mut at: usize, module: &[String]) -> usize {
        let line = tokens[at].span().start().line;
        let mut path = vec![tokens[at].to_string()];
        at += 1;
        while is_colons(tokens, at)
            && let Some(TokenTree::Ident(word)) = tokens.get(at + 2)
        {
            path.push(word.to_string());
            at += 3;
        }
        let is_macro = matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == '!')
            && matches!(tokens.get(at + 1), Some(TokenTree::Group(_)));
        if is_macro && let Some(last) = path.last_mut() {
            last.push('!');
        }
        self.keep(line, path, module);
        at
    }

    /// Reads the tree of a `use`, up to its semicolon.
    fn import(&mut self, tokens: &[TokenTree], at: usize, module: &[String]) -> usize {
        let end = tokens[at..].iter().position(is_semicolon).map_or(tokens.len(), |length| at + length);
        self.tree(&tokens[at..end], &[], module);
        end + 1
    }

    /// Reads one tree below `prefix`.
    fn tree(&mut self, tokens: &[TokenTree], prefix: &[String], module: &[String]) {
        let mut path = prefix.to_vec();
        let Some(line) = tokens.first().map(|token| token.span().start().line) else { return };
        for token in tokens {
            match token {
                TokenTree::Ident(word) if *word == "as" => break,
                TokenTree::Ident(word) if *word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Group(group) => {
                    let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                    for part in inner.split(is_comma) {
                        self.tree(part, &path, module);
                    }
                    return;
                }
                _ => {}
            }
        }
        self.keep(line, path, module);
    }

    /// Keeps a path, from the crate's root if the crate owns it.
    fn keep(&mut self, line: usize, path: Vec<String>, module: &[String]) {
        let ups = path.iter().take_while(|word| *word == "super").count();
        let path = match path.first().map(String::as_str) {
            Some("self") => absolute(module, &path[1..]),
            Some("super") => absolute(&module[..module.len().saturating_sub(ups)], &path[ups..]),
            _ => path,
        };
        if path.len() > 1 || path.iter().any(|word| word.ends_with('!')) {
            self.uses.push(Use { line, path });
        }
    }

    /// Steps over the item that an attribute stands before.
    fn skip_item(&mut self, tokens: &[TokenTree], mut at: usize) -> usize {
        let mut is_statement = false;
        let mut module = None;
        while let Some(token) = tokens.get(at) {
            match token {
                TokenTree::Punct(punct) if punct.as_char() == ';' || punct.as_char() == ',' => {
                    if punct.as_char() == ';' {
                        self.test_files.extend(module);
                    }
                    return at + 1;
                }
                TokenTree::Ident(word)
                    if ["use", "const", "static", "type"].iter().any(|one| word == one) =>
                {
                    // `const fn` has a body and no semicolon.
                    is_statement =
                        !matches!(tokens.get(at + 1), Some(TokenTree::Ident(next)) if *next == "fn");
                }
                TokenTree::Ident(word) if *word == "mod" => {
                    module = tokens.get(at + 1).map(ToString::to_string);
                }
                TokenTree::Group(body) if body.delimiter() == Delimiter::Brace && !is_statement => {
                    return at + 1;
                }
                _ => {}
            }
            at += 1;
        }
        at
    }
}

fn absolute(module: &[String], rest: &[String]) -> Vec<String> {
    [&["crate".to_owned()], module, rest].concat()
}

/// Whether an attribute compiles its item for tests only.
fn is_for_tests(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    attribute.delimiter() == Delimiter::Bracket
        && (text == "test" || text == "cfg(test)" || text.starts_with("cfg(all(test,"))
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |token: Option<&TokenTree>, spacing: Option<Spacing>| {
        matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == ':'
            && spacing.is_none_or(|spacing| punct.spacing() == spacing))
    };
    colon(tokens.get(at), Some(Spacing::Joint)) && colon(tokens.get(at + 1), None)
}

fn is_semicolon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ';')
}

fn is_comma(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ',')
}

/// A crate of made-up files, for tests of what is checked.
#[cfg(test)]
pub(super) fn made_up(name: &'static str, files: &[(&str, &str)]) -> Crate {
    let files: Vec<File> = files
        .iter()
        .map(|(path, text)| File { path: format!("{name}/src/{path}"), text: (*text).to_owned() })
        .collect();
    Crate::new(name, &files).expect("Rust")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The paths of a file, each with its line.
    fn paths(path: &str, text: &str) -> Vec<(usize, String)> {
        let of = made_up("conn-user", &[(path, text)]);
        of.sources[0].uses.iter().map(|used| (used.line, used.path.join("::"))).collect()
    }

    #[test]
    fn imports_are_expanded() {
        let found = paths("a/b.rs", "use crate::x::{self, y::Z as W,\n  q::*};\npub use std::io;");
        let expected = [(1, "crate::x"), (1, "crate::x::y::Z"), (2, "crate::x::q"), (3, "std::io")];
        assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
    }

    #[test]
    fn paths_in_code_and_macros_are_found() {
        let code = "fn f() -> crate::a::B { println!(\"{}\", crate::c::d::<u8>()); x.crate_y }";
        let found: Vec<String> = paths("x/mod.rs", code).into_iter().map(|(_, path)| path).collect();
        assert_eq!(found, ["crate::a::B", "println!", "crate::c::d"]);
    }

    #[test]
    fn relative_paths_begin_at_the_root() {
        let of = |path, code| paths(path, code).into_iter().map(|(_, path)| path).collect::<Vec<_>>();
        assert_eq!(
            of("a/b.rs", "use super::c; use super::super::d::E; use self::f::G;"),
            ["crate::a::c", "crate::d::E", "crate::a::b::f::G"]
        );
        assert_eq!(of("a/mod.rs", "mod inner { use super::c::D; }"), ["crate::a::c::D"]);
        assert_eq!(of("a/mod.rs", "use super::c::D;"), ["crate::c::D"]);
    }

    #[test]
    fn comments_and_strings_hold_no_paths() {
        assert_eq!(paths("a/b.rs", "/// crate::x::Y\n// use aya::Z;\nconst A: &str = \"crate::q::R\";"), []);
    }

    #[test]
    fn code_for_tests_is_left_out() {
        let code = "#[cfg(test)]\nuse crate::a::{B};\n#[cfg(test)] const C: u8 = crate::c::D {};\n\
                    #[cfg(test)]\npub(crate) mod tests { use crate::e::F; }\n\
                    #[cfg(test)]\nconst fn g() { crate::g::H }\nuse crate::i::J;";
        assert_eq!(paths("a/b.rs", code), [(8, "crate::i::J".to_owned())]);
    }

    #[test]
    fn files_for_tests_are_left_out() {
        let files = [
            ("a/mod.rs", "#[cfg(test)]\nmod tests;\nmod c;"),
            ("a/tests.rs", ""),
            ("a/tests/more.rs", ""),
            ("a/c.rs", "#[cfg(test)] mod random;"),
            ("a/c/random.rs", ""),
            ("a/random.rs", ""),
        ];
        let of = made_up("conn-user", &files);
        let left: Vec<&str> = of.sources.iter().map(|source| source.path.as_str()).collect();
        assert_eq!(left, ["conn-user/src/a/mod.rs", "conn-user/src/a/c.rs", "conn-user/src/a/random.rs"]);
    }

    #[test]
    fn a_name_of_the_root_is_resolved() {
        let of = made_up(
            "conn-user",
            &[
                ("lib.rs", "pub mod error; pub use error::Error;"),
                ("error.rs", ""),
                ("a/mod.rs", "use crate::Error;"),
            ],
        );
        assert_eq!(of.sources[2].uses[0].path, ["crate", "error", "Error"]);
    }
}
