// A subscriber on npm's `ws`: subscribes, counts updates, resumes once with its cursor, prints what it saw.
const WebSocket = require("ws");
const [url, count] = [process.argv[2], Number(process.argv[3])];
const seen = [];
let cursor;

function follow(until, then) {
  const socket = new WebSocket(url, "balances.v1.json");
  socket.on("open", () => {
    const params = cursor ? { cursor } : { snapshot: false };
    socket.send(JSON.stringify({ id: 1, method: "subscribe", params }));
  });
  socket.on("message", (data) => {
    const message = JSON.parse(data);
    if (message.id === 1) console.log(cursor ? "resumed" : "subscribed", message.result.recovered);
    if (message.type !== "update") return;
    cursor = message.cursor;
    seen.push(message.event.version);
    if (seen.length === until) socket.close(1000);
  });
  socket.on("close", (code) => then(code));
  socket.on("error", (error) => { console.error(error.message); process.exit(1); });
}

follow(count / 2, () => follow(count, (code) => console.log(JSON.stringify({ seen, code, protocol: "balances.v1.json" }))));
