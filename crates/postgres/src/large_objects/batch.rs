//! Some large objects at once: what each needs, and doing it.

use std::collections::BTreeSet;

use tokio_postgres::Client;

use super::{
    NAMED, Progress, Round, Way,
    look::Paired,
    pages::{self, At, CHUNK, Stretch},
};
use crate::{
    PgError, PgResult,
    gate::{commit, guarded},
};

/// Large objects that are settled at once.
const OBJECTS: usize = 500;

/// What they hold together, at most, and what of one is compared at once. Unit: bytes.
const BYTES: i64 = 32 << 20;

/// What is held in memory of one portion; there are two, one being read and one being written. Unit: bytes.
const HELD: u64 = 4 << 20;

/// Chunks that are read at once: of small objects there are many in what is held.
const CHUNKS: usize = 256;

/// A large object that is not the same on both sides, or may not be.
struct Task {
    id: u32,
    /// The larger of both sides'.
    bytes: i64,
    /// The follower has none.
    missing: bool,
    /// Whether the authority has changed it since the last look.
    expected: bool,
    /// Whether owner, rights or comment differ.
    described: bool,
    /// Whether the content may.
    content: bool,
}

pub(super) struct Batch<'a> {
    authority: &'a Client,
    follower: &'a mut Client,
    way: Way<'a>,
    progress: &'a Progress,
    tasks: Vec<Task>,
    extra: Vec<u32>,
    strange: Vec<u32>,
    bytes: i64,
}

impl<'a> Batch<'a> {
    pub(super) fn new(authority: &'a Client, follower: &'a mut Client, way: Way<'a>, progress: &'a Progress) -> Self {
        Self { authority, follower, way, progress, tasks: Vec::new(), extra: Vec::new(), strange: Vec::new(), bytes: 0 }
    }

    /// Takes in what needs looking at.
    pub(super) fn add(&mut self, pair: Paired) {
        let id = pair.id();
        if pair.follower.as_ref().is_some_and(|there| there.strange) {
            self.strange.push(id);
            return;
        }
        let Some(here) = &pair.authority else {
            self.extra.push(id);
            return;
        };
        let there = pair.follower.as_ref();
        let content = there.is_none_or(|there| here.changed || there.changed || here.bytes != there.bytes);
        let described = !pair.described_alike();
        if !content && !described {
            return;
        }
        let bytes = here.bytes.max(there.map_or(0, |there| there.bytes));
        self.bytes += bytes;
        self.tasks.push(Task { id, bytes, missing: there.is_none(), expected: here.changed, described, content });
    }

    pub(super) fn is_full(&self) -> bool {
        self.tasks.len() + self.extra.len() + self.strange.len() >= OBJECTS || self.bytes >= BYTES
    }

    /// Makes what was taken in the same on both sides.
    pub(super) async fn settle(&mut self, round: &mut Round) -> PgResult<()> {
        self.bytes = 0;
        refuse(&std::mem::take(&mut self.strange))?;
        let extra = std::mem::take(&mut self.extra);
        self.remove(&extra).await?;
        round.removed += extra.len() as u64;
        let mut tasks = std::mem::take(&mut self.tasks);
        round.changed += tasks.len() as u64;
        if self.way.last {
            let lost = |task: &Task| task.missing && !task.expected;
            for task in tasks.iter().filter(|task| lost(task)) {
                differs(round, format!("large object {}: missing at the follower", task.id));
            }
            tasks.retain(|task| !lost(task));
        }
        self.make(&tasks, round).await?;
        for some in stretches(&tasks) {
            self.carry(&tasks, &some, round).await?;
        }
        self.cut(&tasks, round).await?;
        let described: Vec<u32> = tasks.iter().filter(|task| task.described).map(|task| task.id).collect();
        self.describe(&described).await
    }

