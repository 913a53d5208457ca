-- The totals of one side, in cents.
SELECT c.accounts, (c.total * 100)::bigint,
       a.number, a.total_cents, a.wrong, a.off_cents,
       (SELECT count(*) FROM bank.orders), (SELECT coalesce(sum(filled), 0) FROM bank.positions),
       (SELECT count(*) FROM (SELECT FROM bank.ledger GROUP BY client, op HAVING sum(amount) <> 0) u)
FROM bank.charter c,
     LATERAL (
         SELECT count(*) AS number,
                coalesce(sum(balance) * 100, 0)::bigint AS total_cents,
                count(*) FILTER (WHERE balance <> opening + moved OR version <> entries) AS wrong,
                coalesce(sum(abs(balance - opening - moved)) * 100, 0)::bigint AS off_cents
         FROM bank.accounts
         LEFT JOIN (SELECT account_id, sum(amount) AS moved_sum, count(*) AS entry_count FROM bank.ledger GROUP BY 1) l ON l.account_id = id,
              LATERAL (SELECT coalesce(moved_sum, 0) AS moved, coalesce(entry_count, 0) AS entries) n
     ) a
WHERE c.id = 1
