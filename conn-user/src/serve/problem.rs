//! Why a request is refused, as the client gets it.

use clap::error::{ContextKind, ContextValue};
use serde::{Deserialize, Serialize};

use crate::error::UsageError;

/// A refusal: an HTTP status and the object of its body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The status of HTTP.
    #[serde(skip)]
    pub status: u16,
    /// The parameter that is wrong, if one is.
    pub parameter: Option<String>,
    /// The mistake.
    pub message: String,
    /// The remedy, if the message does not have it.
    pub remedy: Option<String>,
}

impl Problem {
    /// A refusal that no parameter causes.
    pub(crate) fn new(status: u16, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { status, parameter: None, message: message.into(), remedy: Some(remedy.into()) }
    }

    /// The user of the client may not ask.
    pub(crate) fn may_not_ask() -> Self {
        let remedy = "become root, or a member of the group conntrace: sudo adduser NAME conntrace";
        Self::new(403, "only root and members of the group conntrace may ask", remedy)
    }

    /// A parameter is wrong.
    pub(crate) fn parameter(name: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { parameter: Some(name.to_owned()), ..Self::new(400, message, remedy) }
    }

    /// The body: `{"error":{…}}` and a newline.
    pub fn body(&self) -> String {
        serde_json::json!({ "error": self }).to_string() + "\n"
    }

    /// Reads a body.
    pub fn read(status: u16, body: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Body {
            error: Problem,
        }
        let body: Body = serde_json::from_slice(body).ok()?;
        Some(Self { status, ..body.error })
    }

    /// The refusal as a line for people.
    pub fn text(&self) -> String {
        let parameter = self.parameter.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let remedy = self.remedy.as_ref().map(|remedy| format!("\n{remedy}")).unwrap_or_default();
        format!("{parameter}{}{remedy}", self.message)
    }

    /// What clap says of a value.
    pub(crate) fn of_clap(command: &str, error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let first = text.lines().next().unwrap_or_default();
        let parameter = match error.get(ContextKind::InvalidArg) {
            Some(ContextValue::String(arg)) => Some(word(arg)),
            Some(ContextValue::Strings(args)) => args.first().map(|arg| word(arg)),
            _ => None,
        };
        let remedy = format!("see conntrace help {command}");
        Self { parameter, ..Self::new(400, first.strip_prefix("error: ").unwrap_or(first), remedy) }
    }

    /// What conntrace says of a command line.
    pub(crate) fn of_usage(command: &str, error: &UsageError) -> Self {
        let (parameter, message) = match error {
            UsageError::Value { option, complaint, .. } | UsageError::Conflict { option, complaint } => {
                (Some(word(option)), complaint.to_string())
            }
            UsageError::Expression { .. } | UsageError::Field(_) => {
                (Some("filter".into()), error.to_string())
            }
            UsageError::Unknown(_) | UsageError::Environment(_) => (None, error.to_string()),
        };
        Self { parameter, ..Self::new(400, message, format!("see conntrace help {command}")) }
    }
}

/// The name of an option without its hyphens and its value.
fn word(option: &str) -> String {
    let name = option.trim_start_matches('-');
    name.split([' ', '=', '[', '<']).next().unwrap_or(name).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_reads_back() {
        let problem = Problem::parameter("dport", "there is no port \"x\"", "see conntrace help count");
        let body = problem.body();
        assert_eq!(
            body,
            "{\"error\":{\"message\":\"there is no port \\\"x\\\"\",\"parameter\":\"dport\",\"remedy\":\"see conntrace \
             help count\"}}\n"
        );
        assert_eq!(Problem::read(400, body.as_bytes()), Some(problem));
        assert_eq!(Problem::read(400, b"no object"), None);
    }

    #[test]
    fn options_lose_hyphens_and_values() {
        assert_eq!(["--dport <PORT[,PORT...]>", "--output", "-o"].map(word), ["dport", "output", "o"]);
    }
}
