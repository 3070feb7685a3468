// A load of webhook deliveries over kept connections, each with an id of its own; prints what came of it as JSON.
//   node load.mjs '{"port": 1, "path": "/webhook", "headers": {...}, "body": FILE, "connections": 32, "seconds": 6}'
// Requests are written as bytes to plain sockets, because a client library would be slower than the servers.
import { readFileSync } from "node:fs";
import { connect } from "node:net";
import { randomBytes } from "node:crypto";

const { port, path, headers, body: file, connections, seconds } = JSON.parse(process.argv[2]);
const body = readFileSync(file);
const fixed = Object.entries({ Host: `127.0.0.1:${port}`, "Content-Length": body.length, ...headers })
  .map(([name, value]) => `${name}: ${value}\r\n`)
  .join("");
const round = randomBytes(8).toString("hex");
const milliseconds = [];
const statuses = {};
let sent = 0;

function worker(until) {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true }, send);
    let started = 0n;
    let waiting = "";
    function send() {
      if (performance.now() >= until) return socket.end(resolve);
      started = process.hrtime.bigint();
      const id = `${round}-${sent++}`;
      socket.cork();
      socket.write(`POST ${path} HTTP/1.1\r\n${fixed}X-GitHub-Delivery: ${id}\r\n\r\n`);
      socket.write(body);
      socket.uncork();
    }
    socket.on("data", (chunk) => {
      waiting += chunk.toString("latin1");
      const end = waiting.indexOf("\r\n\r\n");
      if (end < 0) return;
      const length = /content-length: *(\d+)/i.exec(waiting);
      if (length === null || /transfer-encoding/i.test(waiting)) return reject(new Error(`no length: ${waiting}`));
      if (waiting.length < end + 4 + Number(length[1])) return;
      milliseconds.push(Number(process.hrtime.bigint() - started) / 1e6);
      const status = waiting.slice(9, 12);
      statuses[status] = (statuses[status] ?? 0) + 1;
      waiting = "";
      send();
    });
    socket.on("error", reject);
    socket.on("close", resolve);
  });
}

const start = performance.now();
await Promise.all(Array.from({ length: connections }, () => worker(start + seconds * 1000)));
const elapsed = (performance.now() - start) / 1000;
milliseconds.sort((a, b) => a - b);
const at = (share) => milliseconds[Math.min(milliseconds.length - 1, Math.floor(share * milliseconds.length))];
console.log(JSON.stringify({ rate: milliseconds.length / elapsed, p50: at(0.5), p99: at(0.99), statuses }));
