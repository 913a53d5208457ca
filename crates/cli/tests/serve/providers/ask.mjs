// Asks with the stock provider for Node.js. Takes {url, token, ask: [{flag, type, fallback, context}]} on standard input.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";

const require = createRequire(process.argv[2] + "/");
const { OpenFeature } = require("@openfeature/server-sdk");
const { OFREPProvider } = require("@openfeature/ofrep-provider");

const { url, token, ask } = JSON.parse(readFileSync(0, "utf8"));
const headers = token ? [["Authorization", `Bearer ${token}`]] : [];
OpenFeature.setLogger({ error() {}, warn() {}, info() {}, debug() {} });
await OpenFeature.setProviderAndWait(new OFREPProvider({ baseUrl: url, headers, timeoutMs: 5000 }));
const client = OpenFeature.getClient();
const answers = [];
for (const { flag, type, fallback, context } of ask) {
  const details = type === "boolean"
    ? await client.getBooleanDetails(flag, fallback, context)
    : await client.getStringDetails(flag, fallback, context);
  const { value, variant, reason, errorCode, flagMetadata } = details;
  answers.push({ value, variant, reason, error: errorCode, metadata: flagMetadata });
}
await OpenFeature.close();
console.log(JSON.stringify(answers));
