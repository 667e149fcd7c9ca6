"""The conversation by matrix-bot-sdk, a library of programs that answer: it is given the address of `lowband proxy` for that of its homeserver.
Bob speaks with the homeserver itself, by plain HTTP.
"""

import time

from far import FarWorld
from program import Program
from shore import Shore
from shore import edit
from shore import is_
from shore import message
from shore import reaction
from transcript import compact
from transcript import cut

TITLE = "matrix-bot-sdk 0.8.0 with lowband proxy, over hf-100 fifty times as fast"
ALICE, BOB = "@alice:lowband.test", "@bob:lowband.test"


class World(FarWorld):
    """One of a minute."""

    SPEED = 50


WORLD = World


class Conversation:
    """Alice's program, at the far end, and bob, beside the homeserver."""

    def __init__(self, world, transcript):
        self.world = world
        self.transcript = transcript
        self.alice = self.bob = self.room = self.event = self.token = None

    def take(self, step):
        step(self)

    def close(self):
        if self.alice:
            self.alice.close()

    def does(self, what, does, **given):
        """What came of something that alice's program does."""
        started = time.monotonic()
        value = self.alice.ask(does, **given)
        self.transcript.block(f"alice> {what}\n< {cut(compact(value))} after {time.monotonic() - started:.1f} s")
        return value

    def calls(self, method, *given):
        return self.does(method, "calls", method=method, given=given)


def logs_in(talk):
    """The operator adds the device; the proxy begins; alice's program logs in through it, stays with it, and has its initial sync"""
    talk.world.register("alice", "bob")
    talk.transcript.block(talk.world.begin("alice", "--policy", "typing=latest"))
    talk.bob = Shore(talk.world, "bob")
    talk.alice = Program("bot-sdk.mjs", talk.world.directory / "bot-sdk.log")
    login = talk.does("passwordLogin", "logs_in", url=talk.world.proxy, user="alice", password="correct horse")
    # It follows what a login says of where the homeserver is.
    assert (login["homeserver"].rstrip("/"), login["user"]) == (talk.world.proxy, ALICE)
    talk.token = login["token"]
    talk.does("start", "starts")


def talks(talk):
    """Bob's room, which alice's program is invited to and joins, and messages both ways"""
    room = {"name": "Workshop", "preset": "private_chat", "invite": [ALICE]}
    talk.room = talk.bob.does("POST", "createRoom", room)["room_id"]
    talk.does("hears", "hears", room=talk.room, event={"content": {"membership": "invite"}})
    assert talk.calls("joinRoom", talk.room) == talk.room
    talk.bob.hears(lambda event: is_("m.room.member", membership="join")(event) and event["sender"] == ALICE, talk.room)
    talk.event = talk.calls("sendText", talk.room, "Hello World")
    assert talk.bob.hears(is_("m.room.message", body="Hello World"), talk.room)["event_id"] == talk.event
    asked = talk.bob.sends(talk.room, message("!status"))
    heard = talk.does("hears", "hears", room=talk.room, event={"sender": BOB, "content": message("!status")})
    assert heard["event_id"] == asked
    talk.calls("replyText", talk.room, heard, "All is well")
    answer = talk.bob.hears(lambda event: "All is well" in event["content"].get("body", ""), talk.room)
    assert answer["content"]["m.relates_to"]["m.in_reply_to"]["event_id"] == asked


def changes_what_was_said(talk):
    """An edit, a reaction and a redaction, as bob sees them"""
    talk.calls("sendMessage", talk.room, edit(talk.event, "Hello, World!"))
    reacted = talk.calls("sendEvent", talk.room, "m.reaction", reaction(talk.event, "👍"))
    assert talk.bob.hears(is_("m.reaction"), talk.room)["content"] == reaction(talk.event, "👍")
    latest = talk.bob.event(talk.room, talk.event)["unsigned"]["m.relations"]["m.replace"]
    assert latest["content"]["m.new_content"]["body"] == "Hello, World!"
    redacted = talk.calls("redactEvent", talk.room, reacted, "too soon")
    assert talk.bob.event(talk.room, reacted)["unsigned"]["redacted_because"]["event_id"] == redacted


def shows_where_it_is(talk):
    """A receipt, a typing notice, a name, and what is known of the room"""
    said = talk.bob.sends(talk.room, message("Did you read this?"))
    talk.does("hears", "hears", room=talk.room, event={"event_id": said})
    talk.calls("sendReadReceipt", talk.room, said)
    talk.bob.hears(lambda event: event["type"] == "m.receipt" and said in event["content"], talk.room)
    talk.calls("setTyping", talk.room, True, 20_000)
    talk.bob.hears(is_("m.typing", user_ids=[ALICE]), talk.room)
    talk.calls("setDisplayName", "Alice of the boat")
    assert talk.calls("getUserProfile", ALICE)["displayname"] == "Alice of the boat"
    assert talk.bob.profile(ALICE)["displayname"] == "Alice of the boat"
    assert talk.calls("getJoinedRooms") == [talk.room]
    assert set(talk.calls("getJoinedRoomMembers", talk.room)) == {ALICE, BOB}
    assert talk.calls("getRoomStateEvent", talk.room, "m.room.name", "") == {"name": "Workshop"}


def reads_back(talk):
    """Older messages page by page: the same as the homeserver says"""
    # The name that she took is said in the room in the homeserver's own time.
    talk.bob.hears(is_("m.room.member", displayname="Alice of the boat"), talk.room)
    events, position = [], None
    for _ in range(20):
        query = {"dir": "b", "limit": 6, **({"from": position} if position else {})}
        page = talk.calls("doRequest", "GET", f"/_matrix/client/v3/rooms/{talk.room}/messages", query)
        events += [event["event_id"] for event in page["chunk"]]
        position = page.get("end")
        if not position or not page["chunk"]:
            break
    assert list(reversed(events)) == talk.bob.history(talk.room)


def logs_out(talk):
    """Alice's program leaves and logs out; its token is worth nothing any more"""
    talk.calls("leaveRoom", talk.room)
    talk.bob.hears(is_("m.room.member", membership="leave"), talk.room)
    status = talk.world.proxy_status()
    talk.transcript.block(f"$ curl -s {talk.world.proxy}/_lowband/status\n{cut(compact(status), 1_200)}")
    assert status["link"] == "up" and status["queue"] == [], status
    talk.does("logout", "logs_out")
    status, answer = talk.world.http("GET", "/_matrix/client/v3/account/whoami", talk.token)
    assert (status, answer["errcode"]) == (401, "M_UNKNOWN_TOKEN"), answer


STEPS = [logs_in, talks, changes_what_was_said, shows_where_it_is, reads_back, logs_out]
