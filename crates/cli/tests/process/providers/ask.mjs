// Asks with a stock provider for Node.js. Its first line is {url, token, way, root}; each further one is a list of
// {flag, type, fallback, context}, which is answered with a list.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const require = createRequire(process.argv[2] + "/");
const { OpenFeature } = require("@openfeature/server-sdk");

function provider({ url, token, way, root }) {
  if (way === "ofrep") {
    const { OFREPProvider } = require("@openfeature/ofrep-provider");
    const headers = token ? [["Authorization", `Bearer ${token}`]] : [];
    return new OFREPProvider({ baseUrl: url, headers, timeoutMs: 5000 });
  }
  const { FlagdProvider } = require("@openfeature/flagd-provider");
  const { protocol, hostname: host, port } = new URL(url);
  const tls = protocol === "https:";
  // A token that is not known stays so.
  const fatal = { fatalStatusCodes: ["UNAUTHENTICATED", "PERMISSION_DENIED"] };
  const again = { ...fatal, retryBackoffMs: 100, retryBackoffMaxMs: 200, streamDeadlineMs: 0, deadlineMs: 5000 };
  return new FlagdProvider({ host, port: Number(port), tls, certPath: root ?? undefined, resolverType: way, ...again });
}

const quiet = { error() {}, warn() {}, info() {}, debug() {} };
OpenFeature.setLogger(quiet);
const client = OpenFeature.getClient();
const get = { boolean: "getBooleanDetails", string: "getStringDetails", number: "getNumberDetails" };

async function answer({ flag, type, fallback, context }) {
  const { value, variant, reason, errorCode, flagMetadata } = await client[get[type]](flag, fallback, context);
  return { value, variant, reason, error: errorCode, metadata: flagMetadata };
}

let begun = false;
for await (const line of createInterface({ input: process.stdin })) {
  const said = JSON.parse(line);
  if (begun) {
    console.log(JSON.stringify(await Promise.all(said.map(answer))));
  } else {
    begun = true;
    // Who can't be ready falls back to what the application says.
    await OpenFeature.setProviderAndWait(provider(said)).catch(() => {});
    console.log('"asks"');
  }
}
process.exit(0);
