//! The append-only, hash-chained journal: SQLite and PostgreSQL.
