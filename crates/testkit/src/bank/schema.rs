//! Creates the bank's roles, tables and first rows.

use tokio_postgres::Client;

use crate::{Error, Result, Seed, connection::connect};

/// At [`BankOptions::scale`] 1.
const ACCOUNTS: f64 = 10_000.0;

/// With fewer, the clients would only queue for the same rows.
const FEWEST_ACCOUNTS: f64 = 100.0;

/// What bank to create.
#[derive(Clone, Debug)]
pub struct BankOptions {
    /// How big: 1 is 10,000 accounts and about 80,000 rows in all.
    pub scale: f64,
    /// What the random contents come from.
    pub seed: Seed,
    /// The role that owns everything and may log in; created if it is missing.
    pub owner: String,
    /// The role that applications use, with no right but to read and write rows; created if it is missing.
    pub app: String,
}

impl Default for BankOptions {
    fn default() -> Self {
        Self { scale: 0.1, seed: Seed::new(1), owner: "app_owner".to_owned(), app: "app".to_owned() }
    }
}

/// Creates the bank in an empty database. `url` is that of a superuser.
///
/// # Errors
/// The server's; the bank is there whole or not at all.
pub async fn install(url: &str, options: &BankOptions) -> Result<()> {
    let client = connect(url, "connect to create the bank").await?;
    create(&client, options).await
}

/// Creates only the bank's roles, where they are missing: a target needs them before anything is copied there.
///
/// # Errors
/// The server's.
pub async fn create_roles(url: &str, options: &BankOptions) -> Result<()> {
    let client = connect(url, "connect to create roles").await?;
    roles(&client, options).await
}

async fn create(client: &Client, options: &BankOptions) -> Result<()> {
    roles(client, options).await?;
    let schema = fill_in(include_str!("schema.sql"), options);
    let rows = fill_in(include_str!("rows.sql"), options);
    let script = format!("BEGIN;\n{schema}\n{rows}\nCOMMIT;\nANALYZE");
    client.batch_execute(&script).await.map_err(|source| Error::sql("create the bank", source))
}

async fn roles(client: &Client, options: &BankOptions) -> Result<()> {
    for role in [&options.owner, &options.app] {
        // Somebody else may create it at the same moment.
        let sql =
            format!("DO $$ BEGIN CREATE ROLE {} LOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$", quote(role));
        client.batch_execute(&sql).await.map_err(|source| Error::sql(format!("create the role {role}"), source))?;
    }
    Ok(())
}

fn fill_in(script: &str, options: &BankOptions) -> String {
    let accounts = (options.scale * ACCOUNTS).max(FEWEST_ACCOUNTS).round();
    // PostgreSQL wants a number between -1 and 1.
    let seed = f64::from(u32::try_from(options.seed.value() % 1_000_003).unwrap_or_default()) / 1_000_003.0;
    script
        .replace("{owner}", &quote(&options.owner))
        .replace("{app}", &quote(&options.app))
        .replace("{accounts}", &accounts.to_string())
        .replace("{seed}", &seed.to_string())
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
