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
# A message or an answer that has to be repeated four times takes as long as that.
SLOW_PATIENCE = 170  # seconds
# How long an observer goes on listening after the last message: for three times what a round trip takes.
LISTENS_ON = 6  # seconds
TEXTS = ["one", "two", "three", "four", "five"]
# What a device on such a link asks for: messages, and little else.
FILTER = {
    "presence": {"types": []},
    "account_data": {"types": []},
    "event_fields": ["type", "event_id", "sender", "content.body"],
    "room": {"ephemeral": {"types": []}, "account_data": {"types": []}},
}


class SlowWorld(World):
    """A world whose peers are at the other end of hf-100, twenty times as fast as it is, or `SPEED` times."""

    SPEED = SPEED
    # What is lost follows from it and from the order in which datagrams are sent.
    SEED = 7
    # What the gateway leaves out of /sync: a table of docs/shaping.md.
    SHAPE = ""

    @property
    def link(self):
        return f"hf-100x{self.SPEED}"

    @property
    def LISTEN(self):
        return f"127.0.0.1:0={self.link}"

    def __enter__(self):
        super().__enter__()
        self.behind = self.gateway
        self.start_relay("127.0.0.1:0")
        return self

    def start_relay(self, listen):
        with open(self.directory / "relay.log", "w") as log:
            self.relay = subprocess.Popen(
                [self.lowband, *self.relaying(listen)], stdout=subprocess.PIPE, stderr=log, text=True
            )
        self.gateway = self.wait_for_relay()

    def wait_for_relay(self):
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up and self.relay.poll() is None:
            found = re.search(r"^relaying (\S+) to .*\n", self.relay_log())
            if found:
                return f"coap://{found[1]}"
            time.sleep(0.02)
        self.relay.kill()
        raise AssertionError(f"the relay does not listen: {self.relay_log()}")

    def relay_log(self):
        return (self.directory / "relay.log").read_text()

    def is_unfair(self):
        """Whether an empty acknowledgement of the client's was lost. libcoap 4.3.1 does not acknowledge a repeated message."""
        return re.search(r" up +4 B .* lost$", self.relay_log(), re.MULTILINE) is not None

    def relaying(self, listen):
        to = self.behind.removeprefix("coap://")
        link = ["--profile", "hf-100", "--speed", str(self.SPEED), "--seed", str(self.SEED)]
        return ["link", "run", *link, "--listen", listen, "--to", to, "-v"]

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
        config.write_text(self.config())
        return ["--config", config]

    def config(self):
        shape = f'shape = "buoy"\n\n[shape.buoy]\n{self.SHAPE}' if self.SHAPE else ""
        return f'[link.{self.link}]\nlike = "hf-100"\nspeed = {self.SPEED}\n{shape}'

    def tell(self, transcript):
        """What there is between the client and the homeserver."""
        listen = self.gateway.removeprefix("coap://")
        behind = self.behind.removeprefix("coap://")
        transcript.block(f"$ cat gateway.toml\n{self.config()}")
        transcript.block(
            f"$ lowband gateway --insecure-coap --config gateway.toml --listen {behind}={self.link} --homeserver {self.homeserver} &"
        )
        transcript.block(f"$ lowband {' '.join(self.relaying(listen))} 2> relay.log &")

    def counts(self, transcript):
        """Ends the relay and writes down what it counted. Something was lost, or this was no such link."""
        said = self.end_relay()
        transcript.block(f"$ cat relay.log\n{self.relay_log()}")
        transcript.block(f"$ kill %2\n{said}")
        lost = re.findall(r" ([0-9]+) lost,", said)
        assert len(lost) == 2 and any(int(number) for number in lost), said

    def prepare(self):
        """Two users with a room: their tokens, the room, and alice's filter."""
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
        return tokens, room, number

    def position(self, token):
        """Where a user's /sync stands now."""
        return self.answer("/_matrix/client/v3/sync?timeout=0", token)["next_batch"]

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
