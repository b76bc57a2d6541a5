//! The language of filters: ss's, with conntrace's words. `dport = :ssh or not src 10.0.0.0/8`.
//!
//! An expression is a tree of tests, and a test is a field with the set of values that pass. So everything
//! that is asked about one field, whatever `and`, `or` and `not` are between, is one set again.

pub mod field;
pub mod lexer;
pub mod parser;
pub mod print;
pub mod state;
pub mod value;

#[cfg(test)]
pub(crate) mod random;
#[cfg(test)]
mod tests;

use conn_common::connection::Connection;

pub use self::field::Field;
pub use self::parser::parse;
use crate::filter::value::ranges::Ranges;

/// One question: is the value of the field in the set?
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Test {
    /// What is asked for.
    pub field: Field,
    /// What passes: values of the field's domain only.
    pub set: Ranges,
}

impl Test {
    /// True if the connection passes.
    pub fn matches(&self, connection: &Connection) -> bool {
        self.set.contains(self.field.of(connection))
    }
}

/// A filter as it was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    /// One question.
    Test(Test),
    /// The opposite.
    Not(Box<Self>),
    /// All of these, two or more.
    And(Vec<Self>),
    /// At least one of these, two or more.
    Or(Vec<Self>),
}

impl Expression {
    /// A test of a field.
    pub const fn test(field: Field, set: Ranges) -> Self {
        Self::Test(Test { field, set })
    }

    /// All of these, however many; `None` for none.
    pub fn all_of(mut terms: Vec<Self>) -> Option<Self> {
        if terms.len() > 1 { Some(Self::And(terms)) } else { terms.pop() }
    }

    /// One of these, however many; `None` for none.
    pub fn any_of(mut terms: Vec<Self>) -> Option<Self> {
        if terms.len() > 1 { Some(Self::Or(terms)) } else { terms.pop() }
    }

    /// The opposite.
    #[must_use]
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }

    /// True if the connection passes.
    pub fn matches(&self, connection: &Connection) -> bool {
        match self {
            Self::Test(test) => test.matches(connection),
            Self::Not(term) => !term.matches(connection),
            Self::And(terms) => terms.iter().all(|term| term.matches(connection)),
            Self::Or(terms) => terms.iter().any(|term| term.matches(connection)),
        }
    }

    /// The fields that it asks for, each as often as it is asked for.
    pub fn fields(&self) -> Vec<Field> {
        match self {
            Self::Test(test) => vec![test.field],
            Self::Not(term) => term.fields(),
            Self::And(terms) | Self::Or(terms) => terms.iter().flat_map(Self::fields).collect(),
        }
    }

    /// The same in fewer words: negations reach the tests, and tests of one field that stand beside each
    /// other become one.
    #[must_use]
    pub fn simplified(self) -> Self {
        self.simplify(false)
    }

    fn simplify(self, negate: bool) -> Self {
        match self {
            Self::Test(Test { field, set }) => {
                Self::test(field, if negate { field.domain().without(&set) } else { set })
            }
            Self::Not(term) => term.simplify(!negate),
            Self::And(terms) => merge(terms, negate, !negate),
            Self::Or(terms) => merge(terms, negate, negate),
        }
    }
}

/// Simplifies the terms of an `and` (or of an `or`) and joins them.
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
        // There is at least one.
        Test { field, set: set.unwrap_or_default() }
    };
    let mut tests: Vec<Test> = sets.into_iter().map(joined).collect();
    // The set that decides alone: nothing passes an empty one in an `and`, everything a full one in an `or`.
    let decides = |test: &Test| {
        if is_and { test.set.is_empty() } else { test.set == test.field.domain() }
    };
    if let Some(at) = tests.iter().position(decides) {
        return Expression::Test(tests.swap_remove(at));
    }
    // And the one that decides nothing; one stays, so that something is said.
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
        // An `and` of no terms does not exist, so there is at least one.
        1 => terms.swap_remove(0),
        _ if is_and => Expression::And(terms),
        _ => Expression::Or(terms),
    }
}
