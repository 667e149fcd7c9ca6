"""The conversation as a person types it: `coap-client` of libcoap, in a shell."""

import json
import os
import re
import select
import subprocess
import time

from transcript import compact
from transcript import cut
from world import PATIENCE
from world import login
from world import messages
from world import registration
from world import same

TITLE = "coap-client of libcoap 4.3.1"

# Debian has one binary for each TLS library; -B ends it even if no answer comes.
CLIENT = "coap-client-notls -B 20"
QUIET = "set_presence=offline&timeout=0"


class Conversation:
    """A shell whose commands and output are written down, and what was learnt from them."""

    def __init__(self, world, transcript):
        self.world = world
        self.transcript = transcript
        self.variables = {}
        self.set("GATEWAY", world.gateway)

    def set(self, name, value):
        """Sets a shell variable, as it is typed."""
        self.variables[name] = value
        self.transcript.block(f"$ {name}='{value}'")

    def shell(self, command):
        """Runs a command and returns all that it printed."""
        done = subprocess.run(
            ["bash", "-c", command],
            env=self.environment(),
            cwd=self.world.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
        )
        text = done.stdout.decode()
        self.transcript.block(f"$ {command}\n{cut(text)}")
        assert done.returncode == 0, f"{command} ended with {done.returncode}: {text}"
        return text

    def json(self, command):
        return json.loads(self.shell(command))

    def compare(self, command, target, user):
        """Runs a command that prints JSON; the homeserver says the same to that user. Returns it."""
        ours, theirs = self.world.steady(target, self.variables[user], lambda: self.json(command))
        same(ours, theirs)
        return ours

    def environment(self):
        path = f"{self.world.lowband.parent}:{os.environ['PATH']}"
        return {**os.environ, **self.variables, "PATH": path}

    def take(self, step):
        step(self)

    def close(self):
        pass


def registers(talk):
    """Two users register: JSON on both sides (formats 50), in the path's short form 4"""
    for name in "alice", "bob":
        body = compact(registration(name))
        answer = talk.json(f"echo '{body}' | {CLIENT} -m post -t 50 -A 50 -f - $GATEWAY/4")
        assert answer["user_id"] == f"@{name}:lowband.test"
        talk.set(name.upper(), answer["access_token"])
        who = talk.world.answer("/_matrix/client/v3/account/whoami", answer["access_token"])
        assert who["user_id"] == answer["user_id"]


def logs_in(talk):
    """A login in CBOR: `lowband encode` writes it with integer keys, `lowband decode` reads the answer"""
    body = compact(login("bob"))
    answer = talk.json(
        f"echo '{body}' | lowband encode | {CLIENT} -m post -t 60 -f - -o /dev/stdout $GATEWAY/_matrix/client/v3/login | lowband decode"
    )
    assert answer["user_id"] == "@bob:lowband.test"
    talk.set("BOB", answer["access_token"])
    devices = talk.world.answer("/_matrix/client/v3/devices", answer["access_token"])["devices"]
    assert answer["device_id"] in [device["device_id"] for device in devices]


def makes_a_room(talk):
    """A room is made, with the access token in option 256; bob is invited and joins"""
    answer = talk.json(
        """echo '{"name":"Funkloch","room_alias_name":"radio"}' | """
        f"{CLIENT} -m post -t 50 -A 50 -O 256,$ALICE -f - $GATEWAY/_matrix/client/v3/createRoom"
    )
    talk.set("ROOM", answer["room_id"])
    talk.shell(
        """echo '{"user_id":"@bob:lowband.test"}' | """
        f"{CLIENT} -m post -t 50 -A 50 -O 256,$ALICE -f - $GATEWAY/_matrix/client/v3/rooms/$ROOM/invite"
    )
    talk.shell(
        f"echo '{{}}' | {CLIENT} -m post -t 50 -A 50 -O 256,$BOB -f - "
        "$GATEWAY/_matrix/client/v3/join/%23radio%3Alowband.test"
    )
    joined = talk.world.answer("/_matrix/client/v3/joined_rooms", talk.variables["BOB"])
    assert joined == {"joined_rooms": [answer["room_id"]]}


def sends(talk):
    """A message is sent in the path's full form, and again in its short form 9: the same event"""
    body = '{"msgtype":"m.text","body":"Hello World 🌍"}'
    sent = talk.json(
        f"echo '{body}' | {CLIENT} -m put -t 50 -A 50 -O 256,$ALICE -f - "
        "$GATEWAY/_matrix/client/v3/rooms/$ROOM/send/m.room.message/t1"
    )
    again = talk.json(
        f"echo '{body}' | {CLIENT} -m put -t 50 -A 50 -O 256,$ALICE -f - $GATEWAY/9/$ROOM/m.room.message/t1"
    )
    assert again == sent
    talk.set("EVENT", sent["event_id"])
    room = talk.variables["ROOM"]
    event = talk.world.answer(f"/_matrix/client/v3/rooms/{room}/event/{sent['event_id']}", talk.variables["BOB"])
    assert event["content"] == json.loads(body)


