//! Live tests: a list of plain functions, run by a harness that can say "skipped" at run time.

use crate::host::{Host, Need};
use libtest_mimic::{Arguments, Completion, Trial};
use std::{process::ExitCode, sync::Arc};

/// A test's own reason not to run on this machine, for what [`Need`] does not cover.
#[derive(Debug)]
pub struct Skip(pub String);

/// What a live test returns when it does not panic.
pub type Outcome = Result<(), Skip>;

/// One live test.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// `theme::what_it_shows`.
    pub name: &'static str,
    /// What the machine must allow.
    pub need: Need,
    /// The test; a panic is a failure.
    pub run: fn(&Host) -> Outcome,
}

/// Runs the tests as the command line asks for, like the built-in harness. A test whose needs this machine
/// does not meet is reported as ignored, with one line that gives the reason, and never as passed.
pub fn run(tests: impl IntoIterator<Item = Live>) -> ExitCode {
    let arguments = Arguments::from_args();
    let host = Arc::new(Host::look());
    let trials = tests.into_iter().map(|test| {
        let host = Arc::clone(&host);
        Trial::ignorable_test(test.name, move || {
            let outcome = match host.lacks(test.need) {
                Some(reason) => Err(Skip(reason.to_owned())),
                None => (test.run)(&host),
            };
            Ok(match outcome {
                Ok(()) => Completion::Completed,
                Err(Skip(reason)) => {
                    println!("skipped {}: {reason}", test.name);
                    Completion::ignored_with(reason)
                }
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}

/// Lists the tests of a module: `live!(Need::Tracing; theme: first, second)`.
#[macro_export]
macro_rules! live {
    ($need:expr; $theme:ident: $($test:ident),+ $(,)?) => {
        &[$($crate::harness::Live {
            name: concat!(stringify!($theme), "::", stringify!($test)),
            need: $need,
            run: $test,
        }),+]
    };
}
