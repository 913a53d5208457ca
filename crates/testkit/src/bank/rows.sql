-- The rows that are there before any load: {accounts} accounts, and in proportion what they did. The same for the
-- same seed.

SELECT setseed({seed});

INSERT INTO bank.accounts (id, holder, opening, balance, status, profile, opened_at)
SELECT i, 'Holder ' || md5(random()::text), opening, opening,
       (CASE WHEN random() < 0.95 THEN 'active' WHEN random() < 0.5 THEN 'frozen' ELSE 'closed' END)::bank.account_status,
       jsonb_build_object('tier', floor(random() * 5), 'tags', jsonb_build_array('a', 'ü', NULL)),
       '2020-01-01'::timestamptz + random() * interval '5 years'
FROM (SELECT i, round((100 + random() * 10000)::numeric, 2) AS opening FROM generate_series(1, {accounts}) i) o;

INSERT INTO bank.charter SELECT 1, count(*), sum(opening) FROM bank.accounts;

INSERT INTO bank.transfers (client, op, debit, credit, amount, server_port)
SELECT 0, i, 1 + floor(random() * {accounts}), 1 + floor(random() * {accounts}), round((0.01 + random() * 100)::numeric, 2), NULL
FROM generate_series(1, {accounts}) i;

INSERT INTO bank.ledger (region, client, op, account_id, amount)
SELECT v.account_id % 40, 0, t.op, v.account_id, v.moved
FROM bank.transfers t, LATERAL (VALUES (t.debit, -t.amount), (t.credit, t.amount)) v (account_id, moved);

UPDATE bank.accounts a SET balance = balance + l.moved, version = l.entries
FROM (SELECT account_id, sum(amount) AS moved, count(*) AS entries FROM bank.ledger GROUP BY 1) l WHERE l.account_id = a.id;

INSERT INTO bank.orders (client, op, account_id, items, price, server_port)
SELECT 0, i, 1 + floor(random() * {accounts}), ARRAY['item ' || i, 'with, comma'], round((random() * 1000)::numeric, 2), NULL
FROM generate_series(1, 2 * {accounts}) i;

INSERT INTO bank.positions
SELECT account_id, (ARRAY['EUR', 'USD', 'CHF'])[1 + op % 3], count(*) FROM bank.orders GROUP BY 1, 2;

INSERT INTO bank.events (client, op, kind, payload, server_port)
SELECT 0, i, 'opened', decode(md5(random()::text), 'hex'), NULL FROM generate_series(1, {accounts}) i;

INSERT INTO bank."Tags" (tag, client, op, words, body)
SELECT 'old/' || i, 0, i, ARRAY[md5(i::text), ''], CASE WHEN i % 3 > 0 THEN repeat('long text ', i % 50) END
FROM generate_series(1, {accounts}) i;

-- Only now, so that the version counts what the ledger says.
CREATE TRIGGER touch_account BEFORE UPDATE ON bank.accounts FOR EACH ROW EXECUTE FUNCTION bank.touch_account();