    /// Makes those that the follower has none of, empty.
    async fn make(&mut self, tasks: &[Task], round: &mut Round) -> PgResult<()> {
        let missing: Vec<&Task> = tasks.iter().filter(|task| task.missing).collect();
        for task in missing.iter().filter(|task| !task.expected) {
            mended(round, format!("large object {}: was missing", task.id));
        }
        let ids: Vec<u32> = missing.iter().map(|task| task.id).collect();
        let sql = "INSERT INTO cutover.large_object_made SELECT pg_catalog.lo_create(p.id) FROM unnest($1::oid[]) AS p (id) \
             ON CONFLICT DO NOTHING";
        self.write("making large objects", sql, &ids).await
    }

    async fn remove(&mut self, ids: &[u32]) -> PgResult<()> {
        let sql = "WITH gone AS (SELECT p.id, pg_catalog.lo_unlink(p.id) FROM unnest($1::oid[]) AS p (id)) \
             DELETE FROM cutover.large_object_made o USING gone WHERE o.id = gone.id";
        self.write("removing large objects", sql, ids).await
    }

    async fn write(&mut self, doing: &str, sql: &str, ids: &[u32]) -> PgResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let transaction = guarded(self.follower, self.way.epoch).await?;
        transaction.execute(sql, &[&ids]).await.map_err(|error| PgError::sql(doing, error))?;
        commit(transaction, doing).await
    }

    /// Compares some stretches, and brings over what differs.
    async fn carry(&mut self, tasks: &[Task], stretches: &[Stretch], round: &mut Round) -> PgResult<()> {
        let task = |id: u32| tasks.iter().find(|task| task.id == id);
        let (missing, present): (Vec<Stretch>, Vec<Stretch>) =
            stretches.iter().copied().partition(|stretch| task(stretch.id).is_some_and(|task| task.missing));
        let mut wanted: BTreeSet<At> = BTreeSet::new();
        if !missing.is_empty() {
            wanted.extend(pages::chunks(self.authority, &missing).await?);
        }
        if !present.is_empty() {
            let compared = present.iter().map(|it| task(it.id).map_or(0, |task| held(task, it.from, it.below))).sum();
            self.way.limiter.take(compared).await;
            let (here, there) = tokio::try_join!(pages::digests(self.authority, &present), pages::digests(self.follower, &present))?;
            let either: BTreeSet<At> = here.keys().chain(there.keys()).copied().collect();
            let differing: Vec<At> = either.into_iter().filter(|at| here.get(at) != there.get(at)).collect();
            let unexpected: BTreeSet<u32> =
                differing.iter().map(|at| at.0).filter(|id| task(*id).is_some_and(|task| !task.expected)).collect();
            for id in &unexpected {
                let said = format!("large object {id}: its content differs");
                if self.way.last { differs(round, said) } else { mended(round, said) }
            }
            wanted.extend(differing.into_iter().filter(|at| !(self.way.last && unexpected.contains(&at.0))));
            self.progress.bytes.fetch_add(compared, std::sync::atomic::Ordering::Relaxed);
        }
        let sizes = |at: &At| task(at.0).map_or(0, |task| held(task, at.1, at.1 + 1));
        let portions = portions(&wanted.into_iter().collect::<Vec<At>>(), sizes);
        self.bring(&portions, round).await
    }

    /// Brings over some chunks, a portion after the other: the next is read while one is written.
    async fn bring(&mut self, portions: &[Vec<At>], round: &mut Round) -> PgResult<()> {
        let Self { authority, follower, way, progress, .. } = self;
        let mut read = match portions.first() {
            Some(first) => pages::read(authority, first).await?,
            None => return Ok(()),
        };
        for next in 1..=portions.len() {
            let bytes: u64 = read.iter().map(|(_, data)| data.len() as u64).sum();
            way.limiter.take(bytes).await;
            let reading = async {
                match portions.get(next) {
                    Some(portion) => pages::read(authority, portion).await,
                    None => Ok(Vec::new()),
                }
            };
            ((), read) = tokio::try_join!(put(follower, way.epoch, &read), reading)?;
            round.brought_bytes += bytes;
            progress.bytes.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(())
    }

    /// Shortens those that are longer at the follower.
    async fn cut(&mut self, tasks: &[Task], round: &mut Round) -> PgResult<()> {
        let ids: Vec<u32> = tasks.iter().filter(|task| task.content && !task.missing).map(|task| task.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        let (here, there) = tokio::try_join!(pages::sizes(self.authority, &ids), pages::sizes(self.follower, &ids))?;
        let longer = there.iter().map(|(id, bytes)| (*id, *bytes, here.get(id).copied().unwrap_or(0)));
        let mut longer: Vec<(u32, i64)> = longer.filter(|(_, there, here)| there > here).map(|(id, _, here)| (id, here)).collect();
        if self.way.last {
            let unexpected = |id: u32| tasks.iter().any(|task| task.id == id && !task.expected);
            for (id, _) in longer.iter().filter(|(id, _)| unexpected(*id)) {
                differs(round, format!("large object {id}: longer at the follower"));
            }
            longer.retain(|(id, _)| !unexpected(*id));
        }
        if longer.is_empty() {
            return Ok(());
        }
        let doing = "shortening large objects";
        let (ids, sizes): (Vec<u32>, Vec<i64>) = longer.into_iter().unzip();
        let transaction = guarded(self.follower, self.way.epoch).await?;
        // Opened for writing (INV_WRITE); the transaction's end closes it.
        let sql = "SELECT count(pg_catalog.lo_truncate64(pg_catalog.lo_open(p.id, 131072), p.bytes)) \
             FROM unnest($1::oid[], $2::bigint[]) AS p (id, bytes)";
        transaction.execute(sql, &[&ids, &sizes]).await.map_err(|error| PgError::sql(doing, error))?;
        commit(transaction, doing).await
    }

    /// Gives large objects the authority's owner, rights and comment.
    async fn describe(&mut self, ids: &[u32]) -> PgResult<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let sql = "SELECT m.oid, pg_catalog.pg_get_userbyid(m.lomowner)::text, CASE WHEN m.lomacl IS NULL THEN '' ELSE \
                 COALESCE((SELECT pg_catalog.string_agg(pg_catalog.format('GRANT %s ON LARGE OBJECT %s TO %s%s', e.privilege_type, m.oid, \
                     CASE WHEN e.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(e.grantee)) END, \
                     CASE WHEN e.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END), '; ') FROM pg_catalog.aclexplode(m.lomacl) e), ';') END, \
                 pg_catalog.obj_description(m.oid, 'pg_largeobject') \
             FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid = ANY ($1)";
        let rows = self.authority.query(sql, &[&ids]).await.map_err(|error| PgError::sql("reading the owners of large objects", error))?;
        let doing = "describing large objects";
        let present: Vec<u32> = rows.iter().map(|row| row.get(0)).collect();
        let owners: Vec<String> = rows.iter().map(|row| row.get(1)).collect();
        let rights: Vec<String> = rows.iter().map(|row| row.get(2)).collect();
        let comments: Vec<Option<String>> = rows.iter().map(|row| row.get(3)).collect();
        let transaction = guarded(self.follower, self.way.epoch).await?;
        let failed = |error| PgError::sql(doing, error);
        let made = "INSERT INTO cutover.large_object_made SELECT unnest($1::oid[]) ON CONFLICT DO NOTHING";
        transaction.execute(made, &[&present]).await.map_err(failed)?;
        let sql = "SELECT count(cutover.describe_large_object(p.id, p.owner, p.rights, p.comment)) \
             FROM unnest($1::oid[], $2::text[], $3::text[], $4::text[]) AS p (id, owner, rights, comment)";
        transaction.execute(sql, &[&present, &owners, &rights, &comments]).await.map_err(failed)?;
        commit(transaction, doing).await
    }
}

