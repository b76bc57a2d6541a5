//! A kernel's description of its types (BTF), cut to those that conntrace reads: small enough to keep one of
//! each kernel, so that what is found in it is tested without booting that kernel.
//!
//! Documentation/bpf/btf.rst has the format: all of it is words of 32 bits, and strings.

use std::collections::HashMap;

/// The kinds that matter here.
const INT: u32 = 1;
const PTR: u32 = 2;
const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const ENUM: u32 = 6;
const TYPEDEF: u32 = 8;
const VOLATILE: u32 = 9;
const CONST: u32 = 10;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
const TYPE_TAG: u32 = 18;
const ENUM64: u32 = 19;

const MAGIC: u16 = 0xeb9f;
/// Bytes of the header that every kernel has.
const HEADER: u32 = 24;
/// Words of a member: name, type, offset.
const MEMBER: usize = 3;
/// Words of a parameter: name, type.
const PARAMETER: usize = 2;

/// One type, with names as offsets into the strings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Type {
    name: u32,
    /// Kind, number of parts, and a flag.
    info: u32,
    /// A size, or the number of another type.
    refers: u32,
    /// What follows, by the kind.
    parts: Vec<u32>,
}

impl Type {
    fn kind(&self) -> u32 {
        self.info >> 24 & 0x1f
    }

    /// The same with other parts, of `words` words each.
    fn with(&self, parts: Vec<u32>, words: usize) -> Self {
        Self { info: self.info & !0xffff | (parts.len() / words) as u32, parts, ..self.clone() }
    }
}

/// Words of the parts of a type, by its kind and their number.
fn words(kind: u32, count: u32) -> usize {
    let each = |words: u32| (words * count) as usize;
    match kind {
        INT | 14 | 17 => 1,
        ARRAY => 3,
        STRUCT | UNION | 15 | ENUM64 => each(3),
        ENUM | FUNC_PROTO => each(2),
        PTR | 7 | TYPEDEF | VOLATILE | CONST | 11 | FUNC | 16 | TYPE_TAG => 0,
        other => panic!("BTF has a kind {other} that is not known here"),
    }
}

/// Types that refer to each other by number. The first has number 1; 0 is `void`.
#[derive(Debug, Clone)]
pub struct Types {
    types: Vec<Type>,
    strings: Vec<u8>,
}

/// What is kept of a kernel's types.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Members of structures, with dots through nested ones.
    pub fields: Vec<(&'a str, &'a str)>,
    /// Structures of which only the name matters.
    pub structures: Vec<&'a str>,
    /// Functions, with their parameters.
    pub functions: Vec<&'a str>,
}

impl Types {
    /// Reads all of it.
    ///
    /// # Panics
    /// When it is not BTF of this machine's byte order.
    pub fn parse(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        assert_eq!(bytes[..2], MAGIC.to_ne_bytes(), "this is not BTF");
        let [header, type_at, type_len, string_at, string_len] =
            [4, 8, 12, 16, 20].map(|at| word(at) as usize);
        let mut at = header + type_at;
        let end = at + type_len;
        let mut types = Vec::new();
        while at < end {
            let [name, info, refers] = [at, at + 4, at + 8].map(word);
            let count = words(info >> 24 & 0x1f, info & 0xffff);
            at += 12;
            types.push(Type {
                name,
                info,
                refers,
                parts: (0..count).map(|part| word(at + 4 * part)).collect(),
            });
            at += 4 * count;
        }
        let strings = bytes[header + string_at..][..string_len].to_vec();
        Self { types, strings }
    }

    /// As the kernel would hand it out.
    pub fn to_bytes(&self) -> Vec<u8> {
        let words = |of: &Type| [of.name, of.info, of.refers].into_iter().chain(of.parts.clone());
        let types: Vec<u32> = self.types.iter().flat_map(words).collect();
        let (type_len, string_len) = (4 * types.len() as u32, self.strings.len() as u32);
        let mut bytes = MAGIC.to_ne_bytes().to_vec();
        bytes.extend([1, 0]);
        let header = [HEADER, 0, type_len, type_len, string_len];
        bytes.extend(header.into_iter().chain(types).flat_map(u32::to_ne_bytes));
        bytes.extend(&self.strings);
        bytes
    }

    /// Only what is wanted, as far as it is there, with the offsets and sizes that it has here.
    #[must_use]
    pub fn cut(&self, wanted: &Wanted<'_>) -> Self {
        let mut cut =
            Cut { from: self, to: Self { types: Vec::new(), strings: vec![0] }, leaves: HashMap::new() };
        let mut paths: Vec<(&str, Vec<&str>)> =
            wanted.structures.iter().map(|name| (*name, Vec::new())).collect();
        for (structure, path) in &wanted.fields {
            match paths.iter_mut().find(|(name, _)| name == structure) {
                Some((_, known)) => known.push(path),
                None => paths.push((structure, vec![path])),
            }
        }
        for (number, of) in self.numbered() {
            let name = self.name(of.name);
            let (kind, name) = (of.kind(), name.as_str());
            if let Some((_, paths)) = paths.iter().find(|(wanted, _)| kind == STRUCT && *wanted == name) {
                cut.structure(number, paths);
            } else if kind == FUNC && wanted.functions.contains(&name) {
                cut.function(of);
            }
        }
        cut.to
    }

