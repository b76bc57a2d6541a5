//! The language of filters: that of ss, with conntrace's fields. `dport = :ssh or not src 10.0.0.0/8`.
//!
//! An expression is a tree of tests. A test is a field with the set of values that pass, so `and`, `or` and `not` of
//! tests of one field are one test again.

mod family;
pub(crate) mod field;
pub(crate) mod host;
pub(crate) mod lexer;
pub(crate) mod parser;
pub(crate) mod predicate;
pub(crate) mod print;
pub(crate) mod state;
pub(crate) mod value;

#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
mod tests;

pub(crate) use self::field::Field;
#[cfg(test)]
pub(crate) use self::parser::parse;
pub(crate) use self::predicate::{Predicate, PredicateKind};
use crate::filter::expression::field::UNKNOWN;
use crate::filter::subject::Subject;
use crate::filter::value::ranges::Ranges;

/// A test: is the value of the field in the set?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// The field.
    pub field: Field,
    /// The values that pass, all of them in the field's domain.
    pub set: Ranges,
}

impl Test {
    /// True if the connection passes.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        let value = self.field.of(subject);
        if self.field == Field::Lifetime
            && value == UNKNOWN
            && let Some(at_least) = subject.event.and_then(|event| event.at_least_ns)
        {
            // The connection is older than conntrace. The test passes if every lifetime that is possible passes.
            let possible = Ranges::between(at_least.into(), self.field.largest());
            let passing = self.set.intersection(&possible);
            return passing == possible || !passing.is_empty() && self.set.contains(UNKNOWN);
        }
        self.set.contains(value)
    }
}

/// A filter as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// One test.
    Test(Test),
    /// One test that no set of numbers can express.
    Predicate(Predicate),
    /// The negation.
    Not(Box<Self>),
    /// All of two or more terms.
    And(Vec<Self>),
    /// At least one of two or more terms.
    Or(Vec<Self>),
}

impl Expression {
    /// A test of a field.
    pub const fn test(field: Field, set: Ranges) -> Self {
        Self::Test(Test { field, set })
    }

    /// The conjunction of any number of terms; `None` for no term.
    pub fn all_of(mut terms: Vec<Self>) -> Option<Self> {
        if terms.len() > 1 { Some(Self::And(terms)) } else { terms.pop() }
    }

    /// The disjunction of any number of terms; `None` for no term.
    pub fn any_of(mut terms: Vec<Self>) -> Option<Self> {
        if terms.len() > 1 { Some(Self::Or(terms)) } else { terms.pop() }
    }

    /// The negation.
    #[must_use]
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// True if the connection passes.
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Test(test) => test.matches(subject),
            Self::Predicate(predicate) => predicate.matches(subject),
            Self::Not(term) => !term.matches(subject),
            Self::And(terms) => terms.iter().all(|term| term.matches(subject)),
            Self::Or(terms) => terms.iter().any(|term| term.matches(subject)),
        }
    }

    /// True if a predicate of this kind is part of the expression.
    pub fn has_predicate(&self, kind: PredicateKind) -> bool {
        match self {
            Self::Test(_) => false,
            Self::Predicate(predicate) => predicate.kind() == kind,
            Self::Not(term) => term.has_predicate(kind),
            Self::And(terms) | Self::Or(terms) => terms.iter().any(|term| term.has_predicate(kind)),
        }
    }

    /// The fields of all tests, with repetitions.
    pub fn fields(&self) -> Vec<Field> {
        match self {
            Self::Test(test) => vec![test.field],
            Self::Predicate(_) => Vec::new(),
            Self::Not(term) => term.fields(),
            Self::And(terms) | Self::Or(terms) => terms.iter().flat_map(Self::fields).collect(),
        }
    }

    /// An equivalent, shorter expression: negations move into the tests, and neighbouring tests of one field merge. Only
    /// predicates keep a negation.
    #[must_use]
    pub fn simplified(self) -> Self {
        self.simplify(false)
    }

    fn simplify(self, negate: bool) -> Self {
        match self {
            Self::Test(Test { field, set }) => {
                Self::test(field, if negate { field.domain().without(&set) } else { set })
            }
            Self::Predicate(_) if negate => self.negated(),
            Self::Predicate(_) => self,
            Self::Not(term) => term.simplify(!negate),
            Self::And(terms) => merge(terms, negate, !negate),
            Self::Or(terms) => merge(terms, negate, negate),
        }
    }
}

/// Simplifies the terms of an `and` or an `or`, and merges them.
fn merge(terms: Vec<Expression>, negate: bool, is_and: bool) -> Expression {
    let mut sets: Vec<(Field, Vec<Ranges>)> = Vec::new();
    let mut rest = Vec::new();
    let mut add = |term: Expression| match term {
        Expression::Test(Test { field, set }) => match sets.iter_mut().find(|(known, _)| *known == field) {
            Some((_, sets)) => sets.push(set),
            None => sets.push((field, vec![set])),
        },
        other => rest.push(other),
    };
    for term in terms {
        match (term.simplify(negate), is_and) {
            (Expression::And(inner), true) | (Expression::Or(inner), false) => {
                inner.into_iter().for_each(&mut add);
            }
            (other, _) => add(other),
        }
    }
    let joined = |(field, sets): (Field, Vec<Ranges>)| {
        let set = if is_and { Ranges::in_all(&sets) } else { Ranges::in_any(&sets) };
        // Every field has at least one set.
        Test { field, set: set.unwrap_or_default() }
    };
    let mut tests: Vec<Test> = sets.into_iter().map(joined).collect();
    // A set that decides alone: an empty one in an `and`, a full one in an `or`.
    let decides = |test: &Test| {
        if is_and { test.set.is_empty() } else { test.set == test.field.domain() }
    };
    if let Some(at) = tests.iter().position(decides) {
        return Expression::Test(tests.swap_remove(at));
    }
    // A set that decides nothing: a full one in an `and`, an empty one in an `or`. If all are idle, one of them
    // stays.
    let is_idle = |test: &Test| {
        if is_and { test.set == test.field.domain() } else { test.set.is_empty() }
    };
    let idle = tests.iter().position(is_idle).map(|at| tests[at].clone());
    tests.retain(|test| !is_idle(test));
    let mut terms: Vec<Expression> = tests.into_iter().map(Expression::Test).collect();
    terms.append(&mut rest);
    if terms.is_empty() {
        terms.extend(idle.map(Expression::Test));
    }
    match terms.len() {
        // At least one term is left, since every `and` and `or` has terms.
        1 => terms.swap_remove(0),
        _ if is_and => Expression::And(terms),
        _ => Expression::Or(terms),
    }
}
