//! The user's own checks: one query each, asked read-only at both sides.
//!
//! A check that expects the same answer from both sides looks three times: at the authority (a1), at the follower once
//! it has applied the authority's position behind a1 (f), and at the authority again (a2). Where a1 and a2 are the same,
//! f has to be the same too. Where they are not, the answer moved, and it is looked at again; one that moves each time is
//! *inconclusive*. An answer may also move and come back between a1 and a2, as a number of running jobs does, and f be
//! right all the same. A commit is also in the log, and may be at the follower, a moment before it is visible at the
//! authority; with a synchronous standby that is away, hours before. So a difference is established where nothing at all
//! was written between a1 and a2 (their snapshots are the same, and behind f no transaction was under way), or where [`SEEN_DIFFERENT`] tries saw one, and f was each time an answer that the authority has given in
//! none of them; each time after all was visible at the authority that f can have shown.
//!
//! A fixed expectation needs no second look at the authority: the follower shows each transaction whole or not at all,
//! so what always holds at the one always holds at the other.

mod ask;
mod report;

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use cutover_core::{
    Side,
    plan::{Check, Expect},
};

use self::ask::{Answered, Refused, Rows, ask};
pub use self::report::{Answer, Report, Verdict};
use super::{
    Options, Role, Sides,
    following::{Wait, Watch, insert_position},
    session::{Pair, Query, Session},
    settle::writers_done,
};
use crate::names::Names;

/// How often both sides must be seen to answer differently under writes, while the authority's answer does not move. One
/// that has two values, each as likely at each look, is taken for different once in four million times.
const SEEN_DIFFERENT: u32 = 8;

/// Asks both sides, and again up to `options.rechecks` times where the authority's answer moves, and up to
/// [`SEEN_DIFFERENT`] times where they differ. Writes nothing. Whatever
/// goes wrong is in the report: where no answer came it is inconclusive, where the server refused the SQL it has failed.
pub async fn run(check: &Check, sides: &Sides<'_>, names: &Names, options: &Options) -> Report {
    let began = Instant::now();
    let application = names.application("user_check");
    let watch = sides
        .following
        .as_ref()
        .map(|following| Watch::new(following, Session::new(Role::Authority, sides.authority, &application), options.patience));
    let pair = Pair::new(sides.authority, sides.follower, &application);
    let mut asking = Asking {
        check,
        pair,
        watch,
        authority: sides.authority_side,
        patience: options.patience,
        answers: [None, None],
        refused: [None, None],
        tries: 0,
        given: HashSet::new(),
        deviating: Vec::new(),
    };
    let (verdict, why, hint) = match asking.settle(options.rechecks.saturating_add(1)).await {
        Ok(outcome) => (outcome.verdict, outcome.why, None),
        Err(refused) => (refused.verdict, refused.why, refused.hint),
    };
    Report {
        name: check.name.clone(),
        verdict,
        why,
        hint,
        answers: asking.answers(),
        tries: asking.tries,
        ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
    }
}

struct Outcome {
    verdict: Verdict,
    why: String,
}

impl Outcome {
    fn new(verdict: Verdict, why: impl Into<String>) -> Self {
        Self { verdict, why: why.into() }
    }
}

/// What one try came to.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    AsExpected,
    /// Not as a fixed expectation says: at whom.
    Unexpected(Vec<Role>),
    Different(Under),
    Moved,
}

/// Whether anything was written at the authority while both sides were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    Stillness,
    Writes,
}

/// What is known of the authority's transactions between the follower's answer and the authority's second one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    /// None was under way that writes.
    Quiet,
    /// All are visible that the follower can have applied.
    Visible,
    /// The follower may show one that the authority does not show yet.
    Unknown,
}

/// One check under way.
struct Asking<'a> {
    check: &'a Check,
    pair: Pair,
    /// Absent where both sides stand still.
    watch: Option<Watch>,
    patience: Duration,
    authority: Side,
    /// The last answers, of the authority and of the follower.
    answers: [Option<Rows>; 2],
    /// Which side refused to answer, and why.
    refused: [Option<String>; 2],
    tries: u32,
    /// Hashes of what the authority has answered so far.
    given: HashSet<u64>,
    /// Hashes of what the follower answered where the authority's answer stood still and was another one.
    deviating: Vec<u64>,
}

