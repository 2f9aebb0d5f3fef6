//! The differences on purpose: the table of `docs/compatibility.md`, which is read, so that it cannot be wrong.

use std::path::Path;

use crate::compare::Difference;
use crate::error::{SuiteError, failed};

/// The heading of the page under which the table stands.
const HEADING: &str = "## Differences on purpose";
/// The heading under which keys stand that no case has.
const KEYS_HEADING: &str = "## Keys that no case has";

/// One row: where a difference is expected, and what stands on each side. All are patterns in which `*` is anything.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) line: usize,
    runs: String,
    case: String,
    at: String,
    ours: String,
    reference: String,
}

/// The page's table.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) rows: Vec<Row>,
    /// `plugin key`, each.
    pub(crate) keys: Vec<String>,
}

impl Listed {
    /// Reads the page.
    pub(crate) fn read(path: &Path) -> Result<Self, SuiteError> {
        let page = std::fs::read_to_string(path).map_err(failed("read", path))?;
        Self::parse(&page).map_err(|(line, what)| SuiteError::Page { path: path.to_owned(), line, what })
    }

    fn parse(page: &str) -> Result<Self, (usize, String)> {
        let mut listed = Self { rows: Vec::new(), keys: Vec::new() };
        let mut heading = "";
        for (line, text) in (1..).zip(page.lines()) {
            if text.starts_with("## ") {
                heading = text;
            }
            // The cells that suite and reader share are in backticks; a table's head has none.
            if !text.starts_with("| `") {
                continue;
            }
            let cells: Vec<&str> = text.trim_matches('|').split(" | ").map(str::trim).collect();
            let cell = |index: usize| {
                let cell = cells.get(index).copied().unwrap_or_default().trim_matches('`');
                if cell.is_empty() {
                    Err((line, format!("cell {} is empty", index + 1)))
                } else {
                    Ok(cell.to_owned())
                }
            };
            if heading == HEADING {
                let [runs, case, at, ours, reference, _why] =
                    [cell(0)?, cell(1)?, cell(2)?, cell(3)?, cell(4)?, cell(5)?];
                listed.rows.push(Row { line, runs, case, at, ours, reference });
            } else if heading == KEYS_HEADING {
                let [plugin, key, _why] = [cell(0)?, cell(1)?, cell(2)?];
                listed.keys.push(format!("{plugin} {key}"));
            }
        }
        Ok(listed)
    }

    /// The rows that expect this difference; none, and it is one that nobody wanted.
    pub(crate) fn expecting(&self, run: &str, case: &str, difference: &Difference) -> Vec<usize> {
        let side = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let (ours, reference) = (side(&difference.ours), side(&difference.reference));
        let expects = |row: &Row| {
            matches(&row.runs, run)
                && matches(&row.case, case)
                && matches(&row.at, &difference.at)
                && matches(&row.ours, &ours)
                && matches(&row.reference, &reference)
        };
        (0..).zip(&self.rows).filter(|(_, row)| expects(row)).map(|(index, _)| index).collect()
    }
}

impl Row {
    /// Whether the row speaks of a run and a case at all, of those that were tried.
    pub(crate) fn concerns(&self, tried: &[(String, String)]) -> bool {
        tried.iter().any(|(run, case)| matches(&self.runs, run) && matches(&self.case, case))
    }

    pub(crate) fn shown(&self) -> String {
        format!("{} {} {}: {} / {}", self.runs, self.case, self.at, self.ours, self.reference)
    }
}

/// Whether `*` in the pattern can be something so that it is the text. `,` stands between alternatives.
fn matches(pattern: &str, text: &str) -> bool {
    pattern.split(", ").any(|pattern| {
        let mut parts = pattern.split('*');
        let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
        let mut parts: Vec<&str> = parts.collect();
        let Some(last) = parts.pop() else { return rest.is_empty() };
        for part in parts {
            let Some((_, behind)) = rest.split_once(part) else { return false };
            rest = behind;
        }
        rest.ends_with(last)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "
## Differences on purpose
| runs | case | at | ours | reference | why |
|---|---|---|---|---|---|
| `*` | `bridge-*` | `*/links/eth0/mtu` | `1500` | `*` | because |
## Keys that no case has
| `firewall` | `firewalldZone` | needs firewalld |
";

    fn difference(at: &str, ours: Option<&str>) -> Difference {
        Difference { at: at.to_owned(), ours: ours.map(str::to_owned), reference: None }
    }

    #[test]
    fn a_listed_difference_is_expected_and_no_other() {
        let listed = Listed::parse(PAGE).unwrap_or_else(|error| unreachable!("{error:?}"));
        let at = "1 ADD a/a/links/eth0/mtu";
        assert_eq!(listed.expecting("ours", "bridge-x", &difference(at, Some("1500"))), [0]);
        assert!(listed.expecting("ours", "bridge-x", &difference(at, Some("1400"))).is_empty());
        assert!(listed.expecting("ours", "ptp-x", &difference(at, Some("1500"))).is_empty());
        assert!(listed.expecting("ours", "bridge-x", &difference("1 ADD a/a", None)).is_empty());
        assert_eq!(listed.keys, ["firewall firewalldZone"]);
    }

    #[test]
    fn a_row_without_a_reason_is_no_row() {
        let page = PAGE.replace("because", "");
        assert!(Listed::parse(&page).is_err());
    }

    #[test]
    fn a_star_is_anything_and_everything_else_is_itself() {
        assert!(matches("*", "") && matches("a*c", "abbc") && matches("a*b*c", "a1b2c"));
        assert!(matches("x, a*", "ab") && !matches("a*c", "abcd") && !matches("abc", "abcd"));
        assert!(!matches("ab*ba", "aba"));
    }
}
