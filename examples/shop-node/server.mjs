// A shop that asks before every write whether it may, and to the database that it is connected to.
//
// Nothing here is cutover's own: the SDK is OpenFeature's, the provider speaks OFREP to the agent on localhost.
//
//   DB_WRITE_ENDPOINT  the database to write to, as a URL: the only thing that differs between two generations of pods
//   OFREP_ENDPOINT     the agent, or the server; http://127.0.0.1:8016 where it is not given
//   OFREP_HEADERS      such as "Authorization=Bearer …", where it wants a token
//   INSTANCE           this pod's name; else the host's
//   PORT               where to listen; 0, or nothing, takes a free one and says which
import { hostname } from "node:os";
import { OpenFeature } from "@openfeature/server-sdk";
import { OFREPProvider } from "@openfeature/ofrep-provider";
import express from "express";
import pg from "pg";

const endpoint = process.env.DB_WRITE_ENDPOINT;
if (!endpoint) {
  console.error("error: DB_WRITE_ENDPOINT is not set\n\nhint: DB_WRITE_ENDPOINT=postgres://app@db1.internal/orders");
  process.exit(2);
}
const { host, pathname } = new URL(endpoint);
const database = host + pathname; // no user, no password
const instance = process.env.INSTANCE || hostname();

const headers = (process.env.OFREP_HEADERS || "").split(",").filter(Boolean).map((pair) => {
  const at = pair.indexOf("=");
  return [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
});
const baseUrl = process.env.OFREP_ENDPOINT || "http://127.0.0.1:8016";
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl, headers, timeoutMs: Number(process.env.OFREP_TIMEOUT_MS || 5000) }));
const flags = OpenFeature.getClient();
const pool = new pg.Pool({ connectionString: endpoint, max: 10, connectionTimeoutMillis: 2000, query_timeout: 5000 });
pool.on("error", () => {}); // an idle connection that the database has closed is made anew

const maintenance = (response) =>
  response.status(503).set("Retry-After", "1").json({ error: "Database maintenance in progress" });

// Asked before every write. Whatever goes wrong, the answer is the default, and that is no.
const mayWrite = async (request, response, next) => {
  const context = { targetingKey: instance, instance, database };
  // A write on trial shows its word to the same flag: there is no endpoint that skips the check.
  if (request.get("x-trial")) context.trial = request.get("x-trial");
  if (await flags.getBooleanValue("database-writes-enabled", false, context)) return next();
  return maintenance(response);
};

// The database's own fence refuses what the flag let in a moment before: to the caller that is the same.
const fenced = new Set(["25006", "57P01", "57P02", "57P03"]);

const app = express();
app.use(express.json({ limit: "10kb" }));

app.post("/api/order", mayWrite, async (request, response) => {
  const { id, sku, quantity } = request.body ?? {};
  if (typeof id !== "string" || typeof sku !== "string" || !Number.isInteger(quantity) || quantity < 1) {
    return response.status(400).json({ error: "an order has an `id`, a `sku` and a `quantity`" });
  }
  try {
    const order = "INSERT INTO shop.orders (id, sku, quantity, pod) VALUES ($1, $2, $3, $4) RETURNING id, pod";
    const { rows } = await pool.query(order, [id, sku, quantity, instance]);
    return response.status(201).json(rows[0]);
  } catch (error) {
    if (error.code === "23505") return response.status(409).json({ error: "there is such an order already" });
    if (fenced.has(error.code)) return maintenance(response);
    // Whether it was committed is not known: the caller asks again with the same id.
    console.error(`order ${id}: ${error.message}`);
    return response.status(500).json({ error: "the order may or may not have been taken" });
  }
});

app.get("/api/order/:id", async (request, response) => {
  const { rows } = await pool.query("SELECT id, sku, quantity, pod FROM shop.orders WHERE id = $1", [request.params.id]);
  return rows.length ? response.json(rows[0]) : response.status(404).json({ error: "there is no such order" });
});

app.get("/healthz", (_, response) => response.send("ok"));

app.use((error, _request, response, _next) => response.status(error.status ?? 500).json({ error: error.status ? error.message : "try again" }));

const server = app.listen(Number(process.env.PORT || 0), "127.0.0.1", () => {
  console.log(JSON.stringify({ address: `http://127.0.0.1:${server.address().port}` }));
});

for (const signal of ["SIGTERM", "SIGINT"]) {
  process.once(signal, () => {
    // Requests under way end first.
    server.close(async () => {
      await pool.end();
      await OpenFeature.close();
      process.exit(0);
    });
    server.closeIdleConnections();
  });
}
