//! Live tests, run by a harness that can say "skipped" at run time.

use crate::host::{Host, Need};
use libtest_mimic::{Arguments, Completion, Trial};
use std::{
    path::Path,
    process::ExitCode,
    sync::{Arc, PoisonError, RwLock},
};

/// A test's own reason not to run on this machine, for what [`Need`] does not cover.
#[derive(Debug)]
pub struct Skip(pub String);

/// What a live test returns when it does not panic.
pub type Outcome = Result<(), Skip>;

/// A program of the system's that a test uses. A virtual machine has none.
///
/// # Errors
/// It is not there.
pub fn tool(path: &str) -> Result<&str, Skip> {
    if Path::new(path).exists() { Ok(path) } else { Err(Skip(format!("there is no {path} here"))) }
}

/// Whether other tests may run beside a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Company {
    /// Others may run at the same time.
    Any,
    /// It takes the whole machine, and the others would feel it.
    Alone,
}

/// One live test that is a plain function.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// `theme::what_it_shows`.
    pub name: &'static str,
    /// What the machine must allow.
    pub need: Need,
    /// Whether others may run beside it.
    pub company: Company,
    /// The test; a panic is a failure.
    pub run: fn(&Host) -> Outcome,
}

/// One live test.
pub struct Test {
    name: String,
    need: Need,
    company: Company,
    run: Box<dyn FnOnce(&Host) -> Outcome + Send>,
}

impl Test {
    /// A test that others may run beside.
    pub fn new(
        name: impl Into<String>,
        need: Need,
        run: impl FnOnce(&Host) -> Outcome + Send + 'static,
    ) -> Self {
        Self { name: name.into(), need, company: Company::Any, run: Box::new(run) }
    }

    fn trial(self, host: &Arc<Host>) -> Trial {
        /// Tests in any company read, those alone write.
        static COMPANY: RwLock<()> = RwLock::new(());

        let host = Arc::clone(host);
        Trial::ignorable_test(self.name.clone(), move || {
            let outcome = match host.lacks(self.need) {
                Some(reason) => Err(Skip(reason.to_owned())),
                None if self.company == Company::Alone => {
                    let _alone = COMPANY.write().unwrap_or_else(PoisonError::into_inner);
                    (self.run)(&host)
                }
                None => {
                    let _beside_others = COMPANY.read().unwrap_or_else(PoisonError::into_inner);
                    (self.run)(&host)
                }
            };
            Ok(match outcome {
                Ok(()) => Completion::Completed,
                Err(Skip(reason)) => {
                    println!("skipped {}: {reason}", self.name);
                    Completion::ignored_with(reason)
                }
            })
        })
    }
}

impl From<Live> for Test {
    fn from(live: Live) -> Self {
        Self { company: live.company, ..Self::new(live.name, live.need, live.run) }
    }
}

/// Runs the tests as the command line asks for, like the built-in harness. A test whose needs this machine
/// does not meet is reported as ignored, with one line that gives the reason, and never as passed.
pub fn run(tests: impl IntoIterator<Item = Test>) -> ExitCode {
    let arguments = Arguments::from_args();
    let host = Arc::new(Host::look());
    let trials = tests.into_iter().map(|test| test.trial(&host)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Lists the tests of a module: `live!(Need::Tracing; theme: first, second)`. With `alone` before the need,
/// nothing else runs at the same time.
#[macro_export]
macro_rules! live {
    (alone $need:expr; $theme:ident: $($test:ident),+ $(,)?) => {
        $crate::live!(@ Alone, $need; $theme: $($test),+)
    };
    (@ $company:ident, $need:expr; $theme:ident: $($test:ident),+) => {
        &[$($crate::harness::Live {
            name: concat!(stringify!($theme), "::", stringify!($test)),
            need: $need,
            company: $crate::harness::Company::$company,
            run: $test,
        }),+]
    };
    ($need:expr; $theme:ident: $($test:ident),+ $(,)?) => {
        $crate::live!(@ Any, $need; $theme: $($test),+)
    };
}
