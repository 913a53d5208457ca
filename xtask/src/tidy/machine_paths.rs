//! No path of somebody's own machine stands in a file.
//!
//! It works for one person, on one day. A path starts from the project, from a temporary folder, or comes from the user.

use super::Complaint;
use crate::tree::Tree;

/// The first folders of paths that only one machine has.
const PRIVATE: &[&str] = &["home", "work", "root", "Users"];

/// Paths that look so and are the same everywhere.
const PUBLIC: &[&str] = &["/home/linuxbrew/.linuxbrew"];

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for file in &tree.files {
        for (number, line) in file.numbered_lines() {
            if let Some(found) = private_path(line) {
                let message = format!("`{found}` is a path of one machine: start from the project's folder, or from a temporary one");
                complaints.push(Complaint::at(file, number, message));
            }
        }
    }
    complaints
}

/// The beginning of the first path of one machine in this line.
fn private_path(line: &str) -> Option<String> {
    let starts = line.match_indices('/').filter(|(at, _)| !line[..*at].ends_with(is_of_a_path));
    let mut paths = starts.map(|(at, _)| &line[at..]).filter(|path| !PUBLIC.iter().any(|public| path.starts_with(public)));
    paths.find_map(|path| PRIVATE.iter().map(|folder| format!("/{folder}/")).find(|start| path.starts_with(start)))
}

/// Before a slash these say that the path began earlier, as in `https://host/work/`.
fn is_of_a_path(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '*' | '}' | '~')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(folder: &str, before: &str) -> usize {
        check(&Tree::of(&[("a.md", &format!("{before}/{folder}/x\n"))])).len()
    }

    #[test]
    fn a_path_of_one_machine_is_found() {
        assert_eq!(complaints("home", "cd "), 1);
        assert_eq!(complaints("work", "\""), 1);
        assert_eq!(complaints("root", "DIR="), 1);
        assert_eq!(complaints("root", ""), 1);
    }

    #[test]
    fn paths_that_begin_elsewhere_may_stand() {
        assert_eq!(complaints("work", "https://host"), 0);
        assert_eq!(complaints("work", "$DIR"), 0);
        assert_eq!(complaints("home/linuxbrew/.linuxbrew", "in "), 0);
        assert_eq!(complaints("usr", "in "), 0);
    }
}
