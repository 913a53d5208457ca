-- Types of the database itself, so that their binary form is another in every database.
CREATE TYPE mood AS ENUM ('sad', 'it''s, "ok"', 'Happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN moods AS mood[];
CREATE TYPE inner_pair AS (n numeric, m mood);
CREATE TYPE pair AS (x int, "Y, y" text, inside inner_pair, list mood[]);
CREATE TYPE spread AS RANGE (subtype = float8, subtype_diff = float8mi, multirange_type_name = spreads);
CREATE FUNCTION calculate(m mood) RETURNS int LANGUAGE sql IMMUTABLE AS $$ SELECT length(m::text) $$;
