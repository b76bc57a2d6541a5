//! From tokens to an expression. `or` binds least, then `and`, which is optional, then `not`.

use crate::complaint::{Complaint, as_typed, complaint};
use crate::filter::expression::lexer::{Comparison, Span, Token, TokenKind, tokens};
use crate::filter::expression::{Expression, Field, PredicateKind, Test, family, value};
use crate::filter::syntax_error::SyntaxError;
use crate::filter::value::prefix;
use crate::filter::value::ranges::Ranges;
use crate::host::lookup::Lookup;

/// The deepest nesting of parentheses and `not`.
const DEPTH: usize = 100;

/// For messages.
const TEST_MISSING: &str = "a test is missing here: write one like service = :22 or client 10.0.0.0/8";

/// Words of ss and conntrack for fields that conntrace does not have, and why.
const REFUSED: [(&str, &str); 5] = [
    ("ct", "connection tracking is not used: ask for state"),
    ("expect", "expectations are a table of connection tracking: conntrace has connections only"),
    ("dying", "it is a table of connection tracking: conntrace has connections only"),
    ("unconfirmed", "it is a table of connection tracking: conntrace has connections only"),
    ("conntrack", "it is a table of connection tracking, and meant anyway: leave it out"),
];

/// An expression, and whether ss reads it in the same way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    /// The expression, by the rules of the manual of ss.
    pub expression: Expression,
    /// `and` follows `or` without parentheses. Against its manual, ss as of 6.18 takes both from left to right.
    pub mixes: bool,
}

/// Parses an expression.
///
/// # Errors
/// The first mistake and its position.
#[cfg(test)]
pub(crate) fn parse(text: &str, lookup: &dyn Lookup) -> Result<Expression, SyntaxError> {
    parse_all(text, lookup).map(|parsed| parsed.expression)
}

/// Parses an expression, and notes what ss reads in another way.
///
/// # Errors
/// The first mistake and its position.
pub(crate) fn parse_all(text: &str, lookup: &dyn Lookup) -> Result<Parsed, SyntaxError> {
    let tokens = tokens(text)?;
    let end = text.trim_end().len();
    let mut parser = Parser { tokens: &tokens, next: 0, depth: 0, end, mixes: false, lookup };
    let expression = parser.whole()?;
    match parser.peek() {
        None => {
            let terms = family::of_all(&tokens).into_iter().chain([expression]).collect();
            Ok(Parsed { expression: join(terms, Expression::And), mixes: parser.mixes })
        }
        Some(Token { kind: TokenKind::Close, span }) => {
            Err(SyntaxError::new(span.start, 1, "this ) closes nothing: take it out, or write the ( before"))
        }
        Some(token) => Err(Parser::unexpected(token)),
    }
}

/// True if a word begins an expression, and is not the name of a command.
pub(crate) fn begins(word: &str) -> bool {
    let Ok(tokens) = tokens(word) else { return true };
    match tokens.first().map(|token| &token.kind) {
        Some(TokenKind::Word(first)) => tokens.len() > 1 || is_field(first),
        Some(_) => true,
        None => word.is_empty() || word.trim() != word,
    }
}

