-- Rows of the types of own.sql.
CREATE TABLE own (id int PRIMARY KEY, m mood, ma mood[], pos positive, ms moods, pr pair, pra pair[], s spread, sa spread[], ss spreads,
    txt text, raw bytea, mood_length int GENERATED ALWAYS AS (calculate(m)) STORED);
CREATE TABLE moody (id int PRIMARY KEY, m mood);
INSERT INTO own (id) VALUES (0);
INSERT INTO own VALUES (1, 'sad', '{sad,NULL,"it''s, \"ok\""}', 1, '{Happy}', ROW(1, 'a "b", (c)\', ROW('NaN', 'Happy'), '{sad}'), ARRAY[ROW(NULL, '', NULL, '{}')::pair, NULL],
    '[1,2.5)', '{"[1,2)",empty}', '{[1,2),[3,4)}', '\N', '\x00'),
    (2, 'it''s, "ok"', '[0:1]={sad,Happy}', 2147483647, '{}', ROW(NULL, NULL, NULL, NULL), '{}', '(NaN,NaN]', NULL, '{}', E'\\.\n', '');
INSERT INTO own (id, txt) SELECT 100 + n, 'a' || chr(n) || 'b' FROM generate_series(1, 127) n;
INSERT INTO moody VALUES (1, 'sad'), (2, NULL), (3, 'it''s, "ok"');
