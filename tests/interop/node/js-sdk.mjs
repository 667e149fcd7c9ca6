// A client by matrix-js-sdk, with its own encryption. Everything that it hears is kept, for who asks for it.

import { has, serve, until } from "./lines.mjs";
import { createClient, MatrixEventEvent, RoomEvent, SyncState } from "matrix-js-sdk";

let client;
const heard = [];

await serve({
  async logs_in({ url, user, password }) {
    const login = await createClient({ baseUrl: url }).loginRequest({
      type: "m.login.password",
      identifier: { type: "m.id.user", user },
      password,
      initial_device_display_name: `js-sdk of ${user}`,
    });
    const { access_token: accessToken, user_id: userId, device_id: deviceId } = login;
    client = createClient({ baseUrl: url, accessToken, userId, deviceId });
    return login;
  },

  async starts({ options }) {
    await client.initRustCrypto({ useIndexedDB: false });
    client.on(RoomEvent.Timeline, (event) => heard.push(event));
    await client.startClient(options);
    await until(() => client.getSyncState() === SyncState.Syncing);
    return { rooms: client.getRooms().map((room) => room.roomId) };
  },

  /** Whether others can find its keys at the homeserver. */
  async is_published() {
    const [user, device] = [client.getUserId(), client.getDeviceId()];
    const devices = () => client.getCrypto().getUserDeviceInfo([user], true);
    return until(async () => (await devices()).get(user)?.has(device));
  },

  calls: ({ method, given }) => client[method](...given),

  async hears({ room, event }) {
    const wanted = (one) => one.getRoomId() === room && has(one.getEffectiveEvent(), event);
    const found = await until(() => heard.find(wanted));
    return { ...found.getEffectiveEvent(), encrypted: found.isEncrypted() };
  },

  is_member: ({ room, user }) => until(() => client.getRoom(room)?.getMember(user)?.membership === "join"),
  is_typing: ({ room, user }) => until(() => client.getRoom(room).getMember(user).typing),
  has_read: ({ room, user, event }) => until(() => client.getRoom(room).getEventReadUpTo(user) === event),

  reads: ({ room, event }) => client.sendReadReceipt(client.getRoom(room).findEventById(event)),

  /** All of a room that there is, the first event first. */
  async reads_back({ room, limit }) {
    const timeline = () => client.getRoom(room).getLiveTimeline();
    for (let pages = 0; pages < 20 && timeline().getPaginationToken("b"); pages++) {
      await client.scrollback(client.getRoom(room), limit);
    }
    return timeline()
      .getEvents()
      .map((event) => event.getId());
  },

  /** Once every device of the others' is known that the message is to be read by. */
  async speaks_in_secret({ room, others, content }) {
    const devices = await client.getCrypto().getUserDeviceInfo(others, true);
    const known = others.every((user) => devices.get(user)?.size > 0);
    if (!known) throw new Error(`no devices of ${others} are known`);
    return client.sendMessage(room, content);
  },

  async logs_out() {
    await client.logout(true);
  },
});
