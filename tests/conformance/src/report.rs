//! What the suite says on standard output: a line a fact.
#![expect(clippy::print_stdout, reason = "this is what the suite is executed for")]

use crate::compare::Difference;

pub(crate) fn line(text: &str) {
    println!("{text}");
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
