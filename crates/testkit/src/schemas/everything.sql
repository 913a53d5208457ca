-- Everything that a schema can hold and a move has to keep. Executed at the source.
CREATE EXTENSION pgcrypto;
CREATE EXTENSION hstore WITH SCHEMA public;
CREATE SCHEMA ext;
CREATE EXTENSION citext WITH SCHEMA ext;
CREATE EXTENSION btree_gist;
CREATE SCHEMA app AUTHORIZATION df_owner;
CREATE SCHEMA "Other Schema";
COMMENT ON SCHEMA app IS E'the application''s\n-- Name: not_a_header; Type: TABLE; Schema: x\nSET transaction_timeout = 0;';
CREATE COLLATION app.german (PROVIDER = icu, LOCALE = 'de-DE', DETERMINISTIC = true);
CREATE COLLATION app.bare FROM "C";

CREATE TYPE app.state AS ENUM ('new', 'it''s "old"');
COMMENT ON TYPE app.state IS 'a state';
CREATE DOMAIN app.mail AS ext.citext CONSTRAINT has_at CHECK (VALUE ~ '@');
CREATE TYPE app.address AS (street text, "Zip code" text);
CREATE TYPE app.span AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = app.spans);

CREATE FUNCTION app.touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
-- Name: f; Type: FUNCTION; Schema: app; Owner: nobody
/*
SET transaction_timeout = 0;
\restrict me
*/
    NEW.changed_at := '2026-01-01'; RETURN NEW;
