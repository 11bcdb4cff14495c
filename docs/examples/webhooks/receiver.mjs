// A receiver of webhooks that needs nothing but Node: it verifies, drops repeats, and prints each event as a line of JSON.
// WEBHOOK_SECRET holds what signs (whsec_…), PORT where it listens. Behind a proxy that speaks TLS it may face the internet.
import { createHmac, timingSafeEqual } from "node:crypto";
import { createServer } from "node:http";

const TOLERANCE = 300; // seconds that a timestamp may be off: what is older may be a recording
const MOST_BYTES = 1_000_000;
const keys = process.env.WEBHOOK_SECRET.trim().split(/\s+/).map((secret) => Buffer.from(secret.replace(/^whsec_/, ""), "base64"));
const seen = new Set(); // of events that were taken; keep yours in the database, in the transaction that does the work

function verified(headers, body) {
  const id = headers["webhook-id"] ?? "", timestamp = headers["webhook-timestamp"] ?? "";
  if (!/^\d+$/.test(timestamp) || Math.abs(Date.now() / 1000 - Number(timestamp)) > TOLERANCE) return false;
  const given = (headers["webhook-signature"] ?? "").split(" ").filter((text) => text.startsWith("v1,"));
  return keys.some((key) => {
    const right = createHmac("sha256", key).update(`${id}.${timestamp}.`).update(body).digest();
    return given.some((text) => {
      const theirs = Buffer.from(text.slice(3), "base64");
      return theirs.length === right.length && timingSafeEqual(theirs, right);
    });
  });
}

async function receive(request, response) {
  const parts = [];
  let size = 0;
  for await (const part of request) {
    size += part.length;
    if (size > MOST_BYTES) return response.writeHead(413).end();
    parts.push(part);
  }
  const body = Buffer.concat(parts); // the bytes as they came: parsed and written anew they would be others
  if (!verified(request.headers, body)) return response.writeHead(401).end();
  const id = request.headers["webhook-id"];
  if (!seen.has(id)) {
    console.log(JSON.stringify({ id, ...JSON.parse(body) })); // here the work is done
    seen.add(id);
  }
  return response.writeHead(204).end();
}

// Whatever goes wrong, as when a sender goes away in the midst: this process goes on, and the event is sent again.
function failed(response) {
  if (!response.headersSent) response.writeHead(500);
  response.end();
}

createServer((request, response) => receive(request, response).catch(() => failed(response)))
  .listen(Number(process.env.PORT), "127.0.0.1");
