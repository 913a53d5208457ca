//! What we install in somebody's database says why, and finds what it names whatever the caller's `search_path` is.
//!
//! A function without its own `search_path` runs what the caller put first on theirs. That is a bug in an ordinary
//! function, and a way to become superuser in one with SECURITY DEFINER.

use super::Complaint;
use crate::tree::{File, Tree};

const FOLDERS: [&str; 2] = ["crates/postgres/src/sql/", "crates/postgres/sql/"];

/// Functions that pin nothing, and why. In return each name in them must be qualified; see [`bare_calls`].
const UNPINNED: &[(&str, &str)] = &[
    ("cutover.pass_gate", "runs before every statement that writes, and SET costs more than the rest of it; nor is it SECURITY DEFINER"),
    ("cutover.backfill", "commits after each batch, which a procedure with SET may not"),
    ("cutover.bucket", "is put into each query that asks it, which a function with SET can't be"),
    ("cutover.covers", "is put into each query that asks it, which a function with SET can't be"),
    ("cutover.defines", "is put into each query that asks it, which a function with SET can't be"),
];

/// One `CREATE FUNCTION` or `CREATE PROCEDURE`.
struct Routine<'a> {
    name: &'a str,
    line: usize,
    /// The statement without its body.
    options: String,
    body: &'a str,
}

pub(super) fn check(tree: &Tree) -> Vec<Complaint> {
    let mut complaints = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".sql")) {
        if !opens_with_comment(file) {
            complaints.push(Complaint::at(file, 1, "open the file with a comment `-- …` that says what this is and why"));
        }
        if FOLDERS.iter().any(|folder| file.path.starts_with(folder)) {
            let text = without_comments(&file.text);
            complaints.extend(routines(&text).iter().filter_map(|routine| Some(Complaint::at(file, routine.line, fault(routine)?))));
        }
    }
    complaints
}

fn opens_with_comment(file: &File) -> bool {
    file.text.lines().next().and_then(|line| line.strip_prefix("-- ")).is_some_and(|said| said.split_whitespace().count() > 2)
}

fn fault(routine: &Routine<'_>) -> Option<String> {
    let options = routine.options.to_lowercase();
    let pinned = options.contains("set search_path");
    let Some((name, why)) = UNPINNED.iter().find(|(name, _)| *name == routine.name) else {
        let name = routine.name;
        return (!pinned).then(|| format!("{name} pins no search_path: add `SET search_path = pg_catalog`, and qualify all other names"));
    };
    let bare = bare_calls(routine.body);
    if pinned {
        Some(format!("{name} pins its search_path, but is in the list of those that need not ({why}): take it out of the list"))
    } else if options.contains("security definer") {
        Some(format!("{name} is SECURITY DEFINER and pins no search_path: add `SET search_path = pg_catalog`"))
    } else if !bare.is_empty() {
        Some(format!("{name} pins no search_path, so qualify what it calls: pg_catalog.{}", bare.join(", pg_catalog.")))
    } else {
        None
    }
}

/// The text with blanks instead of comments, so that lines and places stay.
fn without_comments(text: &str) -> String {
    let blank = |line: &str| match line.find("--") {
        Some(at) => line[..at].to_owned(),
        None => line.to_owned(),
    };
    text.lines().map(blank).collect::<Vec<_>>().join("\n")
}

fn routines(text: &str) -> Vec<Routine<'_>> {
    let lower = text.to_lowercase();
    let starts = ["function", "procedure"].iter().flat_map(|kind| lower.match_indices(kind).map(|(at, _)| (at, at + kind.len())));
    let mut found: Vec<_> = starts.filter(|(at, _)| is_creation(&lower[..*at])).map(|(_, end)| routine(text, end)).collect();
    found.sort_by_key(|routine| routine.line);
    found
}

/// Whether what stands before the word `function` creates one.
fn is_creation(before: &str) -> bool {
    let mut words = before.split_whitespace().rev();
    match (words.next(), words.next(), words.next()) {
        (Some("create"), ..) => true,
        (Some("replace"), Some("or"), Some(word)) => word == "create",
        _ => false,
    }
}

/// The statement whose name begins at `at`: up to the semicolon behind its body between dollars.
fn routine(text: &str, at: usize) -> Routine<'_> {
    let line = text[..at].matches('\n').count() + 1;
    let rest = text[at..].trim_start();
    let name = rest.split(|c: char| c == '(' || c.is_whitespace()).next().unwrap_or(rest);
    let (head, body, tail) = around_body(rest).unwrap_or((rest, "", ""));
    let tail = tail.split(';').next().unwrap_or(tail);
    Routine { name, line, options: format!("{head} {tail}").split_whitespace().collect::<Vec<_>>().join(" "), body }
}

