// The same with the library of Standard Webhooks: npm install standardwebhooks. It takes one secret at a time.
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET);
const seen = new Set();

async function receive(request, response) {
  const parts = [];
  for await (const part of request) parts.push(part);
  let event;
  try {
    event = webhook.verify(Buffer.concat(parts), request.headers);
  } catch {
    return response.writeHead(401).end();
  }
  const id = request.headers["webhook-id"];
  if (!seen.has(id)) {
    console.log(JSON.stringify({ id, ...event }));
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
