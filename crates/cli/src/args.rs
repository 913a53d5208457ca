//! What can be typed.

mod serving;
mod sql;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use serving::{Agent, Door, Remote, Serve, Token, Trust};
pub(crate) use sql::{Backfill, Drain, Install, ShadowTables, Sql, SqlStatus, SqlWatch, There};

/// Moves a live PostgreSQL application to another server without losing a write, and with a way back.
#[derive(Debug, Parser)]
#[command(name = "cutover", version, max_term_width = 110, arg_required_else_help = true, after_help = EXAMPLES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The plan file where nobody names one.
pub(crate) const PLAN: &str = "cutover.toml";

const EXAMPLES: &str = "\
The usual way:
  cutover init                    write cutover.toml, then fill in both URLs
  cutover check                   what is in the way, and how to mend it
  cutover plan                    every step with its exact statements; executes nothing
  cutover rehearse                all of it on disposable clones, there and back
  cutover run --until ready       copy, follow, verify
  cutover run                     switch: one short pause
  cutover rollback --reason '…'   go back, with the writes that the target took
  cutover complete                the target stays
  cutover retire --archive FILE   archive the old side, and end

See it work, on two throwaway servers:
  cutover demo

Exit codes:
  0 done                1 failed              2 usage
  3 a gate said no      4 inconclusive        5 ran out of the pause and was undone
  6 somebody else drives it                   7 outcome unknown: a person must look";

#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// The plan file.
    #[arg(long, global = true, default_value = PLAN, env = "CUTOVER_PLAN", hide_env_values = true, value_name = "FILE")]
    pub(crate) plan: PathBuf,
    /// What standard output carries: text for people, or JSON (format version 1) for scripts.
    #[arg(long, global = true, default_value = "human", value_name = "FORMAT")]
    pub(crate) output: Output,
    /// Don't ask before a switch. What can't be undone wants --confirm all the same.
    #[arg(long, short, global = true)]
    pub(crate) yes: bool,
    /// Say more on standard error; twice for everything.
    #[arg(long, short, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Human,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write a plan file to start from.
    Init(Init),
    /// Preflight: every finding with its severity, its evidence and the fix. Changes nothing.
    #[command(after_help = "Examples:\n  cutover check\n  cutover check --output json | jq '.findings[] | select(.severity == \"error\")'")]
    Check(Remote),
    /// Every step in order, with the exact statement or call, its undo and its time-out. Executes nothing.
    #[command(after_help = "Examples:\n  cutover plan\n  cutover plan --output json")]
    Plan(Remote),
    /// The whole cutover on disposable clones made for it: copy, migrate, switch, smoke test, and the way back. The real
    /// source is only read, the real target never touched.
    Rehearse(Rehearse),
    /// Drive the cutover: prepare, copy, follow, verify, and switch. Goes on from wherever it stands.
    Run(Run),
    /// Where everything stands, and the next safe command.
    Status(Status),
    /// Compare both sides, row by row, while they move, and ask them the plan's own checks. Exit code 3 on a difference.
    Verify(Verify),
    /// Go back: the same protocol mirrored, keeping what the target took. Before any switch, with --confirm: give up, and
    /// remove what was made.
    Rollback(Rollback),
    /// The target stays: swap the roles in the journal. The way back remains until `retire`.
    Complete(Reasoned),
    /// Archive the old side into a file, read it back, and drop the way back.
    Retire(Retire),
    /// What was decided, by whom, when and why.
    Audit(Audit),
    /// What the cutover did: pauses, rows, times. From the journal alone.
    #[command(after_help = "Examples:\n  cutover report\n  cutover report --output json")]
    Report(Remote),
    /// Tell every pod, over HTTP, whether it may write and where it reads; and whoever may look, where everything stands.
    /// Drives what it is asked to.
    Serve(Serve),
    /// Answer for a server on localhost, for applications in any language: keeps a lease of its own, and refuses writes when
    /// it is cut off.
    Agent(Agent),
    /// Who may ask the server: make, list and revoke bearer tokens.
    #[command(subcommand)]
    Token(Token),
    /// Shadow tables: a table moves to another shape inside its own database, driven from SQL. Installs, fills, drains.
    #[command(subcommand)]
    Sql(Sql),
    /// A real switch, there and back, between two throwaway servers under load; ends in a table that proves it.
    Demo(Demo),
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    #[command(hide = true)]
    Man,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  cutover init\n  cutover --plan orders.toml init")]
