"""The same client over 100 bit/s: `coap-client` of libcoap, with its own timers, which are those of RFC 7252.

In CBOR with integer keys (option 257), and with a shape that leaves out what a device has no use for: an answer then
is a datagram, each end waits for the other by turns, and what is lost follows from the seed alone.
"""

import io
import json
import os
import select
import subprocess
import time

import cbor2

from by_libcoap import Conversation as Shell
from slow import LISTENS_ON
from slow import TEXTS
from slow import Heard
from slow import SlowWorld
from slow import deadline
from transcript import compact

TITLE = "coap-client of libcoap 4.3.1 over hf-100"

CLIENT = "coap-client-notls -b 256 -B 170"


# An answer and a notification are lost, and no acknowledgement of a notification: this release does not acknowledge the
# repeats that follow (docs/links.md, section 8). The others are for a run in which another datagram came first.
SEEDS = [6, 3, 1]


class WORLD(SlowWorld):
    SHAPE = """\
drop = [
  "presence", "typing", "receipts", "age", "legacy", "prev-batch", "empty", "key-counts", "unread", "summaries",
]
"""


class Conversation(Shell):
    def __init__(self, world, transcript):
        world.tell(transcript)
        super().__init__(world, transcript)
        tokens, room, filter_ = world.prepare()
        self.bob = tokens["bob"]
        self.set("ALICE", tokens["alice"])
        self.set("ROOM", room)
        self.set("FILTER", filter_)


def sends(talk):
    """A message is sent, and is in the room once"""
    body = '{"msgtype":"m.text","body":"Hello World"}'
    sent = talk.json(
        f"echo '{body}' | lowband encode | {CLIENT} -m put -t 60 -O 256,$ALICE -f - -o /dev/stdout"
        " $GATEWAY/9/$ROOM/m.room.message/t1 | lowband decode"
    )
    assert sent["event_id"].startswith("$")
    assert talk.world.texts(talk.variables["ROOM"], talk.bob) == ["Hello World"]
    talk.set("SINCE", talk.world.position(talk.variables["ALICE"]))


def observes(talk):
    """Alice observes /sync (path 7) while bob sends five messages over HTTP: all five arrive, in order, once"""
    command = f'{CLIENT} -s 160 -A 60 -O 256,$ALICE -O 257,0x01 -o /dev/stdout "$GATEWAY/7?since=$SINCE&filter=$FILTER"'
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], env=talk.environment(), stdout=subprocess.PIPE)
    answers, heard = Answers(talk, process.stdout), Heard(talk.variables["ROOM"])
    talk.transcript.block(f"$ {command} | # and each answer through lowband decode")
    try:
        give_up = deadline()
        heard.take(answers.next(give_up))
        for number, text in enumerate(TEXTS):
            talk.world.sends(talk.variables["ROOM"], talk.bob, number, text)
            while len(heard.texts()) < 1 + number:
                heard.take(answers.next(give_up))
        answers.no_more(LISTENS_ON)
    finally:
        process.terminate()
        process.wait()
    assert (heard.texts(), heard.again) == (TEXTS, 0), (heard.texts(), heard.again)


def counts(talk):
    """What the link carried and lost, in its own time: twenty times ours; up is from the client to the gateway"""
    talk.world.counts(talk.transcript)


class Answers:
    """Answers in CBOR from a process that goes on, written down as they come."""

    def __init__(self, talk, stream):
        self.talk = talk
        self.stream = stream
        self.pending = b""

    def next(self, give_up):
        while not (whole := length_of_first(self.pending)):
            self.read(give_up)
        first, self.pending = self.pending[:whole], self.pending[whole:]
        decode = subprocess.run([self.talk.world.lowband, "decode"], input=first, check=True, capture_output=True)
        answer = json.loads(decode.stdout)
        self.talk.transcript.block(f"{compact(answer)}   ({len(first)} bytes of CBOR)")
        return answer

    def no_more(self, seconds):
        """Fails if anything comes in that time."""
        ready, _, _ = select.select([self.stream], [], [], seconds)
        assert not ready and not self.pending, "something came after the last"

    def read(self, give_up):
        ready, _, _ = select.select([self.stream], [], [], max(0, give_up - time.monotonic()))
        assert ready, f"nothing came; before that: {self.pending}"
        more = os.read(self.stream.fileno(), 65536)
        assert more, f"it ended; before that: {self.pending}"
        self.pending += more


def length_of_first(data):
    """How many bytes the first item has, or 0 if it is not whole yet."""
    stream = io.BytesIO(data)
    try:
        cbor2.load(stream)
    except cbor2.CBORDecodeEOF:
        return 0
    return stream.tell()


STEPS = [sends, observes, counts]
