//! Schemas that people really have, and worse: what a move has to keep.

/// One of everything that a schema can hold. Wants the roles `df_owner` and `df_reader`.
pub const EVERYTHING: &str = include_str!("everything.sql");

/// Types of the database itself, so that their binary form is another in every database.
pub const OWN: &str = include_str!("own.sql");

/// A table with a column of every kind of the server.
pub const KINDS: &str = include_str!("kinds.sql");

/// Values at the edges of the types of [`KINDS`]. Some name what [`OWN`] makes.
pub const EDGES: &str = include_str!("edges.sql");

/// Rows of the types of [`OWN`].
pub const OWN_ROWS: &str = include_str!("own_rows.sql");

/// Tables of every shape.
pub const SHAPES: &str = include_str!("shapes.sql");

/// Names, keys and definitions that a tool trips over. Wants [`EVERYTHING`].
pub const AWKWARD: &str = include_str!("awkward.sql");

/// What PostgreSQL's own extensions bring.
pub const CONTRIB: &str = include_str!("contrib.sql");

/// Changes and removes rows in every table, as a client would. To be run as a script of its own.
pub const CHANGE: &str = include_str!("change.sql");

/// Puts rows into every table of a schema that others wrote. To be run as a script of its own.
pub const FILL: &str = include_str!("fill.sql");

/// Makes the roles of [`EVERYTHING`], which belong to a server.
pub const ROLES: &str = "
    DO $$ BEGIN CREATE ROLE df_owner; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    DO $$ BEGIN CREATE ROLE df_reader; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
";
