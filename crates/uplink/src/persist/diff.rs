//! Showing what a file becomes.

use std::fmt::Write;

use super::FileChange;

/// Lines that go and come, each file with its name; unchanged lines between them stand there too.
#[must_use]
pub fn diff(changes: &[FileChange]) -> String {
    let mut text = String::new();
    for change in changes {
        let path = change.path.display();
        let name =
            |side: &Option<String>| if side.is_some() { path.to_string() } else { "/dev/null".to_owned() };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "--- {}\n+++ {}", name(&change.before), name(&change.after));
        let lines = |side: &Option<String>| -> Vec<String> {
            side.iter().flat_map(|text| text.lines()).map(str::to_owned).collect()
        };
        for (mark, line) in of_lines(&lines(&change.before), &lines(&change.after)) {
            let _ = writeln!(text, "{mark}{line}");
        }
    }
    text
}

/// By the longest common subsequence; configurations are short.
fn of_lines<'a>(before: &'a [String], after: &'a [String]) -> Vec<(char, &'a str)> {
    let (rows, columns) = (before.len(), after.len());
    let mut common = vec![vec![0_usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            common[row][column] = if before[row] == after[column] {
                common[row + 1][column + 1] + 1
            } else {
                common[row + 1][column].max(common[row][column + 1])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut lines = Vec::new();
    while row < rows || column < columns {
        if row < rows && column < columns && before[row] == after[column] {
            lines.push((' ', before[row].as_str()));
            (row, column) = (row + 1, column + 1);
        } else if row < rows && (column == columns || common[row + 1][column] >= common[row][column + 1]) {
            lines.push(('-', before[row].as_str()));
            row += 1;
        } else {
            lines.push(('+', after[column].as_str()));
            column += 1;
        }
    }
    lines
}