impl Asking<'_> {
    /// Asks until it is settled: at most `tries` times where the answer moves, and as often as differences are seen besides.
    async fn settle(&mut self, tries: u32) -> Result<Outcome, Refused> {
        while self.tries - self.different() < tries {
            self.tries += 1;
            match self.look().await? {
                Seen::AsExpected => return Ok(Outcome::new(Verdict::Pass, "")),
                Seen::Unexpected(roles) => return Ok(Outcome::new(Verdict::Fail, self.unexpected(&roles))),
                Seen::Different(under) if under == Under::Stillness || self.different() >= SEEN_DIFFERENT => {
                    return Ok(Outcome::new(Verdict::Fail, "the two sides answer differently"));
                }
                Seen::Different(_) | Seen::Moved => {}
            }
        }
        let why = format!("the {}'s answer moved, or came and went, in each of {} tries", self.authority, self.tries);
        Ok(Outcome::new(Verdict::Inconclusive, why))
    }

    /// In how many tries the follower gave an answer that the authority never gave.
    fn different(&self) -> u32 {
        let different = self.deviating.iter().filter(|answer| !self.given.contains(answer)).count();
        u32::try_from(different).unwrap_or(u32::MAX)
    }

    /// Asks once at each side; at the authority twice where its answer could have moved meanwhile.
    async fn look(&mut self) -> Result<Seen, Refused> {
        let before = self.ask(Role::Authority).await?;
        self.let_follow().await?;
        let follower = self.ask(Role::Follower).await?;
        if let Some(seen) = as_fixed(&self.check.expect, &before.rows, &follower.rows) {
            return Ok(seen);
        }
        let between = if before.rows == follower.rows { Between::Unknown } else { self.between().await? };
        let after = self.ask(Role::Authority).await?;
        self.given.extend([hash(&before.rows), hash(&after.rows)]);
        let seen = as_each_other(&before, &follower, &after, between);
        if matches!(seen, Seen::Different(_)) {
            self.deviating.push(hash(&follower.rows));
        }
        Ok(seen)
    }

    /// Waits until all that the follower has applied so far is visible at the authority. A transaction that has ended, but
    /// for that, still has its lock, which everybody may see.
    async fn between(&mut self) -> Result<Between, Refused> {
        let sql =
            "SELECT NOT EXISTS (SELECT FROM pg_catalog.pg_locks WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted)";
        let query = Query { sql: sql.to_owned(), params: Vec::new() };
        let rows = self.pair.authority.query("looking for transactions under way", &query).await;
        let (side, check) = (self.authority, self.check);
        let lost = |error| Refused::by(&error, side, check);
        if rows.map_err(lost)?.first().is_some_and(|row| row.get(0)) {
            return Ok(Between::Quiet);
        }
        let done = writers_done(&mut self.pair.authority).await.map_err(lost)?;
        Ok(if done { Between::Visible } else { Between::Unknown })
    }

    async fn ask(&mut self, role: Role) -> Result<Answered, Refused> {
        let side = self.side(role);
        let at = at(role);
        self.refused[at] = None;
        let answer = Box::pin(ask(self.pair.at(role), self.check, side)).await;
        match &answer {
            Ok(answered) => self.answers[at] = Some(answered.rows.clone()),
            Err(refused) => {
                self.answers[at] = None;
                self.refused[at] = Some(refused.why.clone());
            }
        }
        answer
    }

    /// Waits until the follower has applied everything that the authority's answer can have shown.
    async fn let_follow(&mut self) -> Result<(), Refused> {
        let Some(watch) = &self.watch else { return Ok(()) };
        let side = self.authority;
        let lost = |error| Refused::by(&error, side, self.check);
        let position = insert_position(&mut self.pair.authority).await.map_err(lost)?;
        match watch.wait_past(position, self.patience * 10).await.map_err(lost)? {
            Wait::Passed => Ok(()),
            Wait::Stalled(why) => {
                let hint = Some("`cutover status` shows whether the stream flows".to_owned());
                Err(Refused { verdict: Verdict::Inconclusive, why, hint })
            }
        }
    }

    fn unexpected(&self, roles: &[Role]) -> String {
        let sides: Vec<_> = Role::BOTH.into_iter().filter(|role| roles.contains(role)).map(|role| self.side(role).to_string()).collect();
        let expected = match &self.check.expect {
            Expect::Value(value) => format!("exactly `{value}`"),
            Expect::Empty => "no row".to_owned(),
            Expect::Equal => "the same rows".to_owned(),
        };
        format!("{expected} was expected, and not answered by the {}", sides.join(" and the "))
    }

    fn side(&self, role: Role) -> Side {
        match role {
            Role::Authority => self.authority,
            Role::Follower => self.authority.other(),
        }
    }

    /// What to show of both sides, the source first.
    fn answers(&mut self) -> Vec<Answer> {
        let rows = std::mem::take(&mut self.answers);
        let mut answers = Role::BOTH.map(|role| {
            let other = rows[at(role.other())].as_ref();
            let refused = self.refused[at(role)].take();
            Answer::new(self.side(role), rows[at(role)].as_ref(), other, refused)
        });
        answers.sort_by_key(|answer| answer.side);
        answers.into()
    }
}

