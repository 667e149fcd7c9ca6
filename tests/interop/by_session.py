"""A user's beginning, counted: login, initial sync of three rooms, ten messages sent and ten received, by plain HTTP through `lowband proxy`.

What it is compared with was measured over TLS 1.3 with a real Synapse: HTTP/1.1 on one connection, and HTTP/2 with gzip.
"""

import json
import urllib.parse
import urllib.request

from far import FarWorld
from slow import SLOW_PATIENCE
from world import login
from world import messages

TITLE = "plain HTTP with lowband proxy: what a user's beginning costs"
# Bytes of IP, both ways.
HTTPS = {"all": 57_400, "initial sync": 26_600}
HTTP2 = {"all": 31_500, "initial sync": 6_800}
# IPv4 and UDP.
HEADERS = 28


class World(FarWorld):
    """One whose link carries what it is given at once: only bytes count here."""

    def relaying(self, listen):
        to = self.behind.removeprefix("coap://")
        return ["link", "run", "--profile", "lan", "--listen", listen, "--to", to, "-v"]

    def config(self):
        return ""

    LISTEN = "127.0.0.1:0"
    BEHIND = ["--link", "lan"]


WORLD = World


class Conversation:
    """Alice's client, at the far end."""

    def __init__(self, world, transcript):
        self.world = world
        self.transcript = transcript
        self.rooms = []
        self.token = self.since = self.bob = None
        self.costs = {}

    def take(self, step):
        before = self.world.crossed()
        step(self)
        up, down, datagrams = (now - then for now, then in zip(self.world.crossed(), before))
        self.costs[step.__name__] = total = up + down + HEADERS * datagrams
        self.transcript.block(f"{datagrams} datagrams, {up} B up, {down} B down: {total} B with IP and UDP")

    def close(self):
        pass

    def ask(self, method, target, body=None):
        request = urllib.request.Request(self.world.proxy + target, method=method)
        if self.token:
            request.add_header("Authorization", f"Bearer {self.token}")
        if body is not None:
            request.data = json.dumps(body).encode()
        with urllib.request.urlopen(request, timeout=SLOW_PATIENCE) as response:
            return json.load(response)


def begins(talk):
    """Alice is in three rooms with bob; her device is added, and the proxy begins"""
    world = talk.world
    world.register("alice", "bob")
    alice, talk.bob = (world.http("POST", "/_matrix/client/v3/login", None, login(name))[1] for name in ("alice", "bob"))
    for number in range(3):
        room = {"name": f"Room {number}", "invite": [alice["user_id"]], "preset": "private_chat"}
        talk.rooms.append(world.http("POST", "/_matrix/client/v3/createRoom", talk.bob["access_token"], room)[1]["room_id"])
        assert world.http("POST", f"/_matrix/client/v3/join/{talk.rooms[-1]}", alice["access_token"], {})[0] == 200
        for line in range(5):
            say(talk, talk.rooms[-1], f"b{number}{line}", f"Line {line} of the log of room {number}")
    (world.directory / "token").write_text(alice["access_token"])
    user = ["--user", alice["user_id"], "--token-file", "token", "--homeserver", world.homeserver]
    world.device("add", "boat", *user, "--allow-token", "--routes", "all")
    world.device("export", "boat", "-o", "boat.toml")
    talk.transcript.block(world.start_proxy())


def say(talk, room, transaction, text):
    target = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/{transaction}"
    assert talk.world.http("PUT", target, talk.bob["access_token"], {"msgtype": "m.text", "body": text})[0] == 200


def logs_in(talk):
    """Login"""
    talk.token = talk.ask("POST", "/_matrix/client/v3/login", login("alice"))["access_token"]


def syncs(talk):
    """Initial sync"""
    sync = talk.ask("GET", "/_matrix/client/v3/sync?timeout=0")
    assert set(sync["rooms"]["join"]) == set(talk.rooms)
    talk.since = sync["next_batch"]


def sends(talk):
    """Ten messages sent"""
    room = urllib.parse.quote(talk.rooms[0])
    for number in range(10):
        target = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/m{number}"
        talk.ask("PUT", target, {"msgtype": "m.text", "body": f"Hello from the boat, message {number}"})


def receives(talk):
    """Ten messages received, one after another, and the echoes of those that were sent"""
    for number in range(10):
        say(talk, talk.rooms[0], f"r{number}", f"Hello from the shore, message {number}")
        for _ in range(20):
            sync = talk.ask("GET", f"/_matrix/client/v3/sync?timeout=3000&since={talk.since}")
            talk.since = sync["next_batch"]
            if f"Hello from the shore, message {number}" in messages(sync, talk.rooms[0]):
                break
        else:
            raise AssertionError("it does not come")


def costs(talk):
    """What that is of HTTPS"""
    whole = sum(talk.costs[step.__name__] for step in (logs_in, syncs, sends, receives))
    initial = talk.costs["syncs"]
    rows = [f"{name}: {talk.costs[name]} B" for name in ("logs_in", "syncs", "sends", "receives")]
    for what, bytes_, of in ("all", whole, (HTTPS["all"], HTTP2["all"])), (
        "initial sync",
        initial,
        (HTTPS["initial sync"], HTTP2["initial sync"]),
    ):
        rows.append(f"{what}: {bytes_} B, {100 * bytes_ / of[0]:.1f} % of HTTPS, {100 * bytes_ / of[1]:.1f} % of HTTP/2 with gzip")
    talk.transcript.block("\n".join(rows))
    print("\n".join(rows), flush=True)
    assert whole < HTTP2["all"] / 2, rows


STEPS = [begins, logs_in, syncs, sends, receives, costs]
