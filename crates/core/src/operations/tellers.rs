//! Who tells, and which of their requests was the last: a request that is sent again counts once.

use std::collections::BTreeMap;

use super::WINDOW_MS;

/// Who is remembered at the same time.
const MOST: usize = 100_000;

/// Remembers the last request of each process that tells.
#[derive(Clone, Debug, Default)]
pub struct Tellers(BTreeMap<String, Last>);

#[derive(Clone, Copy, Debug)]
struct Last {
    sequence: u64,
    at_ms: u64,
}

impl Tellers {
    /// Whether a request is not known yet. From then on it is.
    pub fn is_new(&mut self, teller: &str, sequence: u64, now_ms: u64) -> bool {
        if let Some(known) = self.0.get_mut(teller) {
            let new = sequence > known.sequence;
            *known = Last { sequence: known.sequence.max(sequence), at_ms: now_ms };
            return new;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, last| last.at_ms + WINDOW_MS > now_ms);
        }
        if self.0.len() < MOST {
            self.0.insert(teller.to_owned(), Last { sequence, at_ms: now_ms });
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_sent_again_counts_once() {
        let mut tellers = Tellers::default();
        let new = [("a", 1), ("a", 1), ("b", 1), ("a", 2), ("a", 1), ("a", 2), ("a", 3)].map(|(who, which)| tellers.is_new(who, which, 0));
        assert_eq!(new, [true, false, true, true, false, false, true]);
    }

    #[test]
    fn those_who_ended_long_ago_make_room() {
        let mut tellers = Tellers::default();
        (0..MOST + 5).for_each(|id| assert!(tellers.is_new(&id.to_string(), 1, 0)));
        assert_eq!(tellers.0.len(), MOST);
        assert!(tellers.is_new("new", 1, WINDOW_MS) && !tellers.is_new("new", 1, WINDOW_MS));
        assert_eq!(tellers.0.len(), 1);
    }
}
