"""The conversation by matrix-js-sdk, on which Element is built: it is given the address of `lowband proxy` for that of its homeserver. Bob speaks
with the homeserver itself, by plain HTTP, and where it is encrypted by a matrix-js-sdk of his own.
"""

import time

from far import FarWorld
from program import Program
from shore import Shore
from shore import edit
from shore import is_
from shore import message
from shore import reaction
from shore import reply
from transcript import compact
from transcript import cut

TITLE = "matrix-js-sdk 43.0.0 with lowband proxy, over hf-100 a hundred times as fast"
PASSWORD = "correct horse"
BOB = "@bob:lowband.test"


class World(FarWorld):
    """One of few minutes, though a device's keys are many."""

    SPEED = 100


WORLD = World


class Conversation:
    """Alice, at the far end, and bob, beside the homeserver."""

    def __init__(self, world, transcript):
        self.world = world
        self.transcript = transcript
        self.programs = []
        self.alice = self.bob = self.room = self.event = None

    def take(self, step):
        step(self)

    def close(self):
        for program in self.programs:
            program.close()

    def program(self, name):
        self.programs.append(Program("js-sdk.mjs", self.world.directory / f"js-sdk-{name}.log"))
        return self.programs[-1]

    def does(self, what, does, **given):
        """What came of something that alice does."""
        started = time.monotonic()
        value = self.alice.ask(does, **given)
        self.transcript.block(f"alice> {what}\n< {cut(compact(value))} after {time.monotonic() - started:.1f} s")
        return value

    def calls(self, method, *given):
        return self.does(method, "calls", method=method, given=given)


def logs_in(talk):
    """The operator adds the device; the proxy begins; alice logs in through it, and has her initial sync"""
    talk.world.register("alice", "bob")
    talk.transcript.block(talk.world.begin("alice", "--policy", "typing=latest"))
    talk.bob = Shore(talk.world, "bob")
    talk.alice = talk.program("alice")
    login = talk.does("loginRequest", "logs_in", url=talk.world.proxy, user="alice", password=PASSWORD)
    assert login["well_known"]["m.homeserver"]["base_url"].rstrip("/") == talk.world.proxy, login
    started = talk.does("startClient", "starts", options={"initialSyncLimit": 8, "lazyLoadMembers": True})
    assert started["rooms"] == []


def talks(talk):
    """A room, an invitation that bob takes, and messages both ways"""
    talk.room = talk.calls("createRoom", {"name": "Radio 📻", "preset": "private_chat"})["room_id"]
    talk.calls("invite", talk.room, BOB)
    talk.bob.hears(is_("m.room.member", membership="invite"), talk.room)
    talk.bob.joins(talk.room)
    talk.does("sees that bob has joined", "is_member", room=talk.room, user=BOB)
    talk.event = talk.calls("sendMessage", talk.room, message("Hello World"))["event_id"]
    heard = talk.bob.hears(is_("m.room.message", body="Hello World"), talk.room)
    assert (heard["event_id"], heard["sender"]) == (talk.event, "@alice:lowband.test")
    greeting = talk.bob.sends(talk.room, message("Grüße vom Ufer"))
    heard = talk.does("hears", "hears", room=talk.room, event={"sender": BOB, "content": message("Grüße vom Ufer")})
    assert heard["event_id"] == greeting


def changes_what_was_said(talk):
    """An edit, a reaction, a reply and a redaction, as bob sees them, and his, as alice does"""
    talk.calls("sendMessage", talk.room, edit(talk.event, "Hello, World!"))
    talk.calls("sendEvent", talk.room, "m.reaction", reaction(talk.event, "👍"))
    replied = talk.calls("sendMessage", talk.room, reply(talk.event, "And again"))["event_id"]
    assert talk.bob.hears(is_("m.room.message", body="And again"), talk.room)["content"] == reply(talk.event, "And again")
    liked = talk.bob.hears(is_("m.reaction"), talk.room)["content"]["m.relates_to"]
    assert (liked["event_id"], liked["key"]) == (talk.event, "👍")
    latest = talk.bob.event(talk.room, talk.event)["unsigned"]["m.relations"]["m.replace"]
    assert latest["content"]["m.new_content"]["body"] == "Hello, World!"
    redacted = talk.calls("redactEvent", talk.room, replied)["event_id"]
    gone = talk.bob.event(talk.room, replied)
    assert gone["unsigned"]["redacted_because"]["event_id"] == redacted and gone["content"] == {}
    talk.bob.sends(talk.room, reaction(talk.event, "📻"), "m.reaction")
    talk.does("hears", "hears", room=talk.room, event={"type": "m.reaction", "content": reaction(talk.event, "📻")})


