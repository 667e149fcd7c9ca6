// A client by matrix-bot-sdk. Everything that it hears is kept, for who asks for it.

import { has, serve, until } from "./lines.mjs";
import { createRequire } from "node:module";

// Its encryption is a binary that npm does not carry. Nothing of it is called where nothing is encrypted, but it is asked for at once.
const require = createRequire(import.meta.url);
const encryption = require.resolve("@matrix-org/matrix-sdk-crypto-nodejs");
require.cache[encryption] = { id: encryption, filename: encryption, loaded: true, exports: {} };
const { LogService, MatrixAuth, RichConsoleLogger } = require("matrix-bot-sdk");

LogService.setLogger(new RichConsoleLogger());

let client;
const heard = [];

await serve({
  async logs_in({ url, user, password }) {
    client = await new MatrixAuth(url).passwordLogin(user, password, `bot-sdk of ${user}`);
    client.on("room.event", (room, event) => heard.push({ room, event }));
    client.on("room.invite", (room, event) => heard.push({ room, event }));
    return { homeserver: client.homeserverUrl, token: client.accessToken, user: await client.getUserId() };
  },

  starts: () => client.start(),

  calls: ({ method, given }) => client[method](...given),

  async hears({ room, event }) {
    const found = await until(() => heard.find((one) => one.room === room && has(one.event, event)));
    return found.event;
  },

  async logs_out() {
    client.stop();
    await client.doRequest("POST", "/_matrix/client/v3/logout");
  },
});
