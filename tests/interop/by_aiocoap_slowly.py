"""The same over 100 bit/s by aiocoap, which is told the link's timers (docs/links.md)."""

import asyncio
import json
import subprocess

from aiocoap import Context
from aiocoap import Message
from aiocoap.numbers import TransportTuning
from aiocoap.numbers.codes import GET
from aiocoap.numbers.codes import PUT
from aiocoap.optiontypes import OpaqueOption

from by_aiocoap import ACCESS_TOKEN
from by_aiocoap import CBOR
from by_aiocoap import from_cbor
from by_aiocoap import to_cbor
from slow import LISTENS_ON
from slow import SLOW_PATIENCE
from slow import SPEED
from slow import TEXTS
from slow import Heard
from slow import SlowWorld
from transcript import compact
from transcript import cut

TITLE = "aiocoap 0.4.17 over hf-100"
WORLD = SlowWorld


class Conversation:
    def __init__(self, world, transcript):
        self.world, self.transcript = world, transcript
        world.tell(transcript)
        self.tokens, self.room, self.filter = world.prepare()
        self.since = world.position(self.tokens["alice"])
        self.tuning = tuning(world)
        transcript.block("\n".join(f"{name} = {value}" for name, value in vars(type(self.tuning)).items() if name.isupper()))
        self.runner = asyncio.Runner()
        self.context = self.runner.run(Context.create_client_context())

    def message(self, code, target, **more):
        message = Message(code=code, uri=self.world.gateway + target, accept=CBOR, transport_tuning=self.tuning, **more)
        message.opt.add_option(OpaqueOption(ACCESS_TOKEN, self.tokens["alice"].encode()))
        return message

    def take(self, step):
        self.runner.run(asyncio.wait_for(step(self), SLOW_PATIENCE))

    def close(self):
        self.runner.run(self.context.shutdown())
        self.runner.close()


def tuning(world):
    """The link's timers as a stack must have them that has one timeout for all messages."""
    show = [world.lowband, "link", "show", "hf-100", "--speed", str(SPEED), "--json"]
    terms = json.loads(subprocess.run(show, check=True, capture_output=True).stdout)
    stack = terms["fixed"]

    class Tuning(TransportTuning):
        ACK_TIMEOUT = stack["ack_timeout"]
        ACK_RANDOM_FACTOR = stack["ack_random_factor"]
        MAX_RETRANSMIT = stack["max_retransmit"]
        MAX_LATENCY = terms["max_latency"]
        # RFC 7959 §2.2: 16 bytes are 0.
        DEFAULT_BLOCK_SIZE_EXP = stack["block"].bit_length() - 5

    return Tuning()


async def sends(talk):
    """A message is sent, and is in the room once"""
    target = f"/9/{talk.room}/m.room.message/t1"
    body = {"msgtype": "m.text", "body": "Hello World"}
    message = talk.message(PUT, target, payload=to_cbor(body), content_format=CBOR)
    answer = await talk.context.request(message).response
    talk.transcript.block(f"PUT {target}\n{compact(body)}\n< {answer.code}\n{compact(from_cbor(answer.payload))}")
    assert answer.code.is_successful(), answer
    texts = await asyncio.to_thread(talk.world.texts, talk.room, talk.tokens["bob"])
    assert texts == ["Hello World"]


async def observes(talk):
    """Alice observes /sync while bob sends five messages over HTTP: all five arrive, in order, once"""
    target = f"/7?since={talk.since}&filter={talk.filter}"
    request = talk.context.request(talk.message(GET, target, observe=0))
    heard = Heard(talk.room)

    def take(answer):
        sync = from_cbor(answer.payload)
        talk.transcript.block(f"< {answer.code} Observe {answer.opt.observe}\n{cut(compact(sync))}")
        assert answer.code.is_successful(), answer
        heard.take(sync)

    talk.transcript.block(f"GET {target}   Observe 0")
    take(await request.response)
    notifications = request.observation.__aiter__()
    for number, text in enumerate(TEXTS):
        await asyncio.to_thread(talk.world.sends, talk.room, talk.tokens["bob"], number, text)
        while len(heard.texts()) < 2 + number:
            take(await anext(notifications))
    try:
        take(await asyncio.wait_for(anext(notifications), LISTENS_ON))
    except TimeoutError:
        pass
    request.observation.cancel()
    assert (heard.texts(), heard.again) == (["Hello World", *TEXTS], 0), (heard.texts(), heard.again)


async def counts(talk):
    """What the link carried and lost, in its own time: twenty times ours; up is from the client to the gateway"""
    talk.world.counts(talk.transcript)


STEPS = [sends, observes, counts]