def sends_in_blocks(talk):
    """A long message, sent in blocks of 64 bytes (Block1)"""
    body = {"msgtype": "m.text", "body": "Brief. " * 300}
    (talk.world.directory / "letter.json").write_text(compact(body))
    sent = talk.json(
        f"{CLIENT} -b 64 -m put -t 50 -A 50 -O 256,$ALICE -f letter.json $GATEWAY/9/$ROOM/m.room.message/t2"
    )
    room = talk.variables["ROOM"]
    event = talk.world.answer(f"/_matrix/client/v3/rooms/{room}/event/{sent['event_id']}", talk.variables["BOB"])
    assert event["content"] == body


def redacts(talk):
    """The first message is redacted, in the short form F: this client cuts off a path at 100 bytes, and the full form has more"""
    talk.shell(
        """echo '{"reason":"slip"}' | """
        f"{CLIENT} -m put -t 50 -A 50 -O 256,$ALICE -f - $GATEWAY/F/$ROOM/$EVENT/t3"
    )
    room, event = talk.variables["ROOM"], talk.variables["EVENT"]
    assert talk.world.answer(f"/_matrix/client/v3/rooms/{room}/event/{event}", talk.variables["BOB"])["content"] == {}


def sets_what_is_read_again(talk):
    """State, profile and a filter are set, and read again"""
    topic = talk.json(
        """echo '{"topic":"100 bit/s"}' | """
        f"{CLIENT} -m put -t 50 -A 50 -O 256,$ALICE -f - $GATEWAY/_matrix/client/v3/rooms/$ROOM/state/m.room.topic"
    )
    assert topic["event_id"].startswith("$")
    talk.shell(
        """echo '{"displayname":"Алиса"}' | """
        f"{CLIENT} -m put -t 50 -A 50 -O 256,$ALICE -f - "
        "$GATEWAY/_matrix/client/v3/profile/@alice:lowband.test/displayname"
    )
    made = talk.json(
        """echo '{"room":{"timeline":{"limit":60}}}' | """
        f"{CLIENT} -m post -t 50 -A 50 -O 256,$ALICE -f - "
        "$GATEWAY/_matrix/client/v3/user/@alice:lowband.test/filter"
    )
    talk.set("FILTER", made["filter_id"])
    for target, expected in [
        ("/_matrix/client/v3/rooms/$ROOM/state/m.room.topic", {"topic": "100 bit/s"}),
        ("/_matrix/client/v3/profile/@alice:lowband.test", {"displayname": "Алиса"}),
        ("/_matrix/client/v3/user/@alice:lowband.test/filter/$FILTER", {"room": {"timeline": {"limit": 60}}}),
    ]:
        assert talk.json(f"{CLIENT} -A 50 -O 256,$ALICE $GATEWAY{target}") == expected


def reads_the_room(talk):
    """What is read of a room is what the homeserver says itself, as JSON and as CBOR"""
    for what in "messages?dir=b&limit=3", "members?membership=join", "state", "joined_members":
        target = f"/_matrix/client/v3/rooms/{talk.variables['ROOM']}/{what}"
        url = f'"$GATEWAY/_matrix/client/v3/rooms/$ROOM/{what}"'
        talk.compare(f"{CLIENT} -A 50 -O 256,$BOB {url}", target, "BOB")
        # To standard output itself it adds a line feed, which is not CBOR.
        talk.compare(f"{CLIENT} -O 256,$BOB -o /dev/stdout {url} | lowband decode", target, "BOB")


def syncs_in_blocks(talk):
    """An initial sync of more than 20 kB comes by Block2, then one from there"""
    room, alice = talk.variables["ROOM"], talk.variables["ALICE"]
    for number in range(40):
        body = {"msgtype": "m.text", "body": f"{number}: " + "Sätze, " * 60}
        target = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/b{number}"
        assert talk.world.http("PUT", target, alice, body)[0] == 200
    target = f"/_matrix/client/v3/sync?{QUIET}&filter={talk.variables['FILTER']}"
    for size in 1024, 256:
        command = (
            f"{CLIENT} -b {size} -A 50 -O 256,$ALICE -o sync.json"
            f' "$GATEWAY/_matrix/client/v3/sync?{QUIET}&filter=$FILTER" && wc -c sync.json'
        )

        def ask():
            talk.shell(command)
            return json.loads((talk.world.directory / "sync.json").read_bytes())

        ours, theirs = talk.world.steady(target, alice, ask)
        same(ours, theirs)
        assert (talk.world.directory / "sync.json").stat().st_size > 20_000
        assert len(messages(ours, room)) == 42
    talk.set("SINCE", ours["next_batch"])
    assert talk.world.http("PUT", f"/_matrix/client/v3/rooms/{room}/send/m.room.message/c", alice, body)[0] == 200
    part = talk.compare(
        f'{CLIENT} -A 50 -O 256,$ALICE "$GATEWAY/7?{QUIET}&since=$SINCE"',
        f"/_matrix/client/v3/sync?{QUIET}&since={talk.variables['SINCE']}",
        "ALICE",
    )
    assert messages(part, room) == [body["body"]]


