//! Where an expression or a list of values is wrong, and why.

use crate::complaint::Complaint;

/// A mistake in a text, and its position.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{complaint}")]
pub struct SyntaxError {
    /// The position, in bytes from the beginning.
    pub at: usize,
    /// The length of the wrong part, in bytes; 0 if something is missing.
    pub len: usize,
    /// The mistake and the remedy.
    pub complaint: Complaint,
}

/// How many characters of a long expression are shown on either side.
const SHOWN: usize = 60;

impl SyntaxError {
    /// An error at a position in the text.
    pub fn new(at: usize, len: usize, complaint: impl Into<Complaint>) -> Self {
        Self { at, len, complaint: complaint.into() }
    }

    /// The message: the complaint, the expression, and carets below the mistake.
    pub fn show(&self, text: &str) -> String {
        // Control characters become blanks, so that the carets fit.
        let line: Vec<char> = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let characters = |bytes: usize| text.char_indices().take_while(|&(at, _)| at < bytes).count();
        let at = characters(self.at);
        let len = (characters(self.at + self.len) - at).max(1);
        let from = at.saturating_sub(SHOWN);
        let to = (at + len.min(SHOWN) + SHOWN).min(line.len());
        let before = if from > 0 { "..." } else { "" };
        let after = if to < line.len() { "..." } else { "" };
        let part: String = line[from..to].iter().collect();
        let indent = " ".repeat(at - from + before.chars().count());
        let carets = "^".repeat(len.min(SHOWN));
        let part = part.trim_end();
        let line = if part.is_empty() { "(nothing)" } else { part };
        format!("filter: {}\n  {before}{line}{after}\n  {indent}{carets}", self.complaint)
    }
}
