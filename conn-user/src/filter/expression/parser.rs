//! From tokens to an expression. `or` binds least, then `and`, which is optional, then `not`.

use crate::complaint::{Complaint, complaint};
use crate::filter::expression::lexer::{Comparison, Span, Token, TokenKind, tokens};
use crate::filter::expression::{Expression, Field, Test, value};
use crate::filter::syntax_error::SyntaxError;
use crate::filter::value::ranges::Ranges;
use crate::host::lookup::Lookup;

/// The deepest nesting of parentheses and `not`.
const DEPTH: usize = 100;

/// Words of ss and conntrack for fields that conntrace does not have, and why.
const REFUSED: [(&str, &str); 9] = [
    ("dev", "a connection is not tied to a device: ask for its addresses with src and dst"),
    ("fwmark", "conntrace does not read marks of sockets: ask for ports, addresses or owners"),
    ("autobound", "how a port was chosen is not recorded: ask for a range of sport, like sport >= 32768"),
    ("ct", "connection tracking is not used: ask for state"),
    ("proto", "there is only TCP: leave it out"),
    ("expect", "expectations are a table of connection tracking: conntrace has connections only"),
    ("dying", "it is a table of connection tracking: conntrace has connections only"),
    ("unconfirmed", "it is a table of connection tracking: conntrace has connections only"),
    ("conntrack", "it is a table of connection tracking, and meant anyway: leave it out"),
];

/// Parses an expression.
///
/// # Errors
/// The first mistake and its position.
pub(crate) fn parse(text: &str, lookup: &dyn Lookup) -> Result<Expression, SyntaxError> {
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, next: 0, depth: 0, end: text.trim_end().len(), lookup };
    let expression = parser.either()?;
    match parser.peek() {
        None => Ok(expression),
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
        || word == "exclude"
        || REFUSED.iter().any(|(refused, _)| *refused == word)
}

struct Parser<'a> {
    tokens: &'a [Token],
    next: usize,
    depth: usize,
    /// The position of what is missing at the end.
    end: usize,
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
        SyntaxError::new(
            start,
            end - start,
            "a test is missing here: write one like dport = :22 or src 10.0.0.0/8",
        )
    }

    fn missing(&self, what: impl Into<Complaint>) -> SyntaxError {
        match self.peek() {
            Some(token) => SyntaxError::new(token.span.start, token.span.end - token.span.start, what),
            None => SyntaxError::new(self.end, 0, what),
        }
    }

    fn either(&mut self) -> Result<Expression, SyntaxError> {
        let mut terms = vec![self.all()?];
        while self.takes(&TokenKind::Or) {
            terms.push(self.all()?);
        }
        Ok(join(terms, Expression::Or))
    }

    fn all(&mut self) -> Result<Expression, SyntaxError> {
        let mut was_state = self.at_state();
        let mut terms = vec![self.term()?];
        loop {
            let joined = self.takes(&TokenKind::And);
            if !joined && !self.at_term() {
                return Ok(join(terms, Expression::And));
            }
            let is_state = self.at_state();
            let term = self.term()?;
            // As in ss, `state established state syn-sent` means either state, since no connection has both.
            match (&term, terms.last_mut()) {
                (Expression::Test(Test { set, .. }), Some(Expression::Test(last)))
                    if is_state && was_state && !joined =>
                {
                    last.set = last.set.union(set);
                }
                _ => terms.push(term),
            }
            was_state = is_state;
        }
    }

    /// True if a term begins here.
    fn at_term(&self) -> bool {
        self.peek().is_some_and(|token| {
            matches!(token.kind, TokenKind::Word(_) | TokenKind::Quoted(_) | TokenKind::Not | TokenKind::Open)
        })
    }

    /// True if a plain `state` begins here, without `!=`.
    fn at_state(&self) -> bool {
        let is_state = |token: &Token| matches!(&token.kind, TokenKind::Word(word) if word.eq_ignore_ascii_case("state"));
        let unequal = TokenKind::Compare(Comparison::Unequal);
        self.peek().is_some_and(is_state)
            && self.tokens.get(self.next + 1).is_none_or(|token| token.kind != unequal)
    }

    fn term(&mut self) -> Result<Expression, SyntaxError> {
        let Some(token) = self.peek() else {
            return Err(self.missing("a test is missing here: write one like dport = :22 or src 10.0.0.0/8"));
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

    /// The field of a test, and true if `exclude` negates the test.
    fn field(&mut self) -> Result<(Field, bool), SyntaxError> {
        let Some(token) = self.take() else { return Err(self.missing("a test is missing here")) };
        let Span { start, end } = token.span;
        let wrong = |complaint: Complaint| SyntaxError::new(start, end - start, complaint);
        let word = match &token.kind {
            TokenKind::Word(word) => word.to_ascii_lowercase(),
            _ => return Err(Self::unexpected(token)),
        };
        if word == "exclude" {
            return Ok((Field::State, true));
        }
        if let Some((_, why)) = REFUSED.iter().find(|(refused, _)| *refused == word) {
            return Err(wrong(complaint!("{word} cannot be asked for: {why}")));
        }
        Field::by_word(&word).map(|field| (field, false)).ok_or_else(|| {
            let words = Field::ALL.map(Field::word).join(", ");
            wrong(complaint!("{word:?} cannot be asked for: use {words}"))
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
                let limit = value::limit(field, text, self.lookup).map_err(wrong)?;
                Expression::test(field, beyond(field, comparison, limit))
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
    let known = match field {
        Field::Sport | Field::Dport => Ranges::between(0, u16::MAX.into()),
        _ => Ranges::between(0, u32::MAX.into()),
    };
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