def observes(talk):
    """Alice observes /sync (path 7) for 8 seconds while bob sends over HTTP, the last time more than a block can hold"""
    command = f'{CLIENT} -s 8 -w -A 50 -O 256,$ALICE "$GATEWAY/7?since=$SINCE"'
    process = subprocess.Popen(["bash", "-c", command], env=talk.environment(), stdout=subprocess.PIPE)
    output = Lines(process.stdout)
    room = talk.variables["ROOM"]
    output.sync_with(room, PATIENCE)
    for number, text in enumerate(["one", "two", "three, long: " + "Absatz. " * 500]):
        target = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/o{number}"
        body = {"msgtype": "m.text", "body": text}
        assert talk.world.http("PUT", target, talk.variables["BOB"], body)[0] == 200
        sent = time.monotonic()
        heard = output.sync_with(room, PATIENCE)
        assert messages(heard, room) == [text]
        assert number == 2 or time.monotonic() - sent < 1, "heard within a second"
    assert process.wait(PATIENCE) == 0
    output.rest()
    talk.transcript.block(f"$ {command}\n" + "\n".join(cut(line, 400) for line in output.seen))


def fails(talk):
    """What the homeserver refuses is refused with its own error"""
    room = talk.variables["ROOM"]
    cases = [
        ("4.00", "M_INVALID_PARAM", "-O 256,$ALICE", "/_matrix/client/v3/rooms/$ROOM/messages?dir=sideways"),
        ("4.01", "M_UNKNOWN_TOKEN", "-O 256,wrong", "/_matrix/client/v3/account/whoami"),
        ("4.03", "M_FORBIDDEN", "-O 256,$ALICE", "/_matrix/client/v3/rooms/!other:lowband.test/members"),
        ("4.04", "M_NOT_FOUND", "-O 256,$ALICE", "/_matrix/client/v3/directory/room/%23nobody%3Alowband.test"),
        ("4.05", "M_UNRECOGNIZED", "-m delete", "/_matrix/client/v3/login"),
    ]
    for code, errcode, options, target in cases:
        said = talk.shell(f'{CLIENT} -A 50 {options} "$GATEWAY{target}"')
        assert said.startswith(code), said
        assert json.loads(said[len(code) :])["errcode"] == errcode, said
        token = {"-O 256,$ALICE": talk.variables["ALICE"], "-O 256,wrong": "wrong"}.get(options)
        method = "DELETE" if options == "-m delete" else "GET"
        status, theirs = talk.world.http(method, target.replace("$ROOM", room), token)
        assert f"{status // 100}.{status % 100:02}" == code
        same(json.loads(said[len(code) :]), theirs)
    said = talk.shell(
        """echo '{"room_id":"'$ROOM'"}' | """
        f"{CLIENT} -m put -t 50 -A 50 -O 256,$ALICE -f - $GATEWAY/_matrix/client/v3/directory/room/%23radio%3Alowband.test"
    )
    assert said.startswith("4.09"), said


def waits(talk):
    """A fourth login in a minute is one too many: 4.29, with Max-Age for how long to wait (-v 6 shows the options)"""
    for _ in range(3):
        assert talk.world.http("POST", "/_matrix/client/v3/login", None, login("alice"))[0] == 200
    said = talk.shell(
        f"echo '{compact(login('alice'))}' | {CLIENT} -v 6 -m post -t 50 -A 50 -f - $GATEWAY/_matrix/client/v3/login"
    )
    assert re.search(r"c:4\.29 .*Max-Age:([1-9]|[1-5][0-9]|6[01])\b", said), said
    assert "M_LIMIT_EXCEEDED" in said, said


class Lines:
    """Lines of JSON from a process that goes on."""

    def __init__(self, stream):
        self.stream = stream
        self.pending = b""
        self.seen = []

    def sync_with(self, room, patience):
        """The next answer that has messages in it, or that is the first."""
        give_up = time.monotonic() + patience
        while True:
            line = self.line(give_up)
            first = not self.seen
            self.seen.append(line)
            if first or messages(json.loads(line), room):
                return json.loads(line)

    def line(self, give_up):
        while b"\n" not in self.pending:
            ready, _, _ = select.select([self.stream], [], [], max(0, give_up - time.monotonic()))
            assert ready, f"nothing came; before that: {self.seen} {self.pending}"
            more = os.read(self.stream.fileno(), 65536)
            assert more, f"it ended; before that: {self.seen} {self.pending}"
            self.pending += more
        line, self.pending = self.pending.split(b"\n", 1)
        return line.decode()

    def rest(self):
        """Reads to the end."""
        self.pending += self.stream.read()
        self.seen += [line for line in self.pending.decode().split("\n") if line]


STEPS = [
    registers,
    logs_in,
    makes_a_room,
    sends,
    sends_in_blocks,
    redacts,
    sets_what_is_read_again,
    reads_the_room,
    syncs_in_blocks,
    observes,
    fails,
    waits,
]