fn is_field(word: &str) -> bool {
    let word = word.to_ascii_lowercase();
    Field::by_word(&word).is_some()
        || PredicateKind::by_word(&word).is_some()
        || ["exclude", "excl", "autobound"].contains(&word.as_str())
        || REFUSED.iter().any(|(refused, _)| *refused == word)
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    depth: usize,
    /// The position of what is missing at the end.
    end: usize,
    mixes: bool,
    lookup: &'a dyn Lookup,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.next)
    }

    fn take(&mut self) -> Option<&'a Token> {
        let token = self.peek();
        self.next += 1;
        token
    }

    fn takes(&mut self, kind: &TokenKind) -> bool {
        let found = self.peek().is_some_and(|token| token.kind == *kind);
        self.next += usize::from(found);
        found
    }

    fn unexpected(token: &Token) -> SyntaxError {
        let Span { start, end } = token.span;
        SyntaxError::new(start, end - start, TEST_MISSING)
    }

    fn missing(&self, what: impl Into<Complaint>) -> SyntaxError {
        match self.peek() {
            Some(token) => SyntaxError::new(token.span.start, token.span.end - token.span.start, what),
            None => SyntaxError::new(self.end, 0, what),
        }
    }

    /// The whole expression. As in ss, states at the beginning stand apart: they hold together with all that follows, unless
    /// an operator follows them.
    fn whole(&mut self) -> Result<Expression, SyntaxError> {
        let Some(states) = self.states()? else { return self.either() };
        match self.peek().map(|token| &token.kind) {
            None => Ok(states),
            Some(TokenKind::And | TokenKind::Or) => {
                self.next = 0;
                self.either()
            }
            Some(_) => Ok(Expression::And(vec![states, self.either()?])),
        }
    }

    /// A row of `state` and `exclude` without operators between them; `None` if there is none here. No connection has two
    /// states, so `state` adds states, and `exclude` takes states away.
    fn states(&mut self) -> Result<Option<Expression>, SyntaxError> {
        let mut states: Option<Ranges> = None;
        while self.at_state() {
            let excludes = self.at_word(&["exclude", "excl"]);
            let Expression::Test(Test { set, .. }) = self.test()? else { break };
            states = Some(match states {
                None => set,
                Some(before) if excludes => before.intersection(&set),
                Some(before) => before.union(&set),
            });
        }
        Ok(states.map(|states| Expression::test(Field::State, states)))
    }

    fn either(&mut self) -> Result<Expression, SyntaxError> {
        let mut terms = vec![self.all()?.0];
        while self.takes(&TokenKind::Or) {
            let (term, joins) = self.all()?;
            self.mixes |= joins;
            terms.push(term);
        }
        Ok(join(terms, Expression::Or))
    }

    /// Terms that all must hold, and true if there are several.
    fn all(&mut self) -> Result<(Expression, bool), SyntaxError> {
        let mut terms = vec![self.term()?];
        loop {
            let joined = self.takes(&TokenKind::And);
            if !joined && !self.at_term() {
                let joins = terms.len() > 1;
                return Ok((join(terms, Expression::And), joins));
            }
            terms.push(self.term()?);
        }
    }

    /// True if a term begins here.
    fn at_term(&self) -> bool {
        self.peek().is_some_and(|token| {
            matches!(token.kind, TokenKind::Word(_) | TokenKind::Quoted(_) | TokenKind::Not | TokenKind::Open)
        })
    }

    /// True if the next token is one of these words.
    fn at_word(&self, words: &[&str]) -> bool {
        let is_one = |word: &String| words.iter().any(|one| word.eq_ignore_ascii_case(one));
        self.peek().is_some_and(|token| matches!(&token.kind, TokenKind::Word(word) if is_one(word)))
    }

    /// True if a plain `state` or `exclude` begins here, without `!=`.
    fn at_state(&self) -> bool {
        let unequal = TokenKind::Compare(Comparison::Unequal);
        self.at_word(&["state", "exclude", "excl"])
            && self.tokens.get(self.next + 1).is_none_or(|token| token.kind != unequal)
    }

    fn term(&mut self) -> Result<Expression, SyntaxError> {
        if let Some(states) = self.states()? {
            return Ok(states);
        }
        let Some(token) = self.peek() else {
            return Err(self.missing(TEST_MISSING));
        };
        if !matches!(token.kind, TokenKind::Not | TokenKind::Open) {
            return self.test();
        }
        self.next += 1;
        self.depth += 1;
        if self.depth > DEPTH {
            let Span { start, end } = token.span;
            return Err(SyntaxError::new(
                start,
                end - start,
                complaint!("this nests deeper than {DEPTH}: write it flatter"),
            ));
        }
        let term = if token.kind == TokenKind::Not {
            self.term()?.negated()
        } else {
            let inner = self.either()?;
            if !self.takes(&TokenKind::Close) {
                return Err(match self.peek() {
                    Some(token) => Self::unexpected(token),
                    None => {
                        SyntaxError::new(token.span.start, 1, "this ( is never closed: write the ) behind it")
                    }
                });
            }
            inner
        };
        self.depth -= 1;
        Ok(term)
    }

    fn test(&mut self) -> Result<Expression, SyntaxError> {
        if let Some(TokenKind::Word(word)) = self.peek().map(|token| &token.kind) {
            let word = word.to_ascii_lowercase();
            if word == "autobound" {
                self.next += 1;
                return Ok(value::autobound(self.lookup));
            }
            if word == Field::Failed.word() {
                self.next += 1;
                return Ok(Expression::test(Field::Failed, Ranges::one(1)));
            }
            if let Some(kind) = PredicateKind::by_word(&word) {
                self.next += 1;
                return self.predicate(kind);
            }
        }
        let (field, negate) = self.field()?;
        let comparison = match self.peek() {
            Some(Token { kind: TokenKind::Compare(comparison), span }) => {
                self.next += 1;
                let is_order = !matches!(comparison, Comparison::Equal | Comparison::Unequal);
                if is_order && !field.is_ordered() {
                    let complaint = complaint!("{} has no order: use = or !=", field.word());
                    return Err(SyntaxError::new(span.start, span.end - span.start, complaint));
                }
                *comparison
            }
            _ => Comparison::Equal,
        };
        let term = self.value(field, comparison)?;
        Ok(if negate { opposite(term) } else { term })
    }

    /// The test of a predicate behind its word.
    fn predicate(&mut self, kind: PredicateKind) -> Result<Expression, SyntaxError> {
        let comparison = match self.peek() {
            Some(Token { kind: TokenKind::Compare(comparison), .. }) => *comparison,
            _ => Comparison::Equal,
        };
        if let Some(Token { kind: TokenKind::Compare(_), span }) = self.peek() {
            if !matches!(comparison, Comparison::Equal | Comparison::Unequal) {
                let complaint = complaint!("{} has no order: use = or !=", kind.word());
                return Err(SyntaxError::new(span.start, span.end - span.start, complaint));
            }
            self.next += 1;
        }
        let missing = complaint!("a value is missing behind {}: {}", kind.word(), value::predicate_how(kind));
        let Some(token) = self.peek() else { return Err(self.missing(missing)) };
        let start = token.span.start;
        let (text, quoted) = match &token.kind {
            TokenKind::Word(text) => (text, false),
            TokenKind::Quoted(text) => (text, true),
            _ => return Err(self.missing(missing)),
        };
        let expression = value::predicate(kind, text, quoted, self.lookup)
            .map_err(|error| SyntaxError::new(start + error.at, error.len, error.complaint))?;
        self.next += 1;
        Ok(if comparison == Comparison::Unequal { opposite(expression) } else { expression })
    }

    /// The field of a test, and true if `exclude` negates the test.
    fn field(&mut self) -> Result<(Field, bool), SyntaxError> {
        let Some(token) = self.take() else { return Err(self.missing("a test is missing here")) };
        let Span { start, end } = token.span;
        let wrong = |complaint: Complaint| SyntaxError::new(start, end - start, complaint);
        let word = match &token.kind {
            TokenKind::Word(word) => word.to_ascii_lowercase(),
            _ => return Err(Self::unexpected(token)),
        };
        if word == "exclude" || word == "excl" {
            return Ok((Field::State, true));
        }
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == word) {
            return Err(wrong(complaint!("{word} cannot be asked for: {why}")));
        }
        Field::by_word(&word).map(|field| (field, false)).ok_or_else(|| {
            let words =
                Field::ALL.map(Field::word).into_iter().chain(PredicateKind::ALL.map(PredicateKind::word));
            let words = words.collect::<Vec<_>>().join(", ");
            // The word as typed, not in lower case.
            let TokenKind::Word(typed) = &token.kind else { return Self::unexpected(token) };
            if typed.contains(['.', ':']) && prefix::parse(typed).is_ok() {
                return wrong(complaint!("{typed} stands alone: write src, dst, client or server before it"));
            }
            wrong(complaint!("{} cannot be asked for: use {words}", as_typed(typed)))
        })
    }

    fn value(&mut self, field: Field, comparison: Comparison) -> Result<Expression, SyntaxError> {
        let missing = complaint!("a value is missing behind {}: {}", field.word(), value::how(field));
        let Some(token) = self.peek() else { return Err(self.missing(missing)) };
        let Span { start, end } = token.span;
        let wrong = |complaint: Complaint| SyntaxError::new(start, end - start, complaint);
        let expression = match (&token.kind, comparison) {
            (TokenKind::Word(word), Comparison::Equal | Comparison::Unequal) => {
                value::expression(field, word, self.lookup)
                    .map_err(|error| SyntaxError::new(start + error.at, error.len, error.complaint))?
            }
            (TokenKind::Quoted(text), Comparison::Equal | Comparison::Unequal) => {
                Expression::test(field, value::quoted(field, text, self.lookup).map_err(wrong)?)
            }
            (TokenKind::Word(text) | TokenKind::Quoted(text), _) => {
                let (family, text) =
                    if field.is_port() { family::split(text).map_err(wrong)? } else { (None, text.as_str()) };
                let limit = value::limit(field, text, self.lookup).map_err(wrong)?;
                let terms =
                    family.into_iter().chain([Expression::test(field, beyond(field, comparison, limit))]);
                join(terms.collect(), Expression::And)
            }
            (TokenKind::Not, _) => {
                return Err(SyntaxError::new(
                    start,
                    end - start,
                    complaint!("write {} != ... for this", field.word()),
                ));
            }
            _ => return Err(self.missing(missing)),
        };
        self.next += 1;
        Ok(if comparison == Comparison::Unequal { opposite(expression) } else { expression })
    }
}

fn join(mut terms: Vec<Expression>, how: impl FnOnce(Vec<Expression>) -> Expression) -> Expression {
    if terms.len() == 1 { terms.swap_remove(0) } else { how(terms) }
}

/// The negation; of a test, one test.
fn opposite(term: Expression) -> Expression {
    match term {
        Expression::Test(Test { field, set }) => Expression::test(field, field.domain().without(&set)),
        other => other.negated(),
    }
}

/// The known values on one side of a limit. An unknown owner is on neither side.
fn beyond(field: Field, comparison: Comparison, limit: u128) -> Ranges {
    let below = limit.checked_sub(1).map_or(Ranges::EMPTY, |end| Ranges::between(0, end));
    let known = Ranges::between(0, field.largest());
    let one = Ranges::one(limit);
    match comparison {
        Comparison::Less => below,
        Comparison::AtMost => below.union(&one),
        Comparison::Greater => known.without(&below.union(&one)),
        Comparison::AtLeast => known.without(&below),
        Comparison::Equal => one,
        Comparison::Unequal => known.without(&one),
    }
}
