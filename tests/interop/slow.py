"""What the conversations over a slow link have in common: `lowband link run` between the peers and the gateway, and a room of
two users that was made beforehand, over HTTP.
"""

import json
import re
import signal
import subprocess
import time

from world import PATIENCE
from world import World
from world import registration

SPEED = 20
# What is lost follows from it and from what is sent when, which differs a little from run to run.
SEED = 7
# A message or an answer that has to be repeated four times takes as long as that.
SLOW_PATIENCE = 170  # seconds
TEXTS = ["one", "two", "three", "four", "five"]
# What a device on such a link asks for: messages, and little else.
FILTER = {
    "presence": {"types": []},
    "account_data": {"types": []},
    "event_fields": ["type", "event_id", "sender", "content.body", "content.msgtype"],
    "room": {"ephemeral": {"types": []}, "account_data": {"types": []}},
}


class SlowWorld(World):
    """A world whose peers are at the other end of hf-100, twenty times as fast as it is."""

    def __enter__(self):
        super().__enter__()
        self.behind = self.gateway
        self.relay = subprocess.Popen(
            [
                self.lowband, "link", "run", "--profile", "hf-100", "--speed", str(SPEED), "--seed", str(SEED),
                "--listen", "127.0.0.1:0", "--to", self.behind.removeprefix("coap://"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        line = self.relay.stderr.readline()
        found = re.search(r"127\.0\.0\.1:[0-9]+", line)
        assert found, f"the relay does not listen: {line}"
        self.gateway = f"coap://{found[0]}"
        return self

    def __exit__(self, *error):
        if self.relay.poll() is None:
            self.end_relay()
        super().__exit__(*error)

    def end_relay(self):
        """Ends the relay; what it counted."""
        self.relay.send_signal(signal.SIGTERM)
        return self.relay.communicate(timeout=PATIENCE)[0].strip()

    def options(self):
        config = self.directory / "gateway.toml"
        config.write_text(f'default-link = "slow"\ndefault-shape = "lean"\n\n[link.slow]\nlike = "hf-100"\nspeed = {SPEED}\n')
        return ["--config", config]

    def prepare(self):
        """Two users with a room: their tokens, the room, and what alice asks of /sync after that."""
        tokens = {}
        for name in "alice", "bob":
            status, answer = self.http("POST", "/_matrix/client/v3/register", None, registration(name))
            assert status == 200, answer
            tokens[name] = answer["access_token"]
        invite = {"invite": ["@bob:lowband.test"]}
        room = self.http("POST", "/_matrix/client/v3/createRoom", tokens["alice"], invite)[1]["room_id"]
        assert self.http("POST", f"/_matrix/client/v3/join/{room}", tokens["bob"], {})[0] == 200
        target = "/_matrix/client/v3/user/@alice:lowband.test/filter"
        number = self.http("POST", target, tokens["alice"], FILTER)[1]["filter_id"]
        since = self.answer("/_matrix/client/v3/sync?timeout=0", tokens["alice"])["next_batch"]
        return tokens, room, f"since={since}&filter={number}"

    def sends(self, room, token, number, text):
        target = f"/_matrix/client/v3/rooms/{room}/send/m.room.message/five{number}"
        assert self.http("PUT", target, token, {"msgtype": "m.text", "body": text})[0] == 200

    def texts(self, room, token):
        """All messages of the room, from the first."""
        page = self.answer(f"/_matrix/client/v3/rooms/{room}/messages?dir=f&limit=100", token)
        return [event["content"]["body"] for event in page["chunk"] if event["type"] == "m.room.message"]


class Heard:
    """What an observer has heard of a room, and what of it again."""

    def __init__(self, room):
        self.room = room
        self.events = []
        self.again = 0

    def take(self, sync):
        joined = sync.get("rooms", {}).get("join", {}).get(self.room, {})
        assert not joined.get("timeline", {}).get("limited"), "nothing is left out"
        for event in joined.get("timeline", {}).get("events", []):
            known = event["event_id"] in [other["event_id"] for other in self.events]
            self.again += known
            self.events += [] if known else [event]

    def texts(self):
        return [event["content"].get("body") for event in self.events if event["type"] == "m.room.message"]


def deadline():
    return time.monotonic() + SLOW_PATIENCE
