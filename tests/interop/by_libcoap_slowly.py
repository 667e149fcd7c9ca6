"""The same client over 100 bit/s: `coap-client` of libcoap, with its own timers, which are those of RFC 7252 in this release."""

import io
import os
import select
import subprocess
import time

import cbor2

from by_aiocoap import NAMES
from by_aiocoap import renamed
from by_libcoap import Conversation as Shell
from slow import TEXTS
from slow import Heard
from slow import SlowWorld
from slow import deadline
from transcript import compact
from transcript import cut

TITLE = "coap-client of libcoap 4.3.1 over hf-100"
WORLD = SlowWorld

CLIENT = "coap-client-notls -B 170"


class Conversation(Shell):
    def __init__(self, world, transcript):
        super().__init__(world, transcript)
        tokens, room, query = world.prepare()
        self.bob = tokens["bob"]
        self.set("ALICE", tokens["alice"])
        self.set("ROOM", room)
        self.set("QUERY", query)


def sends(talk):
    """A message is sent, and is in the room once"""
    body = '{"msgtype":"m.text","body":"Hello World"}'
    sent = talk.json(
        f"echo '{body}' | {CLIENT} -m put -t 50 -A 50 -O 256,$ALICE -f - $GATEWAY/9/$ROOM/m.room.message/t1"
    )
    assert sent["event_id"].startswith("$")
    assert talk.world.texts(talk.variables["ROOM"], talk.bob) == ["Hello World"]


def observes(talk):
    """Alice observes /sync (path 7) while bob sends five messages over HTTP: all five arrive, in order

    In CBOR with integer keys (option 257), each in one block; what came is written here as JSON. Where an acknowledgement is lost,
    this release of libcoap hands the repeated notification to its user once more.
    """
    command = f'{CLIENT} -s 160 -w -A 60 -O 256,$ALICE -O 257,0x01 "$GATEWAY/7?$QUERY"'
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], env=talk.environment(), stdout=subprocess.PIPE)
    bodies, heard = Bodies(process.stdout), Heard(talk.variables["ROOM"])
    try:
        give_up = deadline()
        heard.take(bodies.next(give_up))
        for number, text in enumerate(TEXTS):
            talk.world.sends(talk.variables["ROOM"], talk.bob, number, text)
            while len(heard.texts()) < 2 + number:
                heard.take(bodies.next(give_up))
    finally:
        process.terminate()
        process.wait()
    assert heard.texts() == ["Hello World", *TEXTS], heard.texts()
    talk.transcript.block(f"$ {command}\n" + "\n".join(cut(compact(body), 500) for body in bodies.seen))


class Bodies:
    """CBOR items, each with a line feed behind it, from a process that goes on."""

    def __init__(self, stream):
        self.stream = stream
        self.pending = b""
        self.seen = []

    def next(self, give_up):
        while True:
            # A line feed is an integer in CBOR, and no body.
            self.pending = self.pending.lstrip(b"\n")
            start = io.BytesIO(self.pending)
            try:
                body = renamed(cbor2.load(start), NAMES)
            except (cbor2.CBORDecodeEOF, EOFError):
                self.read(give_up)
                continue
            self.pending = self.pending[start.tell() :]
            self.seen.append(body)
            return body

    def read(self, give_up):
        ready, _, _ = select.select([self.stream], [], [], max(0, give_up - time.monotonic()))
        assert ready, f"nothing came; before that: {self.seen} {self.pending}"
        more = os.read(self.stream.fileno(), 65536)
        assert more, f"it ended; before that: {self.seen} {self.pending}"
        self.pending += more


def counts(talk):
    """What the link carried and lost, of all of this; up is from the client to the gateway"""
    said = talk.world.end_relay()
    talk.transcript.block(f"$ lowband link run --profile hf-100 --speed 20 …\n{said}")
    assert said


STEPS = [sends, observes, counts]
