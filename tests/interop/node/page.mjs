// A page with matrix-js-sdk in it, as far as a test needs one: a line for each message that is heard, and what can be asked of it.

import { createClient, RoomEvent, SyncState } from "matrix-js-sdk";

const show = (text) => document.body.append(Object.assign(document.createElement("p"), { textContent: text }));
let client;

window.chat = {
  async logsIn({ url, user, password }) {
    const login = await createClient({ baseUrl: url }).loginRequest({
      type: "m.login.password",
      identifier: { type: "m.id.user", user },
      password,
    });
    const { access_token: accessToken, user_id: userId, device_id: deviceId } = login;
    client = createClient({ baseUrl: url, accessToken, userId, deviceId });
    client.on(RoomEvent.Timeline, (event) => {
      if (event.getType() === "m.room.message" && event.getSender() !== userId) show(event.getContent().body);
    });
    const syncs = new Promise((resolve) => client.on("sync", (state) => state === SyncState.Syncing && resolve()));
    await client.startClient({ initialSyncLimit: 8, lazyLoadMembers: true });
    await syncs;
    return { origin: location.origin, user: userId, rooms: client.getRooms().map((room) => room.roomId) };
  },

  calls: ({ method, given }) => client[method](...given),

  /** Calls, and does not wait until it is done. */
  begins({ method, given }) {
    client[method](...given).catch((error) => show(`not done: ${error}`));
  },
};