/// What is before, between and behind `$tag$`.
fn around_body(text: &str) -> Option<(&str, &str, &str)> {
    let start = text.find('$')?;
    let end = start + 1 + text[start + 1..].find('$')? + 1;
    let tag = &text[start..end];
    let (body, tail) = text[end..].split_once(tag)?;
    Some((&text[..start], body, tail))
}

/// Functions that a body calls without saying of which schema. Keywords are told by their capitals.
fn bare_calls(body: &str) -> Vec<&str> {
    let is_of_a_name = |c: char| c.is_alphanumeric() || c == '_' || c == '.';
    let names = body.match_indices('(').map(|(at, _)| {
        let before = body[..at].trim_end();
        before.rsplit(|c| !is_of_a_name(c)).next().unwrap_or(before)
    });
    names.filter(|name| name.chars().any(char::is_lowercase) && !name.contains('.')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(text: &str) -> Vec<String> {
        let text = format!("-- Why this is here.\n{text}\n");
        check(&Tree::of(&[("crates/postgres/src/sql/a.sql", &text)])).iter().map(Complaint::to_string).collect()
    }

    #[test]
    fn a_file_that_does_not_say_why_is_found() {
        let found = check(&Tree::of(&[("crates/journal/src/a.sql", "CREATE TABLE a (b int);\n")]));
        assert!(found[0].message.contains("open the file"), "{found:?}");
        assert_eq!(complaints("SELECT 1;"), Vec::<String>::new());
    }

    #[test]
    fn a_function_that_pins_no_search_path_is_found() {
        let pinned = "CREATE FUNCTION a.b() RETURNS int LANGUAGE sql SET search_path = pg_catalog AS $$ SELECT 1 $$;";
        let unpinned = "CREATE OR REPLACE FUNCTION a.c(x int) RETURNS int LANGUAGE sql AS $$ SELECT 1 $$;";
        let found = complaints(&format!("{pinned}\n{unpinned}\n{pinned}"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("crates/postgres/src/sql/a.sql:3: a.c pins no search_path"), "{found:?}");
    }

    #[test]
    fn none_of_our_own_functions_is_overlooked() {
        let tree = Tree::read(&crate::tree::root()).unwrap();
        let created = "CREATE OR REPLACE FUNCTION";
        for file in tree.files.iter().filter(|file| FOLDERS.iter().any(|folder| file.path.starts_with(folder))) {
            let broken = file.text.replace("SET search_path", "SET something");
            let unpinned = UNPINNED.iter().filter(|(name, _)| broken.contains(&format!("{created} {name}("))).count();
            // At the beginning of a line: a function may put another together as text.
            let expected = broken.lines().filter(|line| line.starts_with(created)).count() - unpinned;
            assert_eq!(check(&Tree::of(&[(&file.path, &broken)])).len(), expected, "{}", file.path);
        }
    }

    #[test]
    fn a_body_or_a_comment_that_speaks_of_it_pins_nothing() {
        assert_eq!(complaints("CREATE FUNCTION a() RETURNS int LANGUAGE sql AS $x$ SET search_path = b $x$;").len(), 1);
        assert_eq!(complaints("CREATE PROCEDURE a() LANGUAGE sql -- SET search_path = b\nAS $$ SELECT 1 $$;").len(), 1);
    }

    #[test]
    fn it_may_stand_behind_the_body_and_a_call_creates_nothing() {
        let behind = "CREATE FUNCTION a() RETURNS int AS $$ SELECT 1 $$ LANGUAGE sql\n  SET search_path TO pg_catalog;";
        assert_eq!(complaints(behind), Vec::<String>::new());
        assert_eq!(complaints("CREATE TRIGGER a BEFORE INSERT ON b EXECUTE FUNCTION c();\nDROP FUNCTION c();"), Vec::<String>::new());
    }

    #[test]
    fn the_gate_pins_nothing_and_so_qualifies_what_it_calls() {
        let gate = |options: &str, body: &str| {
            complaints(&format!("CREATE FUNCTION cutover.pass_gate() RETURNS trigger LANGUAGE plpgsql {options} AS $$ {body} $$;"))
        };
        assert_eq!(gate("", "IF (pg_catalog.format('a')) THEN RETURN NULL; END IF;"), Vec::<String>::new());
        assert!(gate("", "IF (format('a')) THEN RETURN NULL; END IF;")[0].contains("pg_catalog.format"));
        assert!(gate("SECURITY DEFINER", "RETURN NULL;")[0].contains("SECURITY DEFINER"));
        assert!(gate("SET search_path = pg_catalog", "RETURN NULL;")[0].contains("take it out"));
    }
}
