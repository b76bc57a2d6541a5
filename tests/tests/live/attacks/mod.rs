//! Attacks by an ordinary user, each beside what an honest run must show meanwhile.

mod descriptors;
mod dns;
mod environment;
mod files;
mod floods;
mod namespaces;
mod owners;
mod ports;
mod scopes;
mod soak;
mod storage;
