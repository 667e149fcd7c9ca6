"""The same client over 100 bit/s: `coap-client` of libcoap, with its own timers, which are those of RFC 7252 in this release."""

import json
import subprocess

from by_libcoap import Conversation as Shell
from by_libcoap import Lines
from slow import TEXTS
from slow import Heard
from slow import SlowWorld
from slow import deadline
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

    Where an acknowledgement is lost, this release of libcoap hands the repeated notification to its user once more.
    """
    command = f'{CLIENT} -s 160 -w -A 50 -O 256,$ALICE "$GATEWAY/7?$QUERY"'
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], env=talk.environment(), stdout=subprocess.PIPE)
    output, heard = Lines(process.stdout), Heard(talk.variables["ROOM"])
    try:
        give_up = deadline()
        take(output, heard, give_up)
        for number, text in enumerate(TEXTS):
            talk.world.sends(talk.variables["ROOM"], talk.bob, number, text)
            while len(heard.texts()) < 2 + number:
                take(output, heard, give_up)
    finally:
        process.terminate()
        process.wait()
    assert heard.texts() == ["Hello World", *TEXTS], heard.texts()
    talk.transcript.block(f"$ {command}\n" + "\n".join(cut(line, 400) for line in output.seen))


def take(output, heard, give_up):
    line = output.line(give_up)
    output.seen.append(line)
    heard.take(json.loads(line))


def counts(talk):
    """What the link carried and lost, of all of this; up is from the client to the gateway"""
    said = talk.world.end_relay()
    talk.transcript.block(f"$ lowband link run --profile hf-100 --speed 20 …\n{said}")
    assert said


STEPS = [sends, observes, counts]