def shows_where_it_is(talk):
    """Receipts and typing notices both ways, and a name"""
    said = talk.bob.sends(talk.room, message("Did you read this?"))
    talk.does("hears", "hears", room=talk.room, event={"event_id": said})
    talk.does("sendReadReceipt", "reads", room=talk.room, event=said)
    talk.bob.hears(lambda event: event["type"] == "m.receipt" and said in event["content"], talk.room)
    answer = talk.calls("sendMessage", talk.room, message("I did"))["event_id"]
    talk.bob.does("POST", f"rooms/{talk.room}/receipt/m.read/{answer}", {})
    talk.does("sees what bob has read", "has_read", room=talk.room, user=BOB, event=answer)
    talk.calls("sendTyping", talk.room, True, 20_000)
    talk.bob.hears(is_("m.typing", user_ids=["@alice:lowband.test"]), talk.room)
    talk.bob.does("PUT", f"rooms/{talk.room}/typing/{BOB}", {"typing": True, "timeout": 20_000})
    talk.does("sees that bob types", "is_typing", room=talk.room, user=BOB)
    talk.calls("setDisplayName", "Alice of the boat")
    assert talk.calls("getProfileInfo", "@alice:lowband.test")["displayname"] == "Alice of the boat"
    assert talk.bob.profile("@alice:lowband.test")["displayname"] == "Alice of the boat"


def reads_back(talk):
    """Older messages page by page: the same as the homeserver says"""
    # The name that she took is said in the room in the homeserver's own time.
    named = talk.bob.hears(is_("m.room.member", displayname="Alice of the boat"), talk.room)
    talk.does("hears", "hears", room=talk.room, event={"event_id": named["event_id"]})
    events = talk.does("scrollback", "reads_back", room=talk.room, limit=5)
    assert events == talk.bob.history(talk.room)


def speaks_in_secret(talk):
    """An encrypted room: keys cross the link, and what was said on one side is read on the other"""
    bob = talk.program("bob")
    bob.ask("logs_in", url=talk.world.homeserver, user="bob", password=PASSWORD)
    bob.ask("starts", options={"initialSyncLimit": 8})
    bob.ask("is_published")
    encrypted = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "m.megolm.v1.aes-sha2"}}
    made = {"name": "Cabin", "preset": "trusted_private_chat", "invite": [BOB], "initial_state": [encrypted]}
    room = talk.calls("createRoom", made)["room_id"]
    talk.bob.joins(room)
    talk.does("sees that bob has joined", "is_member", room=room, user=BOB)
    secret = message("The treasure is under the third palm")
    talk.does("sendMessage, encrypted", "speaks_in_secret", room=room, others=[BOB], content=secret)
    heard = bob.ask("hears", room=room, event={"content": secret})
    assert heard["encrypted"] and heard["sender"] == "@alice:lowband.test"
    answer = message("Which island?")
    bob.ask("speaks_in_secret", room=room, others=["@alice:lowband.test"], content=answer)
    heard = talk.does("hears", "hears", room=room, event={"content": answer})
    assert heard["encrypted"] and heard["sender"] == BOB
    said = [talk.bob.event(room, event) for event in talk.bob.history(room)]
    assert [event["type"] for event in said][-2:] == ["m.room.encrypted"] * 2


def logs_out(talk):
    """Alice logs out; her token is worth nothing any more"""
    token = talk.calls("getAccessToken")
    status = talk.world.proxy_status()
    talk.transcript.block(f"$ curl -s {talk.world.proxy}/_lowband/status\n{cut(compact(status), 1_200)}")
    assert status["link"] == "up" and status["queue"] == [], status
    talk.does("logout", "logs_out")
    status, answer = talk.world.http("GET", "/_matrix/client/v3/account/whoami", token)
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
