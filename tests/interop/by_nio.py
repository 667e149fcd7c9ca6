"""The conversation by matrix-nio, a Matrix client that knows nothing of slow links: it is given the address of `lowband proxy` for that of its
homeserver. Bob is another one, and speaks with the homeserver itself. The last room is encrypted.
"""

import asyncio

from nio import AsyncClient
from nio import AsyncClientConfig
from nio import ErrorResponse
from nio import InviteMemberEvent
from nio import LoginResponse
from nio import MegolmEvent
from nio import RoomMemberEvent
from nio import RoomMessageText
from nio import store

from far import FarWorld
from slow import SLOW_PATIENCE
from transcript import compact
from transcript import cut

TITLE = "matrix-nio 0.26.0 with lowband proxy, over hf-100 twenty times as fast"
PASSWORD = "correct horse"


WORLD = FarWorld


class Conversation:
    """Alice, at the far end, and bob, beside the homeserver."""

    def __init__(self, world, transcript):
        self.world = world
        self.transcript = transcript
        self.runner = asyncio.Runner()
        self.alice = self.bob = self.room = self.event = None

    def take(self, step):
        self.runner.run(asyncio.wait_for(step(self), 3 * SLOW_PATIENCE))

    def close(self):
        for client in self.alice, self.bob:
            if client is not None:
                self.runner.run(client.close())
        self.runner.close()

    async def client(self, url, name):
        """A client that is logged in."""
        (self.world.directory / f"nio-{name}").mkdir(exist_ok=True)
        config = AsyncClientConfig(
            store=store.SqliteStore, encryption_enabled=True, request_timeout=SLOW_PATIENCE, store_sync_tokens=True
        )
        client = AsyncClient(url, name, store_path=str(self.world.directory / f"nio-{name}"), config=config)
        answer = await client.login(PASSWORD, device_name=f"nio of {name}")
        assert isinstance(answer, LoginResponse), answer
        return client

    async def does(self, what, call):
        """The answer to a call that must succeed."""
        started = asyncio.get_running_loop().time()
        answer = await call
        seconds = asyncio.get_running_loop().time() - started
        assert not isinstance(answer, ErrorResponse), answer
        self.transcript.block(f"alice> {what}\n< {type(answer).__name__} after {seconds:.1f} s")
        return answer

    async def hears(self, client, wanted, room=None):
        """Syncs until an event is what is wanted; the event."""
        room = room or self.room
        for _ in range(60):
            sync = await client.sync(timeout=3_000)
            assert not isinstance(sync, ErrorResponse), sync
            joined = sync.rooms.join.get(room)
            for event in joined.timeline.events if joined else []:
                if wanted(event):
                    if client is self.alice:
                        self.transcript.block(f"alice> sync\n< {cut(compact(event.source))}")
                    return event
        raise AssertionError("it does not come")


def says(text):
    return lambda event: isinstance(event, RoomMessageText) and event.body == text


async def logs_in(talk):
    """The operator adds the device; the proxy begins; alice logs in through it and has her initial sync"""
    world = talk.world
    world.register("alice", "bob")
    talk.transcript.block(await asyncio.to_thread(world.begin, "alice"))
    talk.bob = await talk.client(world.homeserver, "bob")
    talk.alice = await talk.client(world.proxy, "alice")
    talk.transcript.block(f"alice> login\n< {talk.alice.user_id}, device {talk.alice.device_id}")
    await talk.does("sync", talk.alice.sync(timeout=0, full_state=True))


async def talks(talk):
    """A room, an invitation that bob takes, and messages both ways"""
    made = await talk.does("room_create", talk.alice.room_create(name="Radio 📻", invite=[talk.bob.user_id]))
    talk.room = made.room_id
    sync = await talk.bob.sync(timeout=3_000, full_state=True)
    assert any(isinstance(event, InviteMemberEvent) for event in sync.rooms.invite[talk.room].invite_state)
    assert not isinstance(await talk.bob.join(talk.room), ErrorResponse)
    joined = lambda event: isinstance(event, RoomMemberEvent) and event.sender == talk.bob.user_id
    await talk.hears(talk.alice, lambda event: joined(event) and event.membership == "join")
    hello = {"msgtype": "m.text", "body": "Hello World"}
    sent = await talk.does("room_send", talk.alice.room_send(talk.room, "m.room.message", hello))
    talk.event = sent.event_id
    heard = await talk.hears(talk.bob, says("Hello World"))
    assert (heard.event_id, heard.sender) == (talk.event, talk.alice.user_id)
    await talk.bob.room_send(talk.room, "m.room.message", {"msgtype": "m.text", "body": "Grüße vom Ufer"})
    assert (await talk.hears(talk.alice, says("Grüße vom Ufer"))).sender == talk.bob.user_id


