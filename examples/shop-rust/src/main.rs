//! The same shop as `shop-node`, with the SDK: a write is covered from the check to the commit, and the check costs
//! nanoseconds.
//!
//! - `DB_WRITE_ENDPOINT`: the database to write to, as a URL: the only thing that differs between two generations of pods.
//! - `CUTOVER_SERVER`: the agent, or the server; `CUTOVER_TOKEN`, `CUTOVER_CA`, `CUTOVER_INSTANCE` where they are wanted.
//! - `PORT`: where to listen; a free one where it is not given.

use std::{env, error::Error, io::Write as _, sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use cutover_client::{Client, WriteGateLayer};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    sync::Mutex,
};
use tokio_postgres::{NoTls, error::SqlState};

/// How long a caller is held before it is refused: most pauses are shorter.
const HOLD: Duration = Duration::from_millis(200);

type Refusal = (StatusCode, Json<Value>);

#[derive(Deserialize)]
struct Order {
    id: String,
    sku: String,
    quantity: i32,
}

/// One connection, made anew when it is lost. A service under load takes a pool.
struct Shop {
    endpoint: String,
    instance: String,
    connection: Mutex<Option<tokio_postgres::Client>>,
}

impl Shop {
    async fn query(&self, sql: &str, values: &[&(dyn tokio_postgres::types::ToSql + Sync)]) -> Result<Vec<Value>, tokio_postgres::Error> {
        let mut connection = self.connection.lock().await;
        let client = match connection.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => {
                let (client, work) = tokio_postgres::connect(&self.endpoint, NoTls).await?;
                tokio::spawn(work);
                client
            }
        };
        let rows = client.query(sql, values).await;
        *connection = Some(client);
        Ok(rows?.iter().map(|row| json!({ "id": row.get::<_, String>("id"), "pod": row.get::<_, String>("pod") })).collect())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let endpoint = env::var("DB_WRITE_ENDPOINT").map_err(|_| "DB_WRITE_ENDPOINT is not set: postgres://app@db1.internal/orders")?;
    let client = Client::builder(env::var("CUTOVER_SERVER").unwrap_or_else(|_| "http://127.0.0.1:8016".to_owned()))
        .database(&endpoint)
        .from_env()
        .connect()
        .await?;
    let instance = env::var("CUTOVER_INSTANCE").unwrap_or_else(|_| "shop-rust".to_owned());
    let shop = Arc::new(Shop { endpoint, instance, connection: Mutex::new(None) });
    // Requests that write hold a guard until they are answered; where writes are closed they get 503.
    let orders = Router::new().route("/api/order", post(order)).layer(WriteGateLayer::new(client.clone()).hold_for(HOLD));
    let app = Router::new().route("/api/order/{id}", get(look)).route("/healthz", get(async || "ok")).merge(orders).with_state(shop);
    let port: u16 = env::var("PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(0);
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    writeln!(std::io::stdout(), "{}", json!({ "address": format!("http://{}", listener.local_addr()?) }))?;
    axum::serve(listener, app).with_graceful_shutdown(asked_to_end()).await?;
    // Nobody has to wait for this process' lease.
    client.close().await;
    Ok(())
}

async fn asked_to_end() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

async fn order(State(shop): State<Arc<Shop>>, Json(order): Json<Order>) -> Response {
    let sql = "INSERT INTO shop.orders (id, sku, quantity, pod) VALUES ($1, $2, $3, $4) RETURNING id, pod";
    match shop.query(sql, &[&order.id, &order.sku, &order.quantity, &shop.instance]).await {
        Ok(rows) => (StatusCode::CREATED, Json(json!(rows.first()))).into_response(),
        Err(error) => refuse(&error).into_response(),
    }
}

async fn look(State(shop): State<Arc<Shop>>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let found = shop.query("SELECT id, pod FROM shop.orders WHERE id = $1", &[&id]).await;
    let rows = found.map_err(|_| (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "error": "try again" }))))?;
    rows.into_iter().next().map(Json).ok_or((StatusCode::NOT_FOUND, Json(json!({ "error": "there is no such order" }))))
}

/// The database's own fence refuses what was let in a moment before: to the caller that is the same.
fn refuse(error: &tokio_postgres::Error) -> (StatusCode, HeaderMap, Json<Value>) {
    let mut headers = HeaderMap::new();
    let (status, message) = match error.code() {
        Some(&SqlState::UNIQUE_VIOLATION) => (StatusCode::CONFLICT, "there is such an order already"),
        Some(&(SqlState::READ_ONLY_SQL_TRANSACTION | SqlState::ADMIN_SHUTDOWN)) => {
            headers.insert(RETRY_AFTER, 1.into());
            (StatusCode::SERVICE_UNAVAILABLE, "Database maintenance in progress")
        }
        // Whether it was committed is not known: the caller asks again with the same id.
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "the order may or may not have been taken"),
    };
    (status, headers, Json(json!({ "error": message })))
}
