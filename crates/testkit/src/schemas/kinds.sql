-- A column of every kind of the server.
CREATE TABLE kinds (id int PRIMARY KEY, s smallint, i int, b bigint, n numeric, n2 numeric(12,3), f4 real, f8 double precision, cash money,
    flag boolean, txt text, vc varchar(80), ch char(5), nm name, one "char", raw bytea, js json, jb jsonb, jp jsonpath, ids uuid, net inet,
    ci cidr, mac macaddr, mac8 macaddr8, b4 bit(4), vb bit varying, d date, t time, tz timetz, ts timestamp, tstz timestamptz, iv interval,
    p point, l line, ls lseg, bx box, pa path, po polygon, c circle, tv tsvector, tq tsquery, x xml, lsn pg_lsn, x8 xid8, snap pg_snapshot,
    o oid, cls regclass, typ regtype, proc regprocedure, ns regnamespace, rol regrole, cfg regconfig, ov oidvector, iv2 int2vector,
    ia int[], ta text[], na numeric[], ja jsonb[], tsa timestamptz[], ca regclass[], r4 int4range, r8 int8range, rn numrange, rt tstzrange,
    ra int4range[], m4 int4multirange, mt tstzmultirange, twice numeric GENERATED ALWAYS AS (n * 2) STORED);
