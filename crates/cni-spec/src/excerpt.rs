//! What was given, quoted for an error: escaped and bounded, so that hostile input cannot flood or forge a log.

use serde_json::Value;

const MAX_CHARS: usize = 64;

/// `text` in backticks, its control characters escaped, cut after 64 characters.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("`");
    quoted.extend(text.chars().take(MAX_CHARS).flat_map(char::escape_debug));
    if text.chars().nth(MAX_CHARS).is_some() {
        quoted.push('…');
    }
    quoted.push('`');
    quoted
}

/// A JSON value in short: scalars as they are, the others by kind.
pub(crate) fn value(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => quoted(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_hostile_text_becomes_short_and_printable() {
        let shown = quoted(&"\u{1b}[2J\n".repeat(10_000));
        assert!(shown.len() < 1_000);
        assert!(!shown.contains(['\u{1b}', '\n']));
    }
}
