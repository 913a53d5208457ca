//! The copy of the rows: every kind of value and table arrives as it was.

use cutover_core::Side::{Source, Target};
use cutover_postgres::verify::{Options, Progress, Sides, Verdict, verify};

use crate::ground::Pair;

/// One column of each type of the server's own.
pub(crate) const KINDS: &str = "
    CREATE TABLE kinds (id int PRIMARY KEY, s smallint, i int, b bigint, n numeric, n2 numeric(12,3), f4 real, f8 double precision, cash money,
        flag boolean, txt text, vc varchar(80), ch char(5), nm name, one \"char\", raw bytea, js json, jb jsonb, jp jsonpath, ids uuid, net inet,
        ci cidr, mac macaddr, mac8 macaddr8, b4 bit(4), vb bit varying, d date, t time, tz timetz, ts timestamp, tstz timestamptz, iv interval,
        p point, l line, ls lseg, bx box, pa path, po polygon, c circle, tv tsvector, tq tsquery, x xml, lsn pg_lsn, x8 xid8, snap pg_snapshot,
        o oid, cls regclass, typ regtype, proc regprocedure, ns regnamespace, rol regrole, cfg regconfig, ov oidvector, iv2 int2vector,
        ia int[], ta text[], na numeric[], ja jsonb[], tsa timestamptz[], ca regclass[], r4 int4range, r8 int8range, rn numrange, rt tstzrange,
        ra int4range[], m4 int4multirange, mt tstzmultirange, twice numeric GENERATED ALWAYS AS (n * 2) STORED);
";

