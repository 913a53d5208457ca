//! No tabs, no blanks at the end of a line, and a line's end at the end of a file.
//!
//! They make differences that nobody can see, and noise in a change.

use super::Complaint;
use crate::tree::{File, Tree};

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    tree.files.iter().filter(|file| !is_written_by_a_program(file)).flat_map(check_file).collect()
}

/// Snapshots hold what a program printed, byte for byte.
fn is_written_by_a_program(file: &File) -> bool {
    file.path.ends_with(".snap") || file.path.ends_with(".proptest-regressions")
}

fn check_file(file: &File) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for (number, line) in file.numbered_lines() {
        // Make wants one before each command.
        let after_indent = if file.path.ends_with("Makefile") { line.strip_prefix('\t').unwrap_or(line) } else { line };
        if after_indent.contains('\t') {
            complaints.push(Complaint::at(file, number, "a tab: indent with blanks, and write \\t in a string"));
        }
        if line.ends_with(|c: char| c.is_whitespace()) {
            complaints.push(Complaint::at(file, number, "blanks at the end of the line (or a line's end from Windows): remove them"));
        }
    }
    if !file.text.is_empty() && !file.text.ends_with('\n') {
        complaints.push(Complaint::at(file, file.text.lines().count(), "the last line does not end: add a newline"));
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&Tree::of(&[(path, text)])).into_iter().map(|complaint| complaint.line).collect()
    }

    #[test]
    fn each_of_them_is_found() {
        assert_eq!(lines("a.md", "a\n\tb\n"), [2]);
        assert_eq!(lines("a.md", "a \nb\n"), [1]);
        assert_eq!(lines("a.md", "a\r\nb\n"), [1]);
        assert_eq!(lines("a.md", "a\nb"), [2]);
    }

    #[test]
    fn make_gets_its_tabs_and_snapshots_are_left_alone() {
        assert_eq!(lines("Makefile", "all:\n\techo\n"), Vec::<usize>::new());
        assert_eq!(lines("Makefile", "all:\n\techo\t\n"), [2, 2]);
        assert_eq!(lines("a.snap", "a \n"), Vec::<usize>::new());
        assert_eq!(lines("empty.md", ""), Vec::<usize>::new());
    }
}
