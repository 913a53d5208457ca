//! A look at all large objects of both sides: what each is, and whether it was written since the look before.
//!
//! Replication does not carry large objects, so nothing tells which of them change. But every page of one is a row of
//! `pg_largeobject`, and a row says which transaction wrote it. A look reads the pages without their content: the size
//! of each object, and whether a page was written by a transaction that the look before had not seen.

use std::time::Duration;

use tokio_postgres::{Client, IsolationLevel, Portal, Row, Transaction, error::SqlState};

use crate::{PgError, PgResult};

const DOING: &str = "looking at large objects";

/// Rows that are fetched at once.
const FETCH: i32 = 2000;

/// Transactions that can be told apart by the 32 bits that a row has for them.
const TELLABLE: i64 = (1 << 31) - 1_000_000;

/// A large object at one side.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) id: u32,
    /// Owner, rights and comment.
    meta: String,
    /// Unit: bytes.
    pub(super) bytes: i64,
    /// Whether it was written, made or altered since the last look.
    pub(super) changed: bool,
    /// Whether somebody else than we made or altered it since the last look. Asked at the follower only.
    pub(super) strange: bool,
}

/// A large object at either side, or both.
#[derive(Debug)]
pub(super) struct Paired {
    pub(super) authority: Option<Seen>,
    pub(super) follower: Option<Seen>,
}

impl Paired {
    pub(super) fn id(&self) -> u32 {
        self.authority.as_ref().or(self.follower.as_ref()).map_or(0, |seen| seen.id)
    }

    /// Whether owner, rights and comment are the same.
    pub(super) fn described_alike(&self) -> bool {
        matches!((&self.authority, &self.follower), (Some(here), Some(there)) if here.meta == there.meta)
    }
}

/// A look at one side, in one snapshot.
pub(super) struct Look<'a> {
    transaction: Transaction<'a>,
    portal: Portal,
    rows: std::vec::IntoIter<Row>,
    ended: bool,
    limit: Option<Duration>,
    /// The snapshot, to be noted when all is done with.
    pub(super) snapshot: String,
}

/// A look that has its snapshot.
struct Begun<'a> {
    transaction: Transaction<'a>,
    snapshot: String,
    /// The snapshot of the look before, if a row can still be told to be newer than it.
    seen: Option<String>,
    /// What the round of that look was called.
    round: Option<String>,
    limit: Option<Duration>,
}

impl<'a> Begun<'a> {
    async fn new(client: &'a mut Client, limit: Option<Duration>) -> PgResult<Self> {
        let failed = |error| failed(error, limit);
        let building = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = building.start().await.map_err(failed)?;
        // All pages are read, so they are read in the order in which they lie.
        let mut set =
            "SET LOCAL jit = off; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_mergejoin = off"
                .to_owned();
        if let Some(limit) = limit {
            set += &format!("; SET LOCAL statement_timeout = {}", limit.as_millis().max(1));
        }
        transaction.batch_execute(&set).await.map_err(failed)?;
        let sql = "SELECT pg_catalog.pg_current_snapshot()::text, l.seen::text, l.round FROM (VALUES (1)) v LEFT JOIN cutover.large_object_look l \
             ON pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint - pg_catalog.pg_snapshot_xmin(l.seen)::text::bigint < $1";
        let row = transaction.query_one(sql, &[&TELLABLE]).await.map_err(failed)?;
        let (snapshot, seen, round) = (row.get(0), row.get(1), row.get(2));
        Ok(Self { transaction, snapshot, seen, round, limit })
    }

    /// Asks. Where the other side does not know of the look before, everything counts as changed.
    async fn ask(self, follower: bool, known: bool) -> PgResult<Look<'a>> {
        let failed = |error| failed(error, self.limit);
        let sql = look_sql(self.seen.as_deref(), follower, known);
        let statement = self.transaction.prepare(&sql).await.map_err(failed)?;
        let portal = self.transaction.bind(&statement, &[]).await.map_err(failed)?;
        Ok(Look {
            transaction: self.transaction,
            portal,
            rows: Vec::new().into_iter(),
            ended: false,
            limit: self.limit,
            snapshot: self.snapshot,
        })
    }
}

impl Look<'_> {
    async fn next(&mut self) -> PgResult<Option<Seen>> {
        loop {
            if let Some(row) = self.rows.next() {
                return Ok(Some(Seen { id: row.get(0), meta: row.get(1), bytes: row.get(2), changed: row.get(3), strange: row.get(4) }));
            }
            if self.ended {
                return Ok(None);
            }
            let rows = self.transaction.query_portal(&self.portal, FETCH).await.map_err(|error| failed(error, self.limit))?;
            self.ended = rows.is_empty();
            self.rows = rows.into_iter();
        }
    }
}

/// Both sides in step, by their numbers. What stands at the front of each is held.
pub(super) struct Pairing<'a> {
    pub(super) authority: Look<'a>,
    pub(super) follower: Look<'a>,
    heads: [Option<Seen>; 2],
}

