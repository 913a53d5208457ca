//! Places where a rule does not hold, each with its reason. One that is no longer needed is itself a complaint.

use super::Complaint;

/// A file, or a folder and all in it if this ends with a slash, where a rule does not hold.
pub(super) struct Allowed {
    pub(super) place: &'static str,
    pub(super) why: &'static str,
}

impl Allowed {
    fn covers(&self, path: &str) -> bool {
        path == self.place || (self.place.ends_with('/') && path.starts_with(self.place))
    }
}

/// The complaints about all other places, and one about each place that does not need its leave.
pub(super) fn except(complaints: Vec<Complaint>, allowed: &[Allowed]) -> Vec<Complaint> {
    let needed = |one: &&Allowed| complaints.iter().any(|complaint| one.covers(&complaint.path));
    let stale: Vec<_> = allowed.iter().filter(|one| !needed(one)).map(stale).collect();
    complaints.into_iter().filter(|complaint| !allowed.iter().any(|one| one.covers(&complaint.path))).chain(stale).collect()
}

fn stale(one: &Allowed) -> Complaint {
    let message =
        format!("this was allowed because: {}; but nothing here needs that now, so take the entry out of the rule's list", one.why);
    Complaint { path: one.place.to_owned(), line: 1, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[Allowed] = &[Allowed { place: "a/", why: "edge" }, Allowed { place: "b.rs", why: "old" }];

    fn complaint(path: &str) -> Complaint {
        Complaint { path: path.to_owned(), line: 7, message: "bad".to_owned() }
    }

    #[test]
    fn allowed_places_are_left_out() {
        let left = except(vec![complaint("a/x.rs"), complaint("b.rs"), complaint("b.rs.rs"), complaint("ab/x.rs")], LIST);
        assert_eq!(left, [complaint("b.rs.rs"), complaint("ab/x.rs")]);
    }

    #[test]
    fn an_entry_that_is_not_needed_is_a_complaint() {
        let left = except(vec![complaint("a/x.rs")], LIST);
        assert_eq!(left.len(), 1);
        assert!(left[0].path == "b.rs" && left[0].message.contains("old"), "{left:?}");
    }
}
