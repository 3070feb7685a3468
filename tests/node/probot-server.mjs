// Probot with its own server and an empty handler, for `make bench`: SECRET and PRIVATE_KEY come by the environment.
import { pino } from "pino";
import { Probot, Server } from "probot";

const { SECRET: secret, PRIVATE_KEY: privateKey } = process.env;
const server = new Server({
  Probot: Probot.defaults({ appId: 1, privateKey, secret, logLevel: "fatal" }),
  log: pino({ level: "fatal" }),
  host: "127.0.0.1",
  port: Number(process.argv[2]),
});
await server.load((app) => {
  app.on("issues.opened", async () => {});
});
await server.start();
console.log("ready");
