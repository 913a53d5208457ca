//! The PostgreSQL engine: gate, preflight, copy, streams, verification.