/// Chunks as they were read.
type Read = Vec<(At, Vec<u8>)>;

async fn put(follower: &mut Client, epoch: u64, chunks: &Read) -> PgResult<()> {
    let doing = "writing large objects";
    let ids: Vec<u32> = chunks.iter().map(|(at, _)| at.0).collect();
    let numbers: Vec<i64> = chunks.iter().map(|(at, _)| at.1).collect();
    let data: Vec<&[u8]> = chunks.iter().map(|(_, data)| data.as_slice()).collect();
    let transaction = guarded(follower, epoch).await?;
    let sql = "SELECT count(pg_catalog.lo_put(p.id, p.chunk * 1048576, p.data)) \
         FROM unnest($1::oid[], $2::bigint[], $3::bytea[]) AS p (id, chunk, data)";
    transaction.execute(sql, &[&ids, &numbers, &data]).await.map_err(|error| PgError::sql(doing, error))?;
    commit(transaction, doing).await
}

/// Chunks in portions that are held in memory at once.
fn portions(chunks: &[At], size: impl Fn(&At) -> u64) -> Vec<Vec<At>> {
    let (mut portions, mut portion, mut bytes) = (Vec::new(), Vec::new(), 0);
    for at in chunks {
        let size = size(at);
        if !portion.is_empty() && (bytes + size > HELD || portion.len() == CHUNKS) {
            portions.push(std::mem::take(&mut portion));
            bytes = 0;
        }
        portion.push(*at);
        bytes += size;
    }
    portions.extend(Some(portion).filter(|portion| !portion.is_empty()));
    portions
}

