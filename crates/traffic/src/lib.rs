//! Traffic adapters: PgBouncer, configuration files, commands.