    /// Changes a structure or union, to see what becomes of what is found in it.
    ///
    /// # Panics
    /// When there is none of this name.
    pub fn change_members(&mut self, structure: &str, change: impl Fn(&str, &mut Member) -> bool) {
        let found = |of: &&Type| of.kind() == STRUCT && self.name(of.name) == structure;
        let at = self.types.iter().position(|of| found(&of)).expect("a structure of this name");
        let old = self.types[at].clone();
        let mut parts = Vec::new();
        for member in old.parts.as_chunks::<MEMBER>().0 {
            let [name, of_type, offset] = *member;
            // With the flag, the upper byte of an offset is the width of a bit field.
            let mut changed = Member { bits: offset & 0xff_ffff, width: offset >> 24 };
            if change(&self.name(name), &mut changed) {
                parts.extend([name, of_type, changed.bits | changed.width << 24]);
            }
        }
        self.types[at] = old.with(parts, MEMBER);
        self.types[at].info |= 1 << 31;
    }

    fn get(&self, number: u32) -> &Type {
        &self.types[number as usize - 1]
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, &Type)> {
        (1..).zip(&self.types)
    }

    fn name(&self, at: u32) -> String {
        let rest = &self.strings[at as usize..];
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        String::from_utf8_lossy(&rest[..end]).into_owned()
    }

    fn add(&mut self, of: Type) -> u32 {
        self.types.push(of);
        self.types.len() as u32
    }
}

/// Where a member is, in bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// From the start of the structure.
    pub bits: u32,
    /// Of a bit field; 0 if it is none.
    pub width: u32,
}

/// Some types on their way from one set to another.
struct Cut<'a> {
    from: &'a Types,
    to: Types,
    leaves: HashMap<u32, u32>,
}

impl Cut<'_> {
    fn text(&mut self, at: u32) -> u32 {
        let mut text = self.from.name(at).into_bytes();
        text.push(0);
        // A string of its own, and not the end of another: not every reader knows those.
        let begins = |at: usize| at == 0 || self.to.strings[at - 1] == 0;
        let mut windows = self.to.strings.windows(text.len()).enumerate();
        let known = windows.find(|&(at, window)| window == text && begins(at)).map(|(at, _)| at);
        known.unwrap_or_else(|| {
            self.to.strings.extend(&text);
            self.to.strings.len() - text.len()
        }) as u32
    }

    fn named(&mut self, of: &Type) -> Type {
        Type { name: self.text(of.name), ..of.clone() }
    }

    /// A structure or union with those members that the paths begin with, or what leads to one.
    fn structure(&mut self, number: u32, paths: &[&str]) -> u32 {
        let from = self.from;
        let of = from.get(number);
        if matches!(of.kind(), TYPEDEF | CONST | VOLATILE | TYPE_TAG) {
            let inner = self.structure(of.refers, paths);
            let named = self.named(of);
            return self.to.add(Type { refers: inner, ..named });
        }
        let mut parts = Vec::new();
        for member in of.parts.as_chunks::<MEMBER>().0 {
            let [name, of_type, offset] = *member;
            let text = from.name(name);
            let below: Vec<&str> = if text.is_empty() {
                paths.iter().copied().filter(|path| self.leads(of_type, path)).collect()
            } else {
                paths.iter().filter_map(|path| rest(path, &text)).collect()
            };
            if !below.is_empty() {
                let leaf = below.contains(&"");
                let of_type = if leaf { self.leaf(of_type) } else { self.structure(of_type, &below) };
                parts.extend([self.text(name), of_type, offset]);
            }
        }
        let named = self.named(of);
        self.to.add(named.with(parts, MEMBER))
    }

    /// Whether a path leads into a structure without a name.
    fn leads(&self, number: u32, path: &str) -> bool {
        let of = self.from.get(number);
        matches!(of.kind(), STRUCT | UNION)
            && of.parts.as_chunks::<MEMBER>().0.iter().any(|[name, of_type, _]| {
                let text = self.from.name(*name);
                if text.is_empty() { self.leads(*of_type, path) } else { rest(path, &text).is_some() }
            })
    }

    /// A type of which only the size matters.
    fn leaf(&mut self, number: u32) -> u32 {
        if number == 0 {
            return 0;
        }
        if let Some(known) = self.leaves.get(&number) {
            return *known;
        }
        let from = self.from;
        let mut of = self.named(from.get(number));
        match of.kind() {
            PTR => of.refers = 0,
            ARRAY => {
                let [item, index, count] = of.parts[..] else { panic!("an array has three words") };
                of.parts = vec![self.leaf(item), self.leaf(index), count];
            }
            STRUCT | UNION | ENUM | ENUM64 => of = of.with(Vec::new(), 1),
            TYPEDEF | CONST | VOLATILE | TYPE_TAG => of.refers = self.leaf(of.refers),
            _ => {}
        }
        let new = self.to.add(of);
        self.leaves.insert(number, new);
        new
    }

    /// A function with the names of its parameters; what they are does not matter.
    fn function(&mut self, of: &Type) {
        let from = self.from;
        let prototype = from.get(of.refers);
        let parameters = prototype.parts.as_chunks::<PARAMETER>().0.iter().map(|[name, _]| *name);
        let parts = parameters.flat_map(|name| [self.text(name), 0]).collect();
        let prototype = self.to.add(Type { refers: 0, ..prototype.with(parts, PARAMETER) });
        let named = self.named(of);
        self.to.add(Type { refers: prototype, ..named });
    }
}

/// What comes after this member in a path, if the path goes through it.
fn rest<'a>(path: &'a str, member: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(member)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('.') }
}
