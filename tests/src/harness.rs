//! Live tests, run by a harness that can skip a test at run time.
//!
//! A test is a function under an attribute that names its need: `#[apply(needs_tracing)]`. The attribute is the
//! only registration. The function's module below `live` is its theme: `event::a_reset_connection_is_destroyed`.

use crate::host::{Host, Need};
use libtest_mimic::{Arguments, Completion, Trial};
use std::{
    fmt,
    path::Path,
    process::ExitCode,
    sync::{Arc, PoisonError, RwLock},
};

/// A test's own reason not to run on this machine, for what [`Need`] does not cover.
#[derive(Debug)]
pub struct Skip(pub String);

/// The result of a live test that does not panic.
pub type Outcome = Result<(), Skip>;

/// The path of a system program that a test uses. A virtual machine has none.
///
/// # Errors
/// The program is missing.
pub fn tool(path: &str) -> Result<&str, Skip> {
    if Path::new(path).exists() { Ok(path) } else { Err(Skip(format!("there is no {path} here"))) }
}

/// Whether other tests may run beside a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Company {
    /// Others may run at the same time.
    Any,
    /// The test takes the whole machine, so others would fail beside it.
    Alone,
}

/// One live test that is a plain function.
#[derive(Debug, Clone, Copy)]
pub struct Live {
    /// The path of the module that is the theme.
    pub module: &'static str,
    /// The name of the function.
    pub name: &'static str,
    /// What the machine must allow.
    pub need: Need,
    /// Whether others may run beside it.
    pub company: Company,
    /// The test; a panic is a failure.
    pub run: fn(&Host) -> Outcome,
}

/// Live tests that a function makes from data.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// Makes them.
    pub tests: fn() -> Vec<Test>,
}

inventory::collect!(Live);
inventory::collect!(Family);

/// One live test.
pub struct Test {
    name: String,
    need: Need,
    company: Company,
    run: Box<dyn FnOnce(&Host) -> Outcome + Send>,
}

impl fmt::Debug for Test {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Test").field("name", &self.name).field("need", &self.need).finish_non_exhaustive()
    }
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

impl From<&Live> for Test {
    fn from(live: &Live) -> Self {
        let theme = live.module.rsplit_once("live::").map_or(live.module, |(_, theme)| theme);
        Self { company: live.company, ..Self::new(format!("{theme}::{}", live.name), live.need, live.run) }
    }
}

/// Runs every registered test that the command line selects, like the built-in harness. A test whose need this
/// machine does not meet is reported as ignored, with its reason in the same line, and never as passed.
pub fn run() -> ExitCode {
    let arguments = Arguments::from_args();
    let host = Arc::new(Host::probe());
    let plain = inventory::iter::<Live>.into_iter().map(Test::from);
    let families = inventory::iter::<Family>.into_iter().flat_map(|family| (family.tests)());
    let mut tests: Vec<Test> = plain.chain(families).collect();
    // Tests that run alone come last, so that no other test waits for them.
    tests.sort_by(|a, b| (a.company, &a.name).cmp(&(b.company, &b.name)));
    let trials = tests.into_iter().map(|test| test.trial(&host)).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Registers a function as a live test. The attributes below choose what it needs.
#[macro_export]
macro_rules! live_test {
    ($need:ident, $company:ident, $(#[$meta:meta])* fn $name:ident $($rest:tt)*) => {
        $(#[$meta])*
        fn $name $($rest)*

        $crate::inventory::submit! {
            $crate::harness::Live {
                module: module_path!(),
                name: stringify!($name),
                need: $crate::host::Need::$need,
                company: $crate::harness::Company::$company,
                run: $name,
            }
        }
    };
}

/// A live test that needs nothing but the program.
#[macro_export]
macro_rules! needs_nothing {
    ($($function:tt)*) => { $crate::live_test!(Nothing, Any, $($function)*); };
}

/// A live test that makes network namespaces.
#[macro_export]
macro_rules! needs_namespaces {
    ($($function:tt)*) => { $crate::live_test!(Namespaces, Any, $($function)*); };
}

/// A live test that traces.
#[macro_export]
macro_rules! needs_tracing {
    ($($function:tt)*) => { $crate::live_test!(Tracing, Any, $($function)*); };
}

/// A live test that traces, and that no other test may run beside.
#[macro_export]
macro_rules! needs_whole_machine {
    ($($function:tt)*) => { $crate::live_test!(Tracing, Alone, $($function)*); };
}

/// A function that makes live tests from data: `fn() -> Vec<Test>`.
#[macro_export]
macro_rules! test_family {
    ($(#[$meta:meta])* fn $name:ident $($rest:tt)*) => {
        $(#[$meta])*
        fn $name $($rest)*

        $crate::inventory::submit! { $crate::harness::Family { tests: $name } }
    };
}
