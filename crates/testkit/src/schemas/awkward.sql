-- Names, keys and definitions that a tool trips over. Wants everything.sql.

-- Names: of ours with a difference, of 63 bytes with a character at the end that must not be cut, of our aliases.
CREATE SCHEMA "cutover ";
CREATE SCHEMA "Cutover";
CREATE SCHEMA pglike;
CREATE SCHEMA "select";
CREATE SCHEMA "sch""e'ma.with\dot";
CREATE TABLE "cutover ".marker (id text PRIMARY KEY, written_at timestamptz DEFAULT now());
CREATE TABLE "Cutover".owner (singleton int PRIMARY KEY, "plan" text, side text);
CREATE TABLE public.marker (id int PRIMARY KEY, v text);
CREATE TABLE public.cutover_gate (id int PRIMARY KEY, v text);
CREATE TABLE public."my cutover_gate table" (id int PRIMARY KEY, v text);
CREATE INDEX " cutover_gate " ON public.cutover_gate (v);
CREATE TABLE pglike.t (t int PRIMARY KEY, r text, k text, n int, x int, u text, y int, h1 int, h2 int, v text, f boolean, "ctid " int, "T" text);
CREATE TABLE pglike."table" (n int, t text, "order" int, "user" text, PRIMARY KEY (t, n));
CREATE TABLE "select"."from" ("where" int PRIMARY KEY, "group" text, "NULL" text, "*" text, "$1" text, "a.b" text, "a""b" text, "it's" text, "a\b" text, U&"tab\0009here" text, " " text);
CREATE TABLE "sch""e'ma.with\dot"."ta""b'le.with\dot; -- $$" ("co""l'umn.with\dot" int PRIMARY KEY, "%I %s %L" text, "{}" text);
CREATE TABLE public."ääääääääääääääääääääääääääääääa" ("ööööööööööööööööööööööööööööööö" int PRIMARY KEY, "🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘🐘" serial UNIQUE);
CREATE TABLE public."ääääääääääääääääääääääääääääääb" (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
CREATE TABLE public."line
break" (id int PRIMARY KEY, "co
lumn" text);
CREATE SEQUENCE "sch""e'ma.with\dot"."se""q'uence" AS int INCREMENT -3 MAXVALUE 100 MINVALUE -100000;
SELECT nextval('"sch""e''ma.with\dot"."se""q''uence"');
INSERT INTO "cutover ".marker (id, written_at) SELECT 'm' || n, '2026-01-01' FROM generate_series(1, 20) n;
INSERT INTO "Cutover".owner SELECT n, 'p', 's' FROM generate_series(1, 20) n;
INSERT INTO public.marker SELECT n, 'v' FROM generate_series(1, 20) n;
INSERT INTO public.cutover_gate SELECT n, 'v' FROM generate_series(1, 20) n;
INSERT INTO public."my cutover_gate table" SELECT n, 'v' FROM generate_series(1, 20) n;
INSERT INTO pglike.t SELECT n, 'r', 'k', n, n, 'u', n, n, n, 'v', true, n, 'T' FROM generate_series(1, 50) n;
INSERT INTO pglike."table" SELECT n, 't' || n % 3, n, 'user' FROM generate_series(1, 50) n;
INSERT INTO "select"."from" SELECT n, 'g', NULL, '*', '$1', '.', '"', '''', '\', E'\t', ' ' FROM generate_series(1, 20) n;
INSERT INTO "sch""e'ma.with\dot"."ta""b'le.with\dot; -- $$" SELECT n, '%s', '{}' FROM generate_series(1, 20) n;
INSERT INTO public."ääääääääääääääääääääääääääääääa" SELECT n FROM generate_series(1, 20) n;
INSERT INTO public."ääääääääääääääääääääääääääääääb" (v) SELECT 'v' FROM generate_series(1, 20) n;
INSERT INTO public."line
break" SELECT n, E'a\nb' FROM generate_series(1, 20) n;

-- Text that looks like the headers of a dump, in the section that is split.
CREATE TABLE app.told (id int PRIMARY KEY, v text);
CREATE INDEX told_v ON app.told (v) WHERE v <> 'x
--
-- Name: forged; Type: INDEX; Schema: app; Owner: nobody
--
SET default_tablespace = nowhere;
it''s';
COMMENT ON INDEX app.told_v IS 'first
--
-- Name: told forged; Type: CONSTRAINT; Schema: app; Owner: nobody
--

DROP TABLE app.told;
SET default_tablespace = nowhere;
-- last';
CREATE POLICY told_policy ON app.told USING (v <> '
-- Name: forged; Type: TRIGGER; Schema: app; Owner: nobody
');
COMMENT ON POLICY told_policy ON app.told IS 'p';
CREATE INDEX "i; Type: TRIGGER; Schema: x; Owner: y" ON app.told (id);
CREATE RULE told_rule AS ON UPDATE TO app.told WHERE OLD.v = 'never
-- Name: r; Type: INDEX; Schema: app; Owner: nobody
' DO INSTEAD NOTHING;
COMMENT ON RULE told_rule ON app.told IS 'r';
INSERT INTO app.told SELECT n, 'v' || n FROM generate_series(1, 20) n;

-- Comments on everything.
COMMENT ON CONSTRAINT no_overlap ON "Other Schema"."Rooms" IS 'c'; COMMENT ON TRIGGER touched ON app.people IS 't';
COMMENT ON STATISTICS app.people_statistics IS 's'; COMMENT ON SEQUENCE app.free_numbers IS 's'; COMMENT ON DOMAIN app.mail IS 'd';
COMMENT ON COLLATION app.german IS 'c'; COMMENT ON AGGREGATE app.total (int) IS 'a'; COMMENT ON OPERATOR app.=== (text, text) IS 'o';
COMMENT ON CAST (app.address AS text) IS 'c'; COMMENT ON TEXT SEARCH CONFIGURATION app.words IS 't'; COMMENT ON VIEW app.young IS 'v';
COMMENT ON MATERIALIZED VIEW app.m2 IS 'm'; COMMENT ON FOREIGN TABLE app.far IS 'f'; COMMENT ON FUNCTION app.normal(text) IS 'f';
COMMENT ON FOREIGN DATA WRAPPER nothing IS 'w'; COMMENT ON SERVER elsewhere IS 's'; COMMENT ON EXTENSION hstore IS 'e';
COMMENT ON PROCEDURE app.work(int) IS 'p'; COMMENT ON TYPE app.span IS 'r'; COMMENT ON COLUMN app.young.id IS 'v';
COMMENT ON OPERATOR CLASS plain_class USING btree IS 'o'; COMMENT ON CONVERSION plain_conversion IS 'c';

-- Keys of every kind that can be one.
CREATE DOMAIN app.deeper AS app.mail CHECK (length(VALUE) < 100);
CREATE DOMAIN app.small AS smallint;
CREATE COLLATION app.loose (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
CREATE TYPE app."Odd ""enum""" AS ENUM ('', 'b', 'a', 'a b', 'a"b', 'a''b', 'ä', 'NULL', ',', '{}');
CREATE TABLE app.keys_text (k text PRIMARY KEY, v int);
CREATE TABLE app.keys_c (k text COLLATE "C", j varchar(10) COLLATE app.german, v int, PRIMARY KEY (k, j));
CREATE TABLE app.keys_loose (k text COLLATE app.loose PRIMARY KEY, v int);
CREATE TABLE app.keys_deep (k app.deeper PRIMARY KEY, v int);
CREATE TABLE app.keys_enum (k app."Odd ""enum""", n app.small, v int, PRIMARY KEY (k, n));
CREATE TABLE app.keys_range (k app.span, m app.spans, v int, PRIMARY KEY (k, m));
CREATE TABLE app.keys_pair (k app.address PRIMARY KEY, v int);
CREATE TABLE app.keys_array (k text[], j int[], v int, PRIMARY KEY (j, k));
CREATE TABLE app.keys_float (k float8, n numeric, v int, PRIMARY KEY (k, n));
CREATE TABLE app.keys_time (k timestamptz, i interval, v int, PRIMARY KEY (k, i));
CREATE TABLE app.keys_raw (k bytea, u uuid, v int, PRIMARY KEY (k, u));
CREATE TABLE app.keys_char (k char(5), c "char", n name, v int, PRIMARY KEY (k, c, n));
CREATE TABLE app.keys_net (k inet, b bit varying, j jsonb, v int, PRIMARY KEY (k, b, j));
CREATE TABLE app.keys_wide (a int, b int, c int, d int, e int, f int, g int, h int, i int, j int, k int, l int, v text,
    PRIMARY KEY (l, k, j, i, h, g, f, e, d, c, b, a) INCLUDE (v));
CREATE TABLE app.keys_index (a int NOT NULL, b text NOT NULL, c int, UNIQUE (b, a), PRIMARY KEY (a, b));
ALTER TABLE app.keys_index REPLICA IDENTITY USING INDEX keys_index_b_a_key;
CREATE TABLE app.keys_whole (a int, b text, c numeric, d app.state, e app.address, f int[]);
ALTER TABLE app.keys_whole REPLICA IDENTITY FULL;
CREATE TABLE app.keys_late (a int, b int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, c int NOT NULL UNIQUE);
ALTER TABLE app.keys_late REPLICA IDENTITY USING INDEX keys_late_c_key;
INSERT INTO app.keys_text SELECT k, 1 FROM unnest(ARRAY['', ' ', '  ', 'a', 'A', 'ä', 'ae', 'z', 'Z', '-', 'a-b', 'ab', '🐘', U&'e\0301', U&'\00e9', '''', '"', '\', 'NULL', ',', '{', E'\n', E'\t']) k;
INSERT INTO app.keys_text SELECT 'k' || n, n FROM generate_series(1, 500) n;
INSERT INTO app.keys_c SELECT k, left(k, 10), v FROM app.keys_text;
INSERT INTO app.keys_loose SELECT k, v FROM app.keys_text ON CONFLICT DO NOTHING;
INSERT INTO app.keys_deep SELECT 'P' || n || '@x', n FROM generate_series(1, 100) n;
INSERT INTO app.keys_enum SELECT k, n, n FROM unnest(enum_range(NULL::app."Odd ""enum""")) k, generate_series(-3, 3) n;
INSERT INTO app.keys_range SELECT app.span(n, n + 0.5), app.spans(app.span(n, n + 1)), n FROM generate_series(1, 50) n;
INSERT INTO app.keys_pair SELECT ROW('s, "' || n, CASE WHEN n % 2 = 0 THEN NULL ELSE '' END)::app.address, n FROM generate_series(1, 50) n;
INSERT INTO app.keys_array SELECT ARRAY['a', NULL, '', '"', n::text], ARRAY[n, NULL], n FROM generate_series(1, 50) n;
INSERT INTO app.keys_array VALUES ('{}', '{}', 0), ('[0:1]={a,b}', '{{1,2},{3,4}}', 0);
INSERT INTO app.keys_float SELECT k, n, 1 FROM unnest('{NaN,-Infinity,Infinity,0,0.1,1e-300,-1}'::float8[]) k, unnest('{NaN,-Infinity,Infinity,0,1.10,1e50}'::numeric[]) n;
INSERT INTO app.keys_time SELECT k, i, 1 FROM unnest('{infinity,-infinity,2026-03-29 02:30+01,0044-03-15 BC}'::timestamptz[]) k, unnest('{1 mon,30 days 1us,-1 day,0}'::interval[]) i;
INSERT INTO app.keys_raw SELECT decode(lpad(to_hex(n), 4, '0'), 'hex'), md5(n::text)::uuid, n FROM generate_series(1, 50) n;
INSERT INTO app.keys_raw VALUES ('', '00000000-0000-0000-0000-000000000000', 0);
INSERT INTO app.keys_char SELECT k, n::"char", 'n' || n, n FROM unnest('{"",a,"a b",ä}'::text[]) k, generate_series(33, 60) n;
INSERT INTO app.keys_net SELECT ('10.0.0.' || n || '/8')::inet, n::bit(8), jsonb_build_object('n', n, 'a', ARRAY[n]), n FROM generate_series(1, 50) n;
INSERT INTO app.keys_wide SELECT n % 2, n % 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, n, 'v' FROM generate_series(-50, 50) n;
INSERT INTO app.keys_index SELECT n, 'b' || n, n FROM generate_series(1, 50) n;
INSERT INTO app.keys_whole SELECT n % 5, NULLIF('b' || n % 3, 'b0'), n % 2, 'new', ROW('s'::text, NULL::text)::app.address, ARRAY[n % 2, NULL] FROM generate_series(1, 50) n;
INSERT INTO app.keys_late SELECT n, n, n FROM generate_series(1, 50) n;

-- Foreign keys in circles, to themselves, deferred, over partitions, with columns set.
CREATE TABLE app.ring_a (id int PRIMARY KEY, b int NOT NULL);
CREATE TABLE app.ring_b (id int PRIMARY KEY, c int NOT NULL);
CREATE TABLE app.ring_c (id int PRIMARY KEY, a int NOT NULL REFERENCES app.ring_a DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE app.ring_a ADD FOREIGN KEY (b) REFERENCES app.ring_b DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE app.ring_b ADD FOREIGN KEY (c) REFERENCES app.ring_c ON UPDATE CASCADE ON DELETE RESTRICT DEFERRABLE INITIALLY DEFERRED;
BEGIN;
INSERT INTO app.ring_a SELECT n, n FROM generate_series(1, 20) n;
INSERT INTO app.ring_b SELECT n, n FROM generate_series(1, 20) n;
INSERT INTO app.ring_c SELECT n, n FROM generate_series(1, 20) n;
COMMIT;
CREATE TABLE app.tree (id int PRIMARY KEY, parent int REFERENCES app.tree ON DELETE CASCADE, other int, UNIQUE (id, other),
    FOREIGN KEY (parent, other) REFERENCES app.tree (id, other) MATCH FULL);
INSERT INTO app.tree SELECT n, NULL, NULL FROM generate_series(1, 20) n;
CREATE TABLE app.parted (id int, part int, place text DEFAULT 'x', PRIMARY KEY (part, id)) PARTITION BY LIST (part);
CREATE TABLE app.parted_1 PARTITION OF app.parted FOR VALUES IN (1) PARTITION BY RANGE (id);
CREATE TABLE app.parted_1_a PARTITION OF app.parted_1 (place DEFAULT 'own') FOR VALUES FROM (MINVALUE) TO (100);
CREATE TABLE app.parted_1_b PARTITION OF app.parted_1 FOR VALUES FROM (100) TO (MAXVALUE) PARTITION BY HASH (id);
CREATE TABLE app.parted_1_b_0 PARTITION OF app.parted_1_b FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE app."Parted ""2""" (place text, extra int, part int NOT NULL, id int NOT NULL);
ALTER TABLE app."Parted ""2""" DROP extra;
ALTER TABLE app.parted ATTACH PARTITION app."Parted ""2""" FOR VALUES IN (2, NULL);
CREATE TABLE app.parted_without PARTITION OF app.parted FOR VALUES IN (3) PARTITION BY RANGE (id);
CREATE UNIQUE INDEX parted_unique ON app.parted (id, part) INCLUDE (place);
CREATE INDEX parted_only ON ONLY app.parted (place);
CREATE TABLE app.refers (id int PRIMARY KEY, part int, parted int, FOREIGN KEY (part, parted) REFERENCES app.parted ON DELETE SET NULL (parted));
CREATE FUNCTION app.leave() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.place := COALESCE(NEW.place, 'left'); RETURN NEW; END $$;
CREATE TRIGGER parted_leave BEFORE INSERT ON app.parted FOR EACH ROW EXECUTE FUNCTION app.leave();
ALTER TABLE app.parted_1_a DISABLE TRIGGER parted_leave;
INSERT INTO app.parted SELECT n, n % 2 + 1, 'p' FROM generate_series(1, 300) n;
ALTER TABLE app.parted_1 DETACH PARTITION app.parted_1_b;
ALTER TABLE app.parted_1 ATTACH PARTITION app.parted_1_b FOR VALUES FROM (100) TO (MAXVALUE);
INSERT INTO app.refers SELECT n, n % 2 + 1, n FROM generate_series(1, 100) n;

-- Inheritance of several parents, with keys and rows of their own everywhere.
CREATE TABLE app.mother (id int PRIMARY KEY, a text DEFAULT 'm' NOT NULL);
CREATE TABLE app.father (id int PRIMARY KEY, b text CHECK (b <> '') NO INHERIT);
CREATE TABLE app.offspring (c int, PRIMARY KEY (id)) INHERITS (app.mother, app.father);
CREATE TABLE app.grandchild (LIKE app.mother INCLUDING ALL) INHERITS (app.offspring);
INSERT INTO app.mother SELECT n FROM generate_series(1, 20) n; INSERT INTO app.father SELECT n, 'f' FROM generate_series(1, 20) n;
INSERT INTO app.offspring SELECT n, 'a', 'b', n FROM generate_series(10, 30) n; INSERT INTO app.grandchild SELECT n, 'a', 'b', n FROM generate_series(20, 40) n;

-- Rules that write elsewhere, triggers that write elsewhere, views that can be written to.
CREATE TABLE app.ruled (id int PRIMARY KEY, v text);
CREATE TABLE app.noted (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, what text);
CREATE RULE note AS ON INSERT TO app.ruled DO ALSO INSERT INTO app.noted (what) VALUES ('rule ' || NEW.v);
CREATE RULE elsewhere AS ON UPDATE TO app.ruled WHERE NEW.v = 'away' DO INSTEAD UPDATE app.noted SET what = 'away' WHERE id = OLD.id;
CREATE FUNCTION app.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO app.noted (what) VALUES (TG_OP || ' ' || TG_TABLE_NAME); RETURN NULL; END $$;
CREATE TRIGGER note_too AFTER INSERT OR UPDATE OR DELETE ON app.ruled FOR EACH ROW EXECUTE FUNCTION app.note();
CREATE TRIGGER note_all AFTER TRUNCATE ON app.ruled FOR EACH STATEMENT EXECUTE FUNCTION app.note();
CREATE TRIGGER "a trigger" AFTER INSERT ON app.ruled REFERENCING NEW TABLE AS "new rows" FOR EACH STATEMENT EXECUTE FUNCTION app.note();
CREATE VIEW app.shown AS SELECT id, v FROM app.ruled;
CREATE FUNCTION app.instead() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO app.ruled VALUES (NEW.id, NEW.v); RETURN NEW; END $$;
CREATE TRIGGER shown_instead INSTEAD OF INSERT ON app.shown FOR EACH ROW EXECUTE FUNCTION app.instead();
CREATE TABLE app.becomes_view (id int PRIMARY KEY);
INSERT INTO app.ruled SELECT n, 'v' FROM generate_series(1, 20) n;

-- A view, and a function, that only work once a key is there: the dump moves them behind it.
CREATE VIEW app.by_key AS SELECT p.id, p.name, count(*) AS n FROM app.people p LEFT JOIN app.people o ON o.boss = p.id GROUP BY p.id;
CREATE MATERIALIZED VIEW app.by_key_kept AS SELECT * FROM app.by_key;
CREATE FUNCTION app.named(bigint) RETURNS text LANGUAGE sql STABLE BEGIN ATOMIC SELECT p.name || '''' || count(*) FROM app.people p WHERE p.id = $1 GROUP BY p.id; END;
CREATE VIEW app.circle AS SELECT 1 AS one;
CREATE FUNCTION app.circle_row() RETURNS app.circle LANGUAGE sql STABLE AS 'SELECT 1';

-- Generated, identity, large.
CREATE TABLE app.computed (id int PRIMARY KEY, a int, b text, c int GENERATED ALWAYS AS (a * 2) STORED, d text GENERATED ALWAYS AS (upper(b) || 'ß') STORED UNIQUE);
INSERT INTO app.computed (id, a, b) SELECT n, n, 'b' || n FROM generate_series(1, 50) n;
CREATE TABLE app.large (id int PRIMARY KEY, v text, w bytea, x jsonb);
ALTER TABLE app.large ALTER v SET STORAGE EXTERNAL, ALTER w SET COMPRESSION pglz;
INSERT INTO app.large SELECT n, (SELECT string_agg(md5(n || ':' || i), '') FROM generate_series(1, 40000) i), decode(repeat('00ff', 1000000), 'hex'),
    jsonb_build_object('k', repeat('j', 1000000)) FROM generate_series(1, 2) n;
CREATE STATISTICS app."odd ""stat""" (mcv) ON a, b FROM app.computed;
ALTER STATISTICS app."odd ""stat""" SET STATISTICS 77;
GRANT INSERT (v, "T"), SELECT (t) ON pglike.t TO df_reader;
ALTER DEFAULT PRIVILEGES IN SCHEMA pglike GRANT EXECUTE ON FUNCTIONS TO df_reader;
ALTER DEFAULT PRIVILEGES FOR ROLE df_owner GRANT USAGE ON SCHEMAS TO df_reader WITH GRANT OPTION;

-- As many columns as a table of such values can have, and then some.
DO $$ BEGIN
    EXECUTE 'CREATE TABLE app.wide (id int PRIMARY KEY, ' || (SELECT string_agg(format('"column %s" %s', n, (ARRAY['int', 'text', 'boolean', 'date'])[n % 4 + 1]), ', ')
        FROM generate_series(1, 1000) n) || ')';
    EXECUTE 'INSERT INTO app.wide SELECT i, ' || (SELECT string_agg((ARRAY['i', '''v'' || i', 'i % 2 = 0', '''2026-01-01''::date + i'])[n % 4 + 1], ', ')
        FROM generate_series(1, 1000) n) || ' FROM generate_series(1, 20) i';
END $$;
