//! Alarms: rules over what the daemon knows, and what follows when they begin and end.
//!
//! A process of its own watches the rules. It is a client of the daemon without any privilege, so a program, a webhook or a
//! mailer that hangs delays nothing else. The back gives it the rules and keeps its state ([`keeper`]).

pub(crate) mod delivery;
pub(crate) mod file;
pub(crate) mod judge;
pub(crate) mod keeper;
pub(crate) mod reading;
pub(crate) mod watch;