/// Values at the edges of the types.
pub(crate) const EDGES: &str = r#"
    INSERT INTO kinds (id) VALUES (0);
    INSERT INTO kinds (id, s, i, b, n, n2, f4, f8, cash, flag) VALUES
        (1, -32768, -2147483648, -9223372036854775808, 'NaN', 'NaN', 'NaN', 'NaN', '-92233720368547758.08', true),
        (2, 32767, 2147483647, 9223372036854775807, 'Infinity', NULL, 'Infinity', 'Infinity', '92233720368547758.07', false),
        (3, 0, 0, 0, '-Infinity', 0.000, '-Infinity', '-Infinity', 0, NULL),
        (4, 1, 1, 1, 0.10, 123456789.125, 0.1, 0.1, 1, true),
        (5, 1, 1, 1, repeat('9', 1000)::numeric, -0.001, '-0', '-0', 1, true),
        (6, 1, 1, 1, ('0.' || repeat('0', 500) || '1')::numeric, 1, 1e-45, 4.9e-324, 1, true),
        (7, 1, 1, 1, 1e100, 1.10, 3.4028235e38, 1.7976931348623157e308, 1, true);
    INSERT INTO kinds (id, txt, vc, ch, nm, one) SELECT 100 + n, 'a' || chr(n) || 'b' || chr(n), chr(n), chr(n), 'n' || chr(n), chr(n)::"char"
        FROM generate_series(1, 127) n;
    INSERT INTO kinds (id, txt) VALUES (300, ''), (301, '\N'), (302, '\.'), (303, E'\\N'), (304, E'\\.\n\\.\n'), (305, 'NULL'), (306, '\'),
        (307, E'\r\n\t\b\f\v'), (308, 'Zoë 東京 🐘 e' || U&'\0301'), (309, '"'), (310, '\\x41'), (311, ' '), (312, U&'\+10FFFF'), (313, ',,"{}()');
    INSERT INTO kinds (id, one) VALUES (320, '\200'), (321, '\377'), (322, '');
    INSERT INTO kinds (id, raw) VALUES (330, ''), (331, '\x00'), (332, '\x5c4e0a'), (333, decode(repeat('00ff5c0a0d09', 5000), 'hex'));
    INSERT INTO kinds (id, js, jb, jp) VALUES (340, '{"b": 1,  "a": [1.10, null, "\u00e9\n"], "b": 2}', '{"b": 1, "a": [1.10, null, "\u00e9\n"], "c": 1e400}', '$.a[*] ? (@ > 1)'),
        (341, 'null', 'null', 'strict $'), (342, '""', '""', NULL), (343, ' [ ] ', '[]', NULL);
    INSERT INTO kinds (id, ids, net, ci, mac, mac8, b4, vb) VALUES
        (350, '00000000-0000-0000-0000-000000000000', '10.0.0.1/8', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', '1010', ''),
        (351, 'ffffffff-ffff-ffff-ffff-ffffffffffff', '::ffff:1.2.3.4/64', '2001:db8::/32', 'ff:ff:ff:ff:ff:ff', 'ff:ff:ff:ff:ff:ff:ff:ff', '0000', repeat('10', 500)::bit varying);
    INSERT INTO kinds (id, d, t, tz, ts, tstz, iv) VALUES
        (360, 'infinity', '24:00', '23:59:59.999999+15:59', 'infinity', 'infinity', '178000000 years'),
        (361, '-infinity', '00:00', '00:00-15:59', '-infinity', '-infinity', '-1 mon +1 day -00:00:00.000001'),
        (362, '4713-01-01 BC', '12:00:00.000001', '12:00+05:30', '4713-01-01 00:00:00 BC', '4713-01-02 00:00:00+00 BC', '24:00'),
        (363, '5874897-12-31', '00:00:00.1', '00:00:00+00:00:01', '294276-12-31 23:59:59.999999', '294276-12-31 23:59:59.999999+00', '1 day'),
        (364, '0001-12-31 BC', NULL, NULL, '2026-03-29 02:30', '2026-03-29 02:30 Europe/Berlin', '1 mon 30 days');
    INSERT INTO kinds (id, p, l, ls, bx, pa, po, c) VALUES
        (370, '(0.1,-0)', '{1,-1,0}', '[(0,0),(1,1)]', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(2,0))', '<(0,0),1>'),
        (371, '(NaN,Infinity)', '{1,2,3}', '[(1,2),(3,4)]', '(3,4),(1,2)', '((0,0),(1,1))', '((1,1))', '<(1e300,1),0>');
    INSERT INTO kinds (id, tv, tq, x, lsn, x8, snap) VALUES
        (380, 'a:1A b:2,3B ''it''''s'':4 ''\\\\'':5', 'a & !b <-> ''c d'':*A', '<?xml version="1.0"?><a b="c">é</a>', 'FFFFFFFF/FFFFFFFF', '18446744073709551615', '10:20:10,14,15'),
        (381, '', 'a | b', 'text <b/> only', '0/0', '0', '1:1:'),
        (382, NULL, NULL, '<!DOCTYPE a SYSTEM "a.dtd"><a/>', NULL, NULL, NULL), (383, NULL, NULL, E'<a>\n<![CDATA[<]]>&amp;</a>', NULL, NULL, NULL);
    INSERT INTO kinds (id, o, cls, typ, proc, ns, rol, cfg, ov, iv2) VALUES
        (390, 4294967295, 'kinds', 'mood[]', 'upper(text)', 'public', 'postgres', 'pg_catalog.english', '1 2 4294967295', '1 -2 32767'),
        (391, 0, 'pg_class', 'int4', 'calculate(mood)', 'pg_catalog', '0', '0', '', '');
    INSERT INTO kinds (id, ia, ta, na, ja, tsa, ca) VALUES
        (400, '{}', '{}', '{NaN,1.10,NULL}', '{"{\"a\": 1}",NULL}', '{infinity,NULL,2026-01-01}', '{kinds,NULL,pg_class}'),
        (401, '[2:3][-1:0]={{1,2},{3,NULL}}', E'{"",NULL,"NULL","a\\\\b","\\"","{",",","\n"}', '{}', '{}', '{}', '{}');
    INSERT INTO kinds (id, r4, r8, rn, rt, ra, m4, mt) VALUES
        (410, 'empty', '(,)', '(1.10,NaN]', '[-infinity,infinity]', '{"[1,2)",empty,NULL}', '{}', '{(,)}'),
        (411, '[1,10]', '[1,)', '(,0)', '(2026-01-01,2026-01-02]', '{}', '{[1,3),[5,7]}', '{[2026-01-01,2026-01-02),(2026-02-01,)}');
"#;

/// The same without what names an object of the database, so that it is sent in its binary form.
const BINARY: &str = "
    CREATE TABLE plain AS TABLE kinds;
    ALTER TABLE plain DROP o, DROP cls, DROP typ, DROP proc, DROP ns, DROP rol, DROP cfg, DROP ov, DROP iv2, DROP ca;
    CREATE TABLE vectors AS SELECT id, ov, iv2 FROM kinds;
";

/// What is spelled with OIDs of the database itself, so that its binary form is another at the target.
pub(crate) const OWN: &str = r#"
    CREATE TYPE mood AS ENUM ('sad', 'it''s, "ok"', 'Happy');
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE DOMAIN moods AS mood[];
    CREATE TYPE inner_pair AS (n numeric, m mood);
    CREATE TYPE pair AS (x int, "Y, y" text, inside inner_pair, list mood[]);
    CREATE TYPE spread AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = spreads);
    CREATE FUNCTION calculate(m mood) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT length(m::text) $$;
"#;
pub(crate) const OWN_ROWS: &str = r#"
    CREATE TABLE own (id int PRIMARY KEY, m mood, ma mood[], pos positive, ms moods, pr pair, pra pair[], s spread, sa spread[], ss spreads,
        txt text, raw bytea, mood_length int GENERATED ALWAYS AS (calculate(m)) STORED);
    CREATE TABLE moody (id int PRIMARY KEY, m mood);
    INSERT INTO own (id) VALUES (0);
    INSERT INTO own VALUES (1, 'sad', '{sad,NULL,"it''s, \"ok\""}', 1, '{Happy}', ROW(1, 'a "b", (c)\', ROW('NaN', 'Happy'), '{sad}'), ARRAY[ROW(NULL, '', NULL, '{}')::pair, NULL],
        '[1,2.5)', '{"[1,2)",empty}', '{[1,2),[3,4)}', '\N', '\x00'),
        (2, 'it''s, "ok"', '[0:1]={sad,Happy}', 2147483647, '{}', ROW(NULL, NULL, NULL, NULL), '{}', '(NaN,NaN]', NULL, '{}', E'\\.\n', '');
    INSERT INTO own (id, txt) SELECT 100 + n, 'a' || chr(n) || 'b' FROM generate_series(1, 127) n;
    INSERT INTO moody VALUES (1, 'sad'), (2, NULL), (3, 'it''s, "ok"');
"#;

/// Values that are stored out of line, compressed and not, and rows of many of them.
const LARGE: &str = "
    CREATE TABLE large (id int PRIMARY KEY, zeros text, noise text, raw bytea, plain text);
    ALTER TABLE large ALTER noise SET STORAGE EXTERNAL, ALTER plain SET STORAGE MAIN;
    INSERT INTO large SELECT n, repeat('x', n * 6000000), (SELECT string_agg(md5(n || ':' || i), '') FROM generate_series(1, 150000) i),
        decode(repeat('00ff', n * 400000), 'hex'), repeat(md5(n::text), 300) FROM generate_series(1, 3) n;
";

#[tokio::test]
async fn every_type_arrives_equal() {
    let pair = Pair::new("types").await;
    for sql in [OWN, KINDS, EDGES, BINARY, OWN_ROWS, LARGE] {
        pair.sql(Source, sql).await;
    }
    pair.carry().await;
    let rows = pair.assert_equal().await;
    assert_eq!((rows["\"public\".\"own\""], rows["\"public\".\"moody\""], rows["\"public\".\"large\""]), (130, 3, 3));
    assert_eq!(rows["\"public\".\"kinds\""], 8 + 127 + 14 + 3 + 4 + 4 + 2 + 5 + 2 + 4 + 2 + 2 + 2);
    assert_eq!(
        (rows["\"public\".\"plain\""], rows["\"public\".\"vectors\""]),
        (rows["\"public\".\"kinds\""], rows["\"public\".\"kinds\""])
    );
    let report = verify_still(&pair).await;
    assert_eq!(report.verdict(), Verdict::Equal, "{report:#?}");
    let generated = "SELECT count(*) FROM kinds WHERE twice IS NOT DISTINCT FROM n * 2";
    assert_eq!(pair.one::<i64>(Target, generated).await, rows["\"public\".\"kinds\""]);
}

async fn verify_still(pair: &Pair) -> cutover_postgres::verify::Report {
    let sides = Sides { authority: &pair.source_url, follower: &pair.target_url, authority_side: Source, following: None };
    verify(&sides, &pair.names, &Options::default(), &Progress::default()).await.unwrap()
}

/// Tables of every shape.
pub(crate) const SHAPES: &str = r#"
    CREATE SCHEMA "Sales Dept"; CREATE SCHEMA "schöma";
    CREATE TABLE "Sales Dept"."Weird "" Table" ("The ""Key""" int PRIMARY KEY, "a,b" text, "SELECT" text, "naïve 🐘" text, "100%" int);
    INSERT INTO "Sales Dept"."Weird "" Table" VALUES (1, 'a', 'b', 'c', 1), (2, NULL, NULL, NULL, NULL);
    CREATE TABLE "schöma"."表" (id int PRIMARY KEY); INSERT INTO "schöma"."表" VALUES (-1), (0), (1);
    CREATE TABLE "Order" (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, other int GENERATED BY DEFAULT AS IDENTITY (START WITH 100 INCREMENT BY -3 MAXVALUE 1000), v text);
    INSERT INTO "Order" (v) VALUES ('a'), ('b'); INSERT INTO "Order" OVERRIDING SYSTEM VALUE VALUES (1000, 1, 'c');
    CREATE TABLE dropped (gone int, id int, also_gone text, v text DEFAULT 'd'); INSERT INTO dropped VALUES (1, 1, 'x', 'y'), (2, 2, 'x', 'z');
    ALTER TABLE dropped DROP gone, DROP also_gone, ADD late int DEFAULT 7, ADD computed int GENERATED ALWAYS AS (id + 1) STORED;
    CREATE TABLE hollow (a int, b int); INSERT INTO hollow SELECT 1, 2 FROM generate_series(1, 5); ALTER TABLE hollow DROP a, DROP b;
    CREATE TABLE bare (); INSERT INTO bare SELECT FROM generate_series(1, 7);
    CREATE TABLE only_computed (always int GENERATED ALWAYS AS (42) STORED); INSERT INTO only_computed DEFAULT VALUES;
    CREATE TABLE nothing (id int PRIMARY KEY, v text);
    CREATE TABLE sparse (id int PRIMARY KEY, a int, b text, c bytea); INSERT INTO sparse SELECT n FROM generate_series(1, 300) n;
    CREATE TABLE measured (at int, place text, v int) PARTITION BY RANGE (at);
    CREATE TABLE measured_1 PARTITION OF measured FOR VALUES FROM (0) TO (10);
    CREATE TABLE measured_2 PARTITION OF measured FOR VALUES FROM (10) TO (20) PARTITION BY LIST (place);
    CREATE TABLE measured_2_a PARTITION OF measured_2 FOR VALUES IN ('a') PARTITION BY HASH (v);
    CREATE TABLE measured_2_a_0 PARTITION OF measured_2_a FOR VALUES WITH (MODULUS 2, REMAINDER 0);
    CREATE TABLE measured_2_a_1 (v int, gone int, place text, at int); ALTER TABLE measured_2_a_1 DROP gone;
    ALTER TABLE measured_2_a ATTACH PARTITION measured_2_a_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
    CREATE TABLE measured_2_rest PARTITION OF measured_2 DEFAULT;
    CREATE TABLE measured_rest PARTITION OF measured DEFAULT;
    INSERT INTO measured SELECT n % 40 - 5, (ARRAY['a', 'b', NULL])[n % 3 + 1], n FROM generate_series(1, 400) n;
    CREATE TABLE parent (id int PRIMARY KEY, v text); CREATE TABLE child (extra int) INHERITS (parent);
    CREATE TABLE grandchild (more int) INHERITS (child);
    INSERT INTO parent VALUES (1, 'p'), (2, 'p'); INSERT INTO child VALUES (1, 'c', 1); INSERT INTO grandchild VALUES (3, 'g', 1, 2);
    CREATE UNLOGGED TABLE volatile (id int PRIMARY KEY); INSERT INTO volatile VALUES (1);
    CREATE TEMPORARY TABLE passing (id int);
"#;

#[tokio::test]
async fn every_shape_of_table_arrives_equal() {
    let pair = Pair::new("Shapes of \"tables\"").await;
    pair.sql(Source, SHAPES).await;
    pair.schema().await;
    pair.publish(cutover_core::Stream::Forward).await;
    let copied = pair.copy_rows().await.unwrap();
    pair.indexes().await.unwrap();
    pair.sql(Target, "INSERT INTO volatile VALUES (1)").await;
    let rows = pair.assert_equal().await;
    assert_eq!(copied.rows, rows.values().sum::<i64>().cast_unsigned() - 1, "all but the unlogged one");
    assert_eq!(copied.tables, rows.len() as u64 - 1);
    let row_count = |table: &str| rows[&format!("\"public\".\"{table}\"")];
    assert_eq!((row_count("bare"), row_count("hollow"), row_count("nothing"), row_count("parent"), row_count("child")), (7, 5, 0, 2, 1));
    assert_eq!(rows.keys().filter(|table| table.contains("measured")).map(|table| rows[table]).sum::<i64>(), 400);
    assert!(row_count("measured_2_a_1") > 0 && row_count("measured_2_rest") > 0 && row_count("measured_rest") > 0);
}