/// What is to be compared, in portions that a server answers soon.
fn stretches(tasks: &[Task]) -> Vec<Vec<Stretch>> {
    let most = BYTES / CHUNK;
    let (mut portions, mut portion, mut bytes) = (Vec::new(), Vec::new(), 0);
    for task in tasks.iter().filter(|task| task.content) {
        let chunks = (task.bytes + CHUNK - 1) / CHUNK;
        for from in (0..chunks).step_by(usize::try_from(most).unwrap_or(1)) {
            let below = chunks.min(from + most);
            portion.push(Stretch { id: task.id, from, below });
            bytes += task.bytes.min(below * CHUNK) - from * CHUNK;
            if bytes >= BYTES {
                portions.push(std::mem::take(&mut portion));
                bytes = 0;
            }
        }
    }
    portions.extend(Some(portion).filter(|portion| !portion.is_empty()));
    portions
}

/// What some chunks of a large object hold, by its size when it was looked at.
fn held(task: &Task, from: i64, below: i64) -> u64 {
    u64::try_from(task.bytes.min(below * CHUNK) - from * CHUNK).unwrap_or(0)
}

fn refuse(strange: &[u32]) -> PgResult<()> {
    if strange.is_empty() {
        return Ok(());
    }
    let named: Vec<String> = strange.iter().take(NAMED).map(u32::to_string).collect();
    Err(PgError::Refused {
        what: format!(
            "large objects at the side that follows were made or altered there by somebody else ({} in one look: {})",
            strange.len(),
            named.join(", ")
        ),
        hint: Some(
            "they would be overwritten or removed. Keep what you need of them elsewhere, remove them there with SELECT lo_unlink(…), and try again: \
             what the other side holds is brought over anew"
                .to_owned(),
        ),
    })
}

fn differs(round: &mut Round, what: String) {
    round.differences_total += 1;
    if round.differences.len() < NAMED {
        round.differences.push(what);
    }
}

fn mended(round: &mut Round, what: String) {
    round.mended_total += 1;
    if round.mended.len() < NAMED {
        round.mended.push(what);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: u32, bytes: i64) -> Task {
        Task { id, bytes, missing: false, expected: true, described: false, content: true }
    }

    #[test]
    fn a_large_one_is_compared_in_portions_and_small_ones_together() {
        let tasks = [task(1, 10), task(2, CHUNK + 1), task(3, 2 * BYTES + 1), task(4, 0)];
        let portions = stretches(&tasks);
        let said: Vec<Vec<(u32, i64, i64)>> =
            portions.iter().map(|portion| portion.iter().map(|it| (it.id, it.from, it.below)).collect()).collect();
        assert_eq!(said, [vec![(1, 0, 1), (2, 0, 2), (3, 0, 32)], vec![(3, 32, 64)], vec![(3, 64, 65)]]);
    }
}
