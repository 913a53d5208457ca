-- The bank: an application's database with some of everything that a move has to carry.
-- {owner} owns it, {app} works on it with no right but to read and write rows.
-- Every row that the load writes carries (client, op); client 0 is what was there before.

CREATE SCHEMA bank AUTHORIZATION {owner};
SET LOCAL ROLE {owner};

CREATE TYPE bank.account_status AS ENUM ('active', 'frozen', 'closed');
CREATE DOMAIN bank.currency AS text CHECK (VALUE ~ '^[A-Z]{3}$');

-- What there was at the start, for whoever checks the books.
CREATE TABLE bank.charter (
    id       int PRIMARY KEY CHECK (id = 1),
    accounts bigint NOT NULL,
    total    numeric(20, 2) NOT NULL
);

-- At any time: balance = opening + the sum of the ledger, version = the number of rows in the ledger.
CREATE TABLE bank.accounts (
    id         bigint PRIMARY KEY,
    holder     text NOT NULL,
    opening    numeric(14, 2) NOT NULL,
    balance    numeric(14, 2) NOT NULL CHECK (balance > -1000000000),
    status     bank.account_status NOT NULL DEFAULT 'active',
    profile    jsonb NOT NULL DEFAULT '{}',
    version    bigint NOT NULL DEFAULT 0,
    opened_at  timestamptz NOT NULL DEFAULT now(),
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX accounts_by_holder ON bank.accounts (lower(holder));
CREATE INDEX accounts_not_active ON bank.accounts (opened_at) WHERE status <> 'active';
COMMENT ON TABLE bank.accounts IS 'Who has how much';

CREATE TABLE bank.transfers (
    id          bigserial PRIMARY KEY,
    client      int NOT NULL,
    op          bigint NOT NULL,
    debit       bigint NOT NULL REFERENCES bank.accounts,
    credit      bigint NOT NULL REFERENCES bank.accounts,
    amount      numeric(14, 2) NOT NULL CHECK (amount > 0),
    server_port int DEFAULT inet_server_port(),
    made_at     timestamptz NOT NULL DEFAULT now(),
    UNIQUE (client, op)
);
CREATE INDEX transfers_by_debit ON bank.transfers (debit);

-- Two rows for every transfer; nothing but the sums would notice a third.
CREATE TABLE bank.ledger (
    id         bigserial,
    region     smallint NOT NULL,
    client     int NOT NULL,
    op         bigint NOT NULL,
    account_id bigint NOT NULL,
    amount     numeric(14, 2) NOT NULL,
    booked_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (region, id)
) PARTITION BY RANGE (region);
CREATE TABLE bank.ledger_north PARTITION OF bank.ledger FOR VALUES FROM (0) TO (10);
CREATE TABLE bank.ledger_east PARTITION OF bank.ledger FOR VALUES FROM (10) TO (20);
CREATE TABLE bank.ledger_south PARTITION OF bank.ledger FOR VALUES FROM (20) TO (30);
CREATE TABLE bank.ledger_elsewhere PARTITION OF bank.ledger DEFAULT;
CREATE INDEX ledger_by_account ON bank.ledger (account_id);

-- Nobody owns this sequence, and it takes big steps.
CREATE SEQUENCE bank.order_numbers START 1000 INCREMENT 5;
CREATE TABLE bank.orders (
    id          bigint PRIMARY KEY DEFAULT nextval('bank.order_numbers'),
    client      int NOT NULL,
    op          bigint NOT NULL,
    account_id  bigint NOT NULL REFERENCES bank.accounts,
    items       text[] NOT NULL,
    price       numeric(14, 2) NOT NULL,
    tax         numeric(14, 2) GENERATED ALWAYS AS (round(price * 0.19, 2)) STORED,
    server_port int DEFAULT inet_server_port(),
    ordered_at  timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX orders_by_op ON bank.orders (client, op);

-- How many orders there were per account and currency: the sum of filled is the number of orders.
CREATE TABLE bank.positions (
    account_id bigint NOT NULL,
    currency   bank.currency NOT NULL,
    filled     bigint NOT NULL,
    PRIMARY KEY (account_id, currency)
);

CREATE TABLE bank.events (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    client      int NOT NULL,
    op          bigint NOT NULL,
    kind        text NOT NULL,
    payload     bytea,
    server_port int DEFAULT inet_server_port(),
    at          timestamptz NOT NULL DEFAULT now()
);

-- Each client has one tag, and replaces it: rows come and go. The name needs quotes.
CREATE TABLE bank."Tags" (
    tag    text PRIMARY KEY,
    client int NOT NULL,
    op     bigint NOT NULL,
    words  text[] NOT NULL,
    body   text
);

CREATE VIEW bank.activity AS
    SELECT a.id, a.holder, a.balance, count(t.id) AS debits
    FROM bank.accounts a LEFT JOIN bank.transfers t ON t.debit = a.id
    GROUP BY a.id;

CREATE FUNCTION bank.touch_account() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.changed_at := now();
    RETURN NEW;
END $$;

GRANT USAGE ON SCHEMA bank TO {app};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA bank TO {app};
GRANT USAGE ON ALL SEQUENCES IN SCHEMA bank TO {app};