pub(crate) struct Init {
    /// Overwrite a plan that exists.
    #[arg(long)]
    pub(crate) force: bool,
}

/// What of the source's rows is brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Data {
    /// Definitions only.
    None,
    /// Some rows of each table, and those that they refer to.
    Sample,
    /// All rows.
    All,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cutover rehearse
  cutover rehearse --profile small --junit rehearsal.xml
  cutover rehearse --schema schema.sql --pg-source 15 --pg-target 17      # where the source can't be reached
  cutover rehearse --server postgres://postgres@localhost:5432/postgres --server postgres://postgres@localhost:5433/postgres
  cutover rehearse --clean                                                # what a killed run left at those servers

Exit codes: 0 green, 3 red, 4 something could not be established, 1 it could not be held.")]
pub(crate) struct Rehearse {
    /// Only this profile of the plan's seed data; can be given several times.
    #[arg(long = "profile", value_name = "NAME")]
    pub(crate) profiles: Vec<String>,
    /// Write the cases as JUnit's XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Take the definitions from this file (SQL, or an archive of pg_dump) and don't connect to the source.
    #[arg(long, value_name = "FILE")]
    pub(crate) schema: Option<PathBuf>,
    /// What of the source's rows to bring; by default some, or none where the plan has seed data.
    #[arg(long, value_name = "HOW")]
    pub(crate) data: Option<Data>,
    /// With a sample: the most rows of each table.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) rows: Option<u32>,
    /// Make the clones at this server instead of starting one. Twice: for the source's clone, and for the target's.
    #[arg(long = "server", env = "CUTOVER_REHEARSE_SERVERS", hide_env_values = true, value_delimiter = ' ', value_name = "URL")]
    pub(crate) servers: Vec<String>,
    /// How the other server reaches that one, where it is not by the same URL. As often as --server.
    #[arg(long = "peer", env = "CUTOVER_REHEARSE_PEERS", hide_env_values = true, value_delimiter = ' ', value_name = "URL")]
    pub(crate) peers: Vec<String>,
    /// Major version of the source's clone; the source's own where it can be asked.
    #[arg(long, value_name = "MAJOR", conflicts_with = "servers")]
    pub(crate) pg_source: Option<u32>,
    /// Major version of the target's clone; the target's own where it can be asked, else the newest at hand.
    #[arg(long, value_name = "MAJOR", conflicts_with = "servers")]
    pub(crate) pg_target: Option<u32>,
    /// Leave the clones standing, to look at.
    #[arg(long)]
    pub(crate) keep: bool,
    /// Remove what killed rehearsals left at the servers of --server, and do nothing else.
    #[arg(long, requires = "servers", conflicts_with_all = ["profiles", "junit", "schema", "data", "rows", "keep"])]
    pub(crate) clean: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Until {
    /// Copied, following, verified.
    Ready,
    /// The target is in charge.
    Switched,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cutover run --until ready\n  cutover run --reason 'window CHG-1234'\n  cutover run --server https://cutover.example --reason 'window CHG-1234'\n\n\
    Can be stopped with Ctrl-C and started again at any time: before the commit point a switch is undone, after it, it is finished."
)]
pub(crate) struct Run {
    /// How far.
    #[arg(long, default_value = "switched", value_name = "STAGE")]
    pub(crate) until: Until,
    /// Why, for the journal.
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) reason: String,
    /// The plan's name, where the plan keeps no way back (`reverse = false`). Asked for where it is not given.
    #[arg(long, value_name = "NAME")]
    pub(crate) confirm: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cutover status --watch\n  cutover status --output json\n  cutover status --shadow-tables postgres://viewer@db.example/shop\n  cutover status --server https://cutover.example"
)]
pub(crate) struct Status {
    #[command(flatten)]
    pub(crate) remote: Remote,
    #[command(flatten)]
    pub(crate) shadow: ShadowTables,
    /// Look again every second until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cutover verify\n  cutover verify --table public.orders --output json\n  cutover verify --only-checks\n  cutover verify --server https://cutover.example\n  cutover verify --values\n  cutover verify --repair --reason 'rows written by hand at the target, CHG-1234'"
)]
pub(crate) struct Verify {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Only this table, and no checks; can be given several times.
    #[arg(long = "table", value_name = "SCHEMA.NAME")]
    pub(crate) tables: Vec<String>,
    /// Only the plan's own checks, and no tables.
    #[arg(long, conflicts_with = "tables")]
    pub(crate) only_checks: bool,
    /// Show both sides' values of the columns that differ. The plan's `verify.redact` says which are never shown.
    #[arg(long, conflicts_with = "only_checks")]
    pub(crate) values: bool,
    /// Make the rows that differ equal at the side that follows, through the stream. The side in charge is never changed.
    #[arg(long, requires = "reason", conflicts_with = "only_checks")]
    pub(crate) repair: bool,
    /// Why, for the journal. With --repair.
    #[arg(long, value_name = "TEXT", requires = "repair")]
    pub(crate) reason: Option<String>,
    /// Where more rows than this differ, none is repaired: a new copy is better then.
    #[arg(long, value_name = "ROWS", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) max_repairs: u32,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cutover rollback --reason 'checkout is slow on the new server'\n  cutover rollback --reason 'not this year' --confirm orders   # before any switch: removes gates, streams and journal's claim"
)]
pub(crate) struct Rollback {
    /// Why, for the journal.
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: String,
    /// The plan's name: give the cutover up where the source is in charge. The copy is then followed no more.
    #[arg(long, value_name = "NAME")]
    pub(crate) confirm: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
}

