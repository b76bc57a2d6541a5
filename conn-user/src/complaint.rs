//! Complaints about values on the command line.

/// A message that names a value, the mistake, and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Complaint(String);

impl From<String> for Complaint {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Complaint {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// A complaint with the arguments of [`format!`].
macro_rules! complaint {
    ($($text:tt)*) => { $crate::complaint::Complaint::from(format!($($text)*)) };
}
pub(crate) use complaint;

/// What was typed, in quotes and as it was typed. Only control characters are escaped, so that a terminal does not obey
/// them.
pub(crate) fn as_typed(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if c.is_control() { quoted.extend(c.escape_default()) } else { quoted.push(c) }
    }
    quoted.push('"');
    quoted
}