async def changes_what_was_said(talk):
    """An edit, a reaction, a reply and a redaction, as bob sees them"""
    edit = {
        "msgtype": "m.text",
        "body": "* Hello, World!",
        "m.new_content": {"msgtype": "m.text", "body": "Hello, World!"},
        "m.relates_to": {"rel_type": "m.replace", "event_id": talk.event},
    }
    await talk.does("an edit", talk.alice.room_send(talk.room, "m.room.message", edit))
    reaction = {"m.relates_to": {"rel_type": "m.annotation", "event_id": talk.event, "key": "👍"}}
    await talk.does("a reaction", talk.alice.room_send(talk.room, "m.reaction", reaction))
    reply = {"msgtype": "m.text", "body": "And again", "m.relates_to": {"m.in_reply_to": {"event_id": talk.event}}}
    replied = await talk.does("a reply", talk.alice.room_send(talk.room, "m.room.message", reply))
    heard = await talk.hears(talk.bob, says("And again"))
    assert heard.source["content"] == reply
    redacted = await talk.does("a redaction", talk.alice.room_redact(talk.room, replied.event_id, reason="twice"))
    event = talk.world.answer(
        f"/_matrix/client/v3/rooms/{talk.room}/event/{replied.event_id}", talk.bob.access_token
    )
    assert event["unsigned"]["redacted_because"]["event_id"] == redacted.event_id and event["content"] == {}


async def shows_where_it_is(talk):
    """Read markers, a typing notice, names"""
    await talk.does("room_read_markers", talk.alice.room_read_markers(talk.room, talk.event, talk.event))
    await talk.does("room_typing", talk.alice.room_typing(talk.room, True, 20_000))
    await talk.does("set_displayname", talk.alice.set_displayname("Alice of the boat"))
    named = await talk.does("get_displayname", talk.alice.get_displayname())
    assert named.displayname == "Alice of the boat"
    profile = talk.world.answer(f"/_matrix/client/v3/profile/{talk.alice.user_id}", talk.bob.access_token)
    assert profile["displayname"] == "Alice of the boat"


async def reads_back(talk):
    """Older messages page by page: the same as the homeserver says"""
    start, events = talk.alice.next_batch, []
    for _ in range(20):
        page = await talk.does("room_messages", talk.alice.room_messages(talk.room, start=start, limit=5))
        events += [event.event_id for event in page.chunk]
        if not page.end or not page.chunk:
            break
        start = page.end
    theirs = talk.world.answer(
        f"/_matrix/client/v3/rooms/{talk.room}/messages?dir=b&limit=100", talk.bob.access_token
    )
    theirs = [event["event_id"] for event in theirs["chunk"]]
    # What came after alice's last sync is not in hers.
    assert events and events == theirs[-len(events) :], (events, theirs)


async def speaks_in_secret(talk):
    """An encrypted room: keys cross the link, and what was said on one side is read on the other"""
    for client in talk.alice, talk.bob:
        if client.should_upload_keys:
            await talk.does("keys_upload", client.keys_upload())
    encrypted = [{"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}]
    made = await talk.does(
        "room_create, encrypted",
        talk.alice.room_create(name="Cabin", invite=[talk.bob.user_id], initial_state=encrypted),
    )
    room = made.room_id
    await talk.bob.join(room)
    for client in talk.bob, talk.alice:
        for _ in range(30):
            await client.sync(timeout=3_000)
            found = client.rooms.get(room)
            if found and found.encrypted and len(found.users) == 2:
                break
        if client.should_query_keys:
            await talk.does("keys_query", client.keys_query())
    secret = {"msgtype": "m.text", "body": "The treasure is under the third palm"}
    await talk.does(
        "room_send, encrypted",
        talk.alice.room_send(room, "m.room.message", secret, ignore_unverified_devices=True),
    )
    await talk.hears(talk.bob, says(secret["body"]), room)
    answer = {"msgtype": "m.text", "body": "Which island?"}
    await talk.bob.room_send(room, "m.room.message", answer, ignore_unverified_devices=True)
    await talk.hears(talk.alice, says("Which island?"), room)
    crossed = talk.world.answer(f"/_matrix/client/v3/rooms/{room}/messages?dir=b&limit=20", talk.bob.access_token)
    said = [event for event in crossed["chunk"] if event["type"] == "m.room.encrypted"]
    assert len(said) == 2 and not any(isinstance(event, MegolmEvent) for event in said)


async def logs_out(talk):
    """Alice logs out; her token is worth nothing any more"""
    status = await asyncio.to_thread(talk.world.proxy_status)
    talk.transcript.block(f"$ curl -s {talk.world.proxy}/_lowband/status\n{cut(compact(status), 1_200)}")
    assert status["link"] == "up" and status["queue"] == [], status
    token = talk.alice.access_token
    await talk.does("logout", talk.alice.logout())
    status, answer = await asyncio.to_thread(talk.world.http, "GET", "/_matrix/client/v3/account/whoami", token)
    assert (status, answer["errcode"]) == (401, "M_UNKNOWN_TOKEN"), answer


STEPS = [
    logs_in,
    talks,
    changes_what_was_said,
    shows_where_it_is,
    reads_back,
    speaks_in_secret,
    logs_out,
]
