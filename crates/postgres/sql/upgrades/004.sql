-- Version 4: completion. ../tables.sql says what each is for.

ALTER TABLE cutover.shadow_table ADD COLUMN IF NOT EXISTS stand_in regclass;
ALTER TABLE cutover.shadow_table ADD COLUMN IF NOT EXISTS own_objects text[] NOT NULL DEFAULT '{}';
CREATE TABLE IF NOT EXISTS cutover.new_table (
    table_name text PRIMARY KEY,
    relation regclass NOT NULL
);
INSERT INTO cutover.new_table (table_name, relation) SELECT s.table_name, s.shadow_table FROM cutover.shadow_table s WHERE s.stand_in IS NULL ON CONFLICT DO NOTHING;
