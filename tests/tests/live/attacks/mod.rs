//! Attacks by an ordinary user, each beside what an honest run must show meanwhile.

mod descriptors;
mod environment;
mod files;
mod storage;
