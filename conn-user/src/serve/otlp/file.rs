//! The table `[otlp]` of the configuration file.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use crate::filter::value::duration;
use crate::serve::alarm::file::placed;
use crate::settings::otlp::{self, Chosen};

/// The table, as written. docs/otlp.md documents each key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OtlpTable {
    endpoint: Option<Spanned<String>>,
    interval: Option<Spanned<String>>,
    timeout: Option<Spanned<String>>,
    headers: Option<Spanned<BTreeMap<String, String>>>,
}

impl OtlpTable {
    /// What the table says. `text` is the file.
    ///
    /// # Errors
    /// The first mistake, with its line and column.
    pub(crate) fn chosen(self, text: &str) -> Result<Chosen, String> {
        let time = |written: Option<Spanned<String>>| {
            let Some(written) = written else { return Ok(None) };
            let read = duration::parse(written.get_ref()).map_err(|why| why.to_string());
            read.and_then(otlp::limited).map(Some).map_err(|why| placed(text, written.span(), &why))
        };
        if let Some(endpoint) = &self.endpoint {
            otlp::url(endpoint.get_ref()).map_err(|why| placed(text, endpoint.span(), &why))?;
        }
        if let Some(headers) = &self.headers {
            let mut all = headers.get_ref().iter();
            all.try_for_each(|(name, value)| otlp::header(name, value))
                .map_err(|why| placed_alone(text, headers.span().start, &why))?;
        }
        Ok(Chosen {
            endpoint: self.endpoint.map(Spanned::into_inner),
            interval: time(self.interval)?,
            timeout: time(self.timeout)?,
            headers: self.headers.map(Spanned::into_inner),
        })
    }
}

/// The mistake with line and column, without the line itself: it may have a secret.
fn placed_alone(text: &str, at: usize, mistake: &str) -> String {
    let whole = placed(text, at..at, mistake);
    whole.lines().next().unwrap_or_default().to_owned()
}