END $$;
CREATE FUNCTION app.normal(v text) RETURNS text LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$ SELECT lower(v) $$;
CREATE FUNCTION app.modern(a int, b int DEFAULT 2) RETURNS int LANGUAGE sql STABLE BEGIN ATOMIC SELECT a + b; END;
CREATE PROCEDURE app.work(INOUT n int) LANGUAGE plpgsql SECURITY DEFINER SET search_path = app, pg_temp AS $$ BEGIN n := n + 1; END $$;
CREATE AGGREGATE app.total (int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE OPERATOR app.=== (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq, COMMUTATOR = OPERATOR(app.===));
CREATE TEXT SEARCH CONFIGURATION app.words (COPY = english);
CREATE CAST (app.address AS text) WITH INOUT;

CREATE SEQUENCE app.free_numbers AS smallint START 100 INCREMENT -5 MINVALUE -100 MAXVALUE 1000 CYCLE CACHE 10;
SELECT nextval('app.free_numbers');

CREATE TABLE app.people (
    id bigint GENERATED ALWAYS AS IDENTITY (START 10 INCREMENT 10) PRIMARY KEY,
    old_id serial UNIQUE,
    mail app.mail NOT NULL,
    name text COLLATE app.german DEFAULT 'it''s',
    state app.state NOT NULL DEFAULT 'new',
    home app.address,
    tags hstore,
    secret bytea DEFAULT gen_random_bytes(4),
    changed_at timestamptz,
    boss bigint,
    initials text GENERATED ALWAYS AS (app.normal(left(name, 1))) STORED,
    CONSTRAINT named_check CHECK (old_id > 0),
    CONSTRAINT unique_deferred UNIQUE (name, old_id) DEFERRABLE INITIALLY DEFERRED
);
ALTER TABLE app.people OWNER TO df_owner;
COMMENT ON TABLE app.people IS 'people';
COMMENT ON COLUMN app.people.mail IS 'where to';
COMMENT ON CONSTRAINT named_check ON app.people IS 'positive';
ALTER TABLE app.people ADD FOREIGN KEY (boss) REFERENCES app.people DEFERRABLE;
ALTER TABLE app.people ALTER mail SET STATISTICS 500, ALTER secret SET STORAGE EXTERNAL, SET (fillfactor = 80, autovacuum_enabled = off);
CREATE INDEX people_partial ON app.people (old_id DESC NULLS LAST) INCLUDE (name) WHERE state = 'new';
CREATE UNIQUE INDEX people_expression ON app.people (app.normal(mail::text), (old_id + 1));
CREATE INDEX people_tags ON app.people USING gin (tags);
CREATE INDEX "People's ""odd"" index" ON app.people USING hash (name);
CREATE INDEX people_brin ON app.people USING brin (changed_at) WITH (pages_per_range = 4);
COMMENT ON INDEX app.people_partial IS 'partly';
ALTER TABLE app.people CLUSTER ON people_expression;
ALTER TABLE app.people REPLICA IDENTITY USING INDEX people_old_id_key;
CREATE STATISTICS app.people_statistics (ndistinct, dependencies) ON name, old_id FROM app.people;
CREATE STATISTICS app.people_expressions ON (lower(name)), old_id FROM app.people;

CREATE TABLE "Other Schema"."Rooms" (id int PRIMARY KEY, during tstzrange, person bigint REFERENCES app.people ON DELETE CASCADE,
    CONSTRAINT no_overlap EXCLUDE USING gist (id WITH =, during WITH &&));
CREATE TABLE app.chicken (id int PRIMARY KEY, egg int);
CREATE TABLE app.egg (id int PRIMARY KEY, chicken int REFERENCES app.chicken);
ALTER TABLE app.chicken ADD CONSTRAINT came_from FOREIGN KEY (egg) REFERENCES app.egg;
ALTER TABLE app.egg ADD CONSTRAINT fresh CHECK (id > 100) NOT VALID;
ALTER TABLE app.egg ADD CONSTRAINT unsure FOREIGN KEY (id) REFERENCES "Other Schema"."Rooms" NOT VALID;

CREATE TABLE app.events (id bigint, at date NOT NULL, kind text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE app.events_2025 PARTITION OF app.events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY HASH (id);
CREATE TABLE app.events_2025_a PARTITION OF app.events_2025 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE app.events_2025_b PARTITION OF app.events_2025 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE app.events_rest PARTITION OF app.events DEFAULT;
CREATE INDEX events_kind ON app.events (kind);
CREATE INDEX events_own ON app.events_2025_a (at);
ALTER TABLE app.events ADD FOREIGN KEY (id) REFERENCES app.people;
CREATE TABLE app.base (id int PRIMARY KEY, v text CHECK (v <> ''));
CREATE TABLE app.derived (CHECK (id > 0)) INHERITS (app.base);
CREATE UNLOGGED TABLE app.cache (id int PRIMARY KEY);

CREATE VIEW app.young AS SELECT id, mail, app.modern(id::int) AS more FROM app.people WHERE state = 'new' WITH CASCADED CHECK OPTION;
CREATE VIEW app.safe WITH (security_barrier) AS SELECT count(*) AS n FROM app.young;
CREATE VIEW app.counted AS WITH RECURSIVE c (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM c WHERE n < 3) SELECT n FROM c;
-- Named so that the one that needs another comes first by name.
CREATE MATERIALIZED VIEW app.m2 AS SELECT state, count(*) AS n FROM app.people GROUP BY state;
CREATE MATERIALIZED VIEW app.m1 AS SELECT sum(n) AS n FROM app.m2;
CREATE UNIQUE INDEX m2_state ON app.m2 (state);
CREATE MATERIALIZED VIEW app.empty_yet AS SELECT * FROM app.people WITH NO DATA;
CREATE RULE quiet AS ON DELETE TO app.base DO INSTEAD NOTHING;
CREATE TRIGGER touched BEFORE INSERT OR UPDATE OF name ON app.people FOR EACH ROW WHEN (NEW.name IS NOT NULL) EXECUTE FUNCTION app.touch();
CREATE TRIGGER never BEFORE UPDATE ON app.people FOR EACH ROW EXECUTE FUNCTION app.touch();
ALTER TABLE app.people DISABLE TRIGGER never;
CREATE TRIGGER always_there BEFORE UPDATE ON app.base FOR EACH ROW EXECUTE FUNCTION app.touch();
ALTER TABLE app.base ENABLE ALWAYS TRIGGER always_there;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON app.chicken DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION app.touch();
ALTER TABLE app.chicken DISABLE TRIGGER late;
ALTER TABLE app.people ENABLE ROW LEVEL SECURITY;
CREATE POLICY own_rows ON app.people AS PERMISSIVE FOR SELECT TO df_reader USING (mail = CURRENT_USER::text);
CREATE POLICY restricted ON app.people AS RESTRICTIVE FOR UPDATE TO PUBLIC USING (true) WITH CHECK (state = 'new');
ALTER TABLE "Other Schema"."Rooms" ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA app TO df_reader;
GRANT SELECT, UPDATE (name) ON app.people TO df_reader WITH GRANT OPTION;
GRANT SELECT ON app.young, app.m2 TO df_reader;
GRANT USAGE ON SEQUENCE app.free_numbers TO df_reader;
-- The owner of an index on it has no right to it any more.
REVOKE EXECUTE ON FUNCTION app.normal(text) FROM PUBLIC;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON TYPE app.state TO df_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE df_owner IN SCHEMA app GRANT SELECT ON TABLES TO df_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE df_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

CREATE FOREIGN DATA WRAPPER nothing;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing OPTIONS (host 'h');
CREATE FOREIGN TABLE app.far (id int) SERVER elsewhere;

-- In the schema that is never dropped as a whole.
CREATE TYPE plain_state AS ENUM ('a'); CREATE DOMAIN plain_domain AS int; CREATE TYPE plain_pair AS (a int);
CREATE COLLATION plain_collation FROM "C"; CREATE FUNCTION plain_function() RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE plain_total (int) (SFUNC = int4pl, STYPE = int); CREATE SEQUENCE plain_sequence; CREATE VIEW plain_view AS SELECT 1 AS one;
CREATE OPERATOR === (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq);
CREATE OPERATOR CLASS plain_class FOR TYPE plain_domain USING btree AS OPERATOR 1 <(int, int), FUNCTION 1 btint4cmp(int, int);
CREATE TEXT SEARCH DICTIONARY plain_dictionary (TEMPLATE = simple); CREATE TEXT SEARCH CONFIGURATION plain_words (COPY = simple);
CREATE CONVERSION plain_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;
CREATE CAST (plain_pair AS plain_state) WITH INOUT;
CREATE TABLE plain_table (id serial PRIMARY KEY, v plain_domain);
CREATE STATISTICS plain_statistics ON id, v FROM plain_table;

INSERT INTO app.people (mail, name, tags) SELECT 'p' || n || '@x', 'Name ' || n, hstore('n', n::text) FROM generate_series(1, 50) n;
UPDATE app.people SET boss = 10 WHERE id > 10;
INSERT INTO "Other Schema"."Rooms" VALUES (1, '[2026-01-01,2026-01-02)', 10), (1, '[2026-01-02,2026-01-03)', 20) ON CONFLICT DO NOTHING;
INSERT INTO app.events SELECT n * 10, '2025-01-01'::date + n * 20, CASE n % 3 WHEN 0 THEN 'a' WHEN 1 THEN 'b' END FROM generate_series(1, 40) n;
ALTER TABLE app.chicken DISABLE TRIGGER ALL; ALTER TABLE app.egg DISABLE TRIGGER ALL;
INSERT INTO app.chicken VALUES (1, 101); INSERT INTO app.egg VALUES (101, 1);
ALTER TABLE app.egg ENABLE TRIGGER ALL; ALTER TABLE app.chicken ENABLE TRIGGER ALL;
REFRESH MATERIALIZED VIEW app.m2; REFRESH MATERIALIZED VIEW app.m1;