impl Role {
    const BOTH: [Self; 2] = [Self::Authority, Self::Follower];
}

fn at(role: Role) -> usize {
    usize::from(role == Role::Follower)
}

/// What a fixed expectation says of two answers; nothing where the check compares them with each other.
fn as_fixed(expect: &Expect, authority: &Rows, follower: &Rows) -> Option<Seen> {
    let fits = |rows: &Rows| match expect {
        Expect::Equal => None,
        Expect::Empty => Some(rows.is_empty()),
        Expect::Value(value) => Some(matches!(&rows[..], [row] if matches!(&row[..], [Some(only)] if only == value))),
    };
    let wrong: Vec<Role> = match (fits(authority)?, fits(follower)?) {
        (true, true) => return Some(Seen::AsExpected),
        (true, false) => vec![Role::Follower],
        (false, true) => vec![Role::Authority],
        (false, false) => Role::BOTH.into(),
    };
    Some(Seen::Unexpected(wrong))
}

fn hash(rows: &Rows) -> u64 {
    let mut hasher = DefaultHasher::new();
    rows.hash(&mut hasher);
    hasher.finish()
}

fn as_each_other(before: &Answered, follower: &Answered, after: &Answered, between: Between) -> Seen {
    if before.rows != after.rows {
        return Seen::Moved;
    }
    if before.rows == follower.rows {
        return Seen::AsExpected;
    }
    match between {
        Between::Quiet if before.snapshot == after.snapshot => Seen::Different(Under::Stillness),
        Between::Quiet | Between::Visible => Seen::Different(Under::Writes),
        Between::Unknown => Seen::Moved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(values: &[&str]) -> Rows {
        values.iter().map(|value| vec![Some((*value).to_owned())]).collect()
    }

    #[test]
    fn an_answer_that_moved_is_never_equal_and_never_different() {
        let answered = |value: &str, snapshot: &str| Answered { rows: rows(&[value]), snapshot: snapshot.to_owned() };
        let (one, two, later) = (answered("1", "5:5:"), answered("2", "5:5:"), answered("1", "5:6:"));
        assert_eq!(as_each_other(&one, &one, &one, Between::Unknown), Seen::AsExpected);
        assert_eq!(as_each_other(&one, &two, &one, Between::Quiet), Seen::Different(Under::Stillness));
        assert_eq!(as_each_other(&one, &two, &one, Between::Visible), Seen::Different(Under::Writes));
        assert_eq!(as_each_other(&one, &two, &one, Between::Unknown), Seen::Moved, "what the follower shows may come to be visible");
        assert_eq!(as_each_other(&one, &two, &later, Between::Quiet), Seen::Different(Under::Writes));
        assert_eq!(as_each_other(&one, &one, &two, Between::Quiet), Seen::Moved);
        assert_eq!(as_each_other(&one, &two, &two, Between::Quiet), Seen::Moved);
    }

    #[test]
    fn a_value_is_one_row_with_one_column_at_both_sides() {
        let value = Expect::Value("0".to_owned());
        assert_eq!(as_fixed(&value, &rows(&["0"]), &rows(&["0"])), Some(Seen::AsExpected));
        for wrong in [rows(&["1"]), rows(&[]), rows(&["0", "0"]), vec![vec![None]], vec![vec![Some("0".to_owned()), None]]] {
            assert_eq!(as_fixed(&value, &rows(&["0"]), &wrong), Some(Seen::Unexpected(vec![Role::Follower])), "{wrong:?}");
            assert_eq!(as_fixed(&value, &wrong, &rows(&["0"])), Some(Seen::Unexpected(vec![Role::Authority])), "{wrong:?}");
        }
    }

    #[test]
    fn empty_is_no_row_at_either_side() {
        assert_eq!(as_fixed(&Expect::Empty, &rows(&[]), &rows(&[])), Some(Seen::AsExpected));
        assert_eq!(as_fixed(&Expect::Empty, &vec![vec![None]], &vec![vec![None]]), Some(Seen::Unexpected(Role::BOTH.into())));
        assert_eq!(as_fixed(&Expect::Equal, &rows(&[]), &rows(&[])), None);
    }
}
