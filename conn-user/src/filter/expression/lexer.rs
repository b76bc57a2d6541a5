//! Splits an expression into tokens. Unlike in ss, blanks around operators and parentheses are optional.

use crate::complaint::complaint;
use crate::filter::syntax_error::SyntaxError;

/// The bytes of a token, half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// First byte.
    pub start: usize,
    /// The byte after the last.
    pub end: usize,
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// `=`
    Equal,
    /// `!=`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

/// The kind of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// `(`
    Open,
    /// `)`
    Close,
    /// `!` or `not`
    Not,
    /// `&`, `&&` or `and`
    And,
    /// `|`, `||` or `or`
    Or,
    /// An operator between a field and its value.
    Compare(Comparison),
    /// A field or a value.
    Word(String),
    /// A value in quotes, without operators.
    Quoted(String),
}

/// A token and its position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    /// The kind.
    pub kind: TokenKind,
    /// The position.
    pub span: Span,
}

/// Operators, longer ones first.
const SIGNS: [(&str, TokenKind); 14] = [
    ("&&", TokenKind::And),
    ("||", TokenKind::Or),
    ("!=", TokenKind::Compare(Comparison::Unequal)),
    ("==", TokenKind::Compare(Comparison::Equal)),
    ("<=", TokenKind::Compare(Comparison::AtMost)),
    (">=", TokenKind::Compare(Comparison::AtLeast)),
    ("&", TokenKind::And),
    ("|", TokenKind::Or),
    ("!", TokenKind::Not),
    ("=", TokenKind::Compare(Comparison::Equal)),
    ("<", TokenKind::Compare(Comparison::Less)),
    (">", TokenKind::Compare(Comparison::Greater)),
    ("(", TokenKind::Open),
    (")", TokenKind::Close),
];

/// Splits an expression into tokens.
///
/// # Errors
/// A quote is never closed.
pub(crate) fn tokens(text: &str) -> Result<Vec<Token>, SyntaxError> {
    let mut tokens: Vec<Token> = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        if first.is_whitespace() {
            start += first.len_utf8();
            continue;
        }
        let rest = &text[start..];
        // After an operator, a value follows: there, `!` excludes the first item of a list.
        let is_value =
            matches!(tokens.last(), Some(Token { kind: TokenKind::Compare(_), .. })) && first == '!';
        let sign = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign) && !is_value);
        let (kind, len) = if let Some((sign, kind)) = sign {
            (kind.clone(), sign.len())
        } else if first == '"' || first == '\'' {
            let inside = rest[1..].split(first).next().unwrap_or_default();
            if inside.len() + 1 == rest.len() {
                return Err(SyntaxError::new(
                    start,
                    rest.len(),
                    complaint!("this quote is never closed: end it with {first}"),
                ));
            }
            (TokenKind::Quoted(inside.to_owned()), inside.len() + 2)
        } else {
            let len = word_length(rest);
            (word(&rest[..len]), len)
        };
        tokens.push(Token { kind, span: Span { start, end: start + len } });
        start += len;
    }
    Ok(tokens)
}

/// The length of a word in bytes. After a comma, `!` excludes an item and belongs to the word.
fn word_length(text: &str) -> usize {
    let mut before = None;
    for (at, c) in text.char_indices() {
        let ends = c.is_whitespace()
            || matches!(c, '&' | '|' | '=' | '<' | '>' | '(' | ')' | '"' | '\'')
            || (c == '!' && at > 0 && before != Some(','));
        if ends {
            return at;
        }
        before = Some(c);
    }
    text.len()
}

/// True for a word that is a value only in quotes.
pub(crate) fn is_keyword(text: &str) -> bool {
    !matches!(word(text), TokenKind::Word(_))
}

fn word(word: &str) -> TokenKind {
    match word.to_ascii_lowercase().as_str() {
        "and" => TokenKind::And,
        "or" => TokenKind::Or,
        "not" => TokenKind::Not,
        "eq" => TokenKind::Compare(Comparison::Equal),
        "ne" | "neq" => TokenKind::Compare(Comparison::Unequal),
        "lt" => TokenKind::Compare(Comparison::Less),
        "le" | "leq" => TokenKind::Compare(Comparison::AtMost),
        "gt" => TokenKind::Compare(Comparison::Greater),
        "ge" | "geq" => TokenKind::Compare(Comparison::AtLeast),
        _ => TokenKind::Word(word.to_owned()),
    }
}