impl<'a> Pairing<'a> {
    /// Begins. Each side's answer is to come within `limit`, if there is one.
    pub(super) async fn begin(authority: &'a mut Client, follower: &'a mut Client, limit: Option<Duration>) -> PgResult<Self> {
        let (authority, follower) = tokio::try_join!(Begun::new(authority, limit), Begun::new(follower, limit))?;
        let known = authority.round.is_some() && authority.round == follower.round;
        let (mut authority, mut follower) = tokio::try_join!(authority.ask(false, known), follower.ask(true, known))?;
        // What a server reads, it reads before its first answer: so both are asked at once.
        let heads = tokio::try_join!(authority.next(), follower.next())?;
        Ok(Self { authority, follower, heads: heads.into() })
    }

    pub(super) async fn next(&mut self) -> PgResult<Option<Paired>> {
        let [here, there] = &self.heads;
        let (takes_here, takes_there) = match (here, there) {
            (None, None) => return Ok(None),
            (Some(here), Some(there)) => (here.id <= there.id, there.id <= here.id),
            (here, there) => (here.is_some(), there.is_some()),
        };
        let mut pair = Paired { authority: None, follower: None };
        if takes_here {
            pair.authority = std::mem::replace(&mut self.heads[0], self.authority.next().await?);
        }
        if takes_there {
            pair.follower = std::mem::replace(&mut self.heads[1], self.follower.next().await?);
        }
        Ok(Some(pair))
    }
}

/// A server that has given up at our limit ran out of time, and did not fail.
fn failed(error: tokio_postgres::Error, limit: Option<Duration>) -> PgError {
    match limit {
        Some(limit) if error.code() == Some(&SqlState::QUERY_CANCELED) => PgError::TimedOut { doing: DOING.to_owned(), limit },
        _ => PgError::sql(DOING, error),
    }
}

/// What has no `seen` is all changed. `age` counts from a point that stays the same through the transaction; a row that was
/// frozen long ago may have a negative one. `OFFSET 0` keeps the content out of any sorting.
fn look_sql(seen: Option<&str>, follower: bool, known: bool) -> String {
    let (mut changed, touched) = match seen {
        None => (["true"; 2].map(str::to_owned), "true".to_owned()),
        Some(seen) => {
            let first = format!("pg_catalog.pg_snapshot_xmin('{seen}'::pg_catalog.pg_snapshot)::text::bigint");
            let age = format!("(SELECT pg_catalog.age(({first} % 4294967296)::text::xid))");
            let changed = ["lo", "m"].map(|row| format!("pg_catalog.age({row}.xmin) BETWEEN 0 AND {age}"));
            let id = format!("((SELECT {first}) + {age} - pg_catalog.age(m.xmin))::text::pg_catalog.xid8");
            let unseen = format!("NOT pg_catalog.pg_visible_in_snapshot({id}, '{seen}'::pg_catalog.pg_snapshot)");
            let touched = format!("CASE WHEN {} THEN {unseen} ELSE false END", changed[1]);
            (changed, touched)
        }
    };
    if !known {
        changed = ["true"; 2].map(str::to_owned);
    }
    let [written, made] = changed;
    let strange = if follower {
        format!("{touched} AND NOT EXISTS (SELECT FROM cutover.large_object_made o WHERE o.id = m.oid)")
    } else {
        "false".to_owned()
    };
    format!(
        "SELECT m.oid, \
             pg_catalog.concat_ws('|', pg_catalog.pg_get_userbyid(m.lomowner), \
                 CASE WHEN m.lomacl IS NULL OR m.lomacl = pg_catalog.acldefault('L', m.lomowner) THEN '' ELSE \
                     (SELECT COALESCE(pg_catalog.string_agg(x.said, ',' ORDER BY x.said), 'nobody') FROM ( \
                         SELECT pg_catalog.format('%s %s %s', CASE WHEN e.grantee = 0 THEN 'PUBLIC' \
                             ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(e.grantee)) END, e.privilege_type, e.is_grantable) COLLATE \"C\" AS said \
                         FROM pg_catalog.aclexplode(m.lomacl) e) x) END, \
                 pg_catalog.md5(d.description)), \
             COALESCE(s.bytes, 0), COALESCE(s.written, false) OR {made}, {strange} \
         FROM pg_catalog.pg_largeobject_metadata m \
         LEFT JOIN (SELECT p.loid, max(p.bytes) AS bytes, bool_or(p.written) AS written FROM ( \
             SELECT lo.loid, lo.pageno::bigint * {page} + pg_catalog.octet_length(lo.data) AS bytes, {written} AS written \
             FROM pg_catalog.pg_largeobject lo OFFSET 0) p GROUP BY p.loid) s ON s.loid = m.oid \
         LEFT JOIN pg_catalog.pg_description d \
             ON d.objoid = m.oid AND d.classoid = 'pg_catalog.pg_largeobject'::pg_catalog.regclass AND d.objsubid = 0 \
         ORDER BY m.oid",
        page = super::PAGE_SQL,
    )
}
