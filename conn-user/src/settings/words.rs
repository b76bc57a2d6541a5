//! Words of options: hooks and kinds of events.

use crate::cli::HookArgs;
use crate::error::UsageError;
use crate::event::kind::KindSet;
use crate::host::plan::HookSet;
use crate::settings::optional;

/// The hooks of `--witnesses`.
pub(super) fn hook_set(args: &HookArgs) -> Result<Option<HookSet>, UsageError> {
    optional("--witnesses", args.witnesses.as_deref(), HookSet::parse)
}

/// The kinds of `--event-mask`; without the option all of connections.
pub(super) fn kinds(words: &[String]) -> Result<KindSet, UsageError> {
    let parse = |word: &String| {
        KindSet::parse(word).map_err(|complaint| UsageError::value("--event-mask", word, complaint))
    };
    words.iter().map(parse).reduce(|all, next| Ok(all?.union(next?))).unwrap_or(Ok(KindSet::ALL))
}
