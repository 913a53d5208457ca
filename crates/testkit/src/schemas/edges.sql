-- Values at the edges of the types. Some name types and functions of own.sql.
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
