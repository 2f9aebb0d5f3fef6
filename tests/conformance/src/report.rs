//! What the suite says on standard output: a line a fact.

use std::io::Write;

use crate::compare::Difference;

/// Whoever reads no further has read enough.
pub(crate) fn line(text: &str) {
    writeln!(std::io::stdout(), "{text}").ok();
}

/// A difference that no row expects.
pub(crate) fn unlisted(run: &str, case: &str, difference: &Difference) -> String {
    let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    format!(
        "unlisted: {run} | {case} | {} | {} | {}",
        difference.at,
        side(&difference.ours).escape_debug(),
        side(&difference.reference).escape_debug()
    )
}