#[derive(Args, Debug)]
#[command(after_help = "Example:\n  cutover complete --reason 'a week without trouble'")]
pub(crate) struct Reasoned {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Why, for the journal.
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cutover retire --archive orders-final.dump --confirm orders
  cutover retire --archive orders-final.dump --confirm orders --server https://cutover.example   # in the server's folder")]
pub(crate) struct Retire {
    /// The file to write the archive to; must not exist. With --server the name of one in the server's folder of archives.
    #[arg(long, value_name = "FILE")]
    pub(crate) archive: PathBuf,
    /// The plan's name: there is no way back afterwards. Asked for where it is not given.
    #[arg(long, value_name = "NAME")]
    pub(crate) confirm: Option<String>,
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// Why, for the journal.
    #[arg(long, default_value = "", value_name = "TEXT")]
    pub(crate) reason: String,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cutover audit\n  cutover audit --verify --output json\n  cutover audit --verify --shadow-tables postgres://viewer@db.example/shop"
)]
pub(crate) struct Audit {
    #[command(flatten)]
    pub(crate) remote: Remote,
    /// The audit of the shadow tables in this database, rather than a plan's journal.
    #[command(flatten)]
    pub(crate) shadow: ShadowTables,
    /// Recompute the chain and replay it: finds a changed or missing entry, and tables that are not where their entries say.
    #[arg(long)]
    pub(crate) verify: bool,
}

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  cutover demo\n  cutover demo --pg-source 15 --pg-target 17 --clients 50 --seed 7\n  cutover demo --keep"
)]
pub(crate) struct Demo {
    /// Major version of the source.
    #[arg(long, value_name = "MAJOR")]
    pub(crate) pg_source: Option<u32>,
    /// Major version of the target.
    #[arg(long, value_name = "MAJOR")]
    pub(crate) pg_target: Option<u32>,
    /// Clients that write at the same time.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub(crate) clients: u32,
    /// Seconds of load before, between and after the switches.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,
    /// Size of the database; 1 is about 10,000 accounts.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) scale: u32,
    /// Seed of the load; random where not given, and printed.
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Leave the servers running, for play.
    #[arg(long)]
    pub(crate) keep: bool,
}
