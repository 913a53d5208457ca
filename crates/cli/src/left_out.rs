//! What a cutover leaves where it is, in a line.

use std::fmt::Display;

use cutover_core::plan::Filter;
use cutover_engine::{Cutover, Described, LeftOut};

use crate::output::bytes;

/// Relations that are named; the rest is counted.
const NAMED: usize = 10;

/// What the plan leaves out, or why that can't be told; none where it leaves out nothing.
pub(crate) async fn ask(cutover: &Cutover) -> Option<String> {
    match cutover.left_out().await {
        Ok(left_out) => line(&left_out),
        Err(error) => Some(unknown(&cutover.plan().tables.filter, &error)),
    }
}

/// The same of a plan as it was described, here or by a server.
pub(crate) fn described(described: &Described) -> Option<String> {
    match &described.left_out {
        Some(left_out) => line(left_out),
        None => Some(unknown(&described.tables, &described.left_out_unknown.as_deref().unwrap_or("the server's log says why"))),
    }
}

fn unknown(filter: &Filter, why: &dyn Display) -> String {
    format!("what [tables] says ({filter}); names and sizes can't be told: {why}")
}

/// `2 relations, 13 GB, neither moved nor fenced: public.audit_log (13 GB), public.tmp_x (8 kB)`.
pub(crate) fn line(left_out: &[LeftOut]) -> Option<String> {
    let shown: Vec<&LeftOut> = left_out.iter().filter(|relation| relation.kind != "sequence").collect();
    let size = |relation: &LeftOut| u64::try_from(relation.bytes).unwrap_or(0);
    let mut names: Vec<String> =
        shown.iter().take(NAMED).map(|relation| format!("{} ({})", relation.name, bytes(size(relation)))).collect();
    if let Some(more) = shown.len().checked_sub(NAMED).filter(|more| *more > 0) {
        names.push(format!("and {more} more"));
    }
    let total = bytes(shown.iter().map(|relation| size(relation)).sum());
    let relations = if shown.len() == 1 { "relation" } else { "relations" };
    (!shown.is_empty()).then(|| format!("{} {relations}, {total}, neither moved nor fenced: {}", shown.len(), names.join(", ")))
}

#[cfg(test)]
mod tests {
    use cutover_postgres::catalogue::QualifiedName;

    use super::*;

    fn relation(name: &str, kind: &str, bytes: i64) -> LeftOut {
        LeftOut { name: QualifiedName { schema: "s".to_owned(), name: name.to_owned() }, kind: kind.to_owned(), bytes }
    }

    #[test]
    fn a_line_names_the_largest_and_counts_the_rest() {
        assert_eq!(line(&[]), None);
        assert_eq!(line(&[relation("s", "sequence", 0)]), None);
        let one = line(&[relation("a", "table", 8192), relation("s", "sequence", 8192)]).unwrap();
        assert_eq!(one, format!("1 relation, {0}, neither moved nor fenced: s.a ({0})", bytes(8192)));
        let many: Vec<LeftOut> = (0..12).map(|at| relation(&format!("t{at}"), "table", 0)).collect();
        let said = line(&many).unwrap();
        assert!(said.starts_with("12 relations") && said.ends_with("and 2 more") && !said.contains("t10"), "{said}");
    }
}
