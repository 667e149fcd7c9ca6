"""The conversation by aiocoap's Python interface as a device with keys of OSCORE: the security context is what `lowband device export`
gives, the gateway serves nobody without keys, and no access token is on this side. Whatever aiocoap says and hears here is protected by
its own implementation of RFC 8613.
"""

import asyncio
import gc
import json
import subprocess
import time

from aiocoap import Context
from aiocoap import Message
from aiocoap.numbers.codes import GET
from aiocoap.optiontypes import OpaqueOption

from by_aiocoap import ACCESS_TOKEN
from by_aiocoap import CBOR
from by_aiocoap import METHODS
from by_aiocoap import from_cbor
from by_aiocoap import to_cbor
from transcript import compact
from transcript import cut
from world import PATIENCE
from world import World as PlainWorld
from world import messages
from world import registration

TITLE = "aiocoap 0.4.17, as a device with OSCORE"
QUIET = "set_presence=offline&timeout=0"


class World(PlainWorld):
    """A gateway that keeps its state, and serves devices alone."""

    def protection(self):
        return ["--state", self.directory / "state"]


WORLD = World


class Conversation:
    """The buoy, which is alice's device at sea, and bob, who speaks with the homeserver itself."""

    def __init__(self, world, transcript):
        self.world = world
        self.transcript = transcript
        self.runner = asyncio.Runner()
        self.context = None
        self.room = self.alice = self.bob = None

    def take(self, step):
        self.runner.run(asyncio.wait_for(step(self), 90))

    def close(self):
        if self.context is not None:
            self.runner.run(self.context.shutdown())
        self.runner.close()
        # It writes its sequence numbers down when it goes, and that has to be before the directory does.
        self.context = None
        gc.collect()

    async def device(self, *words, place=True):
        """What `lowband device` prints, beside the gateway that runs."""
        words = ["device", *words] + ["--devices", "state.devices"]
        ran = await asyncio.to_thread(
            subprocess.run,
            [self.world.lowband, *words],
            cwd=self.world.directory,
            capture_output=True,
            text=True,
        )
        assert ran.returncode == 0, ran.stderr
        self.transcript.block(f"$ lowband {' '.join(words)}\n{ran.stdout}{ran.stderr}")
        return ran.stdout

    async def ask(self, method, target, body=None, *, token=None, context=None):
        """The code and the body of an answer."""
        message = Message(code=METHODS[method], uri=self.world.gateway + target, accept=CBOR)
        if token:
            message.opt.add_option(OpaqueOption(ACCESS_TOKEN, token.encode()))
        if body is not None:
            message.opt.content_format = CBOR
            message.payload = to_cbor(body)
        answer = await asyncio.wait_for((context or self.context).request(message).response, PATIENCE)
        return answer.code.dotted, self.read(method, target, body, answer)

    async def does(self, method, target, body=None):
        """The body of an answer that must be a success."""
        code, body = await self.ask(method, target, body)
        assert code.startswith("2."), (code, body)
        return body

    def read(self, method, target, sent, answer):
        """What came, once it is written down."""
        said = f"buoy> {method} {target}" + (f"\n{cut(compact(sent))}" if sent is not None else "")
        is_cbor = answer.payload and answer.opt.content_format == CBOR
        body = from_cbor(answer.payload) if is_cbor else answer.payload.decode()
        self.transcript.block(f"{said}\n< {answer.code}\n{cut(compact(body))}")
        return body

    def tell(self, number, text):
        """Bob says something."""
        target = f"/_matrix/client/v3/rooms/{self.room}/send/m.room.message/{number}"
        body = {"msgtype": "m.text", "body": text}
        assert self.world.http("PUT", target, self.bob, body)[0] == 200


async def prepare_and_add(talk, *security):
    """Users and their room at the homeserver, and the device buoy, which is alice's."""
    for name in "alice", "bob":
        status, user = talk.world.http("POST", "/_matrix/client/v3/register", None, registration(name))
        assert status == 200, user
        setattr(talk, name, user["access_token"])
    status, made = talk.world.http("POST", "/_matrix/client/v3/createRoom", talk.alice, {"preset": "public_chat"})
    assert status == 200, made
    talk.room = made["room_id"]
    assert talk.world.http("POST", f"/_matrix/client/v3/join/{talk.room}", talk.bob, {})[0] == 200
    (talk.world.directory / "token").write_text(talk.alice)
    user = ["--user", "@alice:lowband.test", "--token-file", "token", "--homeserver", talk.world.homeserver]
    await talk.device("add", "buoy", *security, *user)


async def is_added(talk):
    """The operator adds the device to the gateway that runs, and exports its half of the keys for aiocoap"""
    await prepare_and_add(talk)
    address = talk.world.gateway.removeprefix("coap://")
    await talk.device("export", "buoy", "--format", "aiocoap", "-o", "buoy", "--gateway", address)
    talk.context = await Context.create_client_context()
    credentials = json.loads((talk.world.directory / "buoy/credentials.json").read_text())
    for entry in credentials.values():
        entry["oscore"]["basedir"] = str(talk.world.directory / "buoy") + "/"
    talk.context.client_credentials.load_from_dict(credentials)


async def is_somebody(talk):
    """The buoy says no token, and is alice: the gateway has it"""
    assert await talk.does("GET", "/_matrix/client/v3/account/whoami") == talk.world.answer(
        "/_matrix/client/v3/account/whoami", talk.alice
    )


async def nobody_else(talk):
    """Who has no keys is refused, with a token as well"""
    stranger = await Context.create_client_context()
    try:
        target = "/_matrix/client/v3/account/whoami"
        code, body = await talk.ask("GET", target, token=talk.alice, context=stranger)
        assert (code, body) == ("4.01", "not protected"), (code, body)
    finally:
        await stranger.shutdown()


async def sends(talk):
    """A message, and a long one in blocks that are protected one by one"""
    hello = {"msgtype": "m.text", "body": "Hello from the sea 🌊"}
    letter = {"msgtype": "m.text", "body": "Log. " * 1_000}
    for number, body in enumerate([hello, letter]):
        sent = await talk.does("PUT", f"/9/{talk.room}/m.room.message/a{number}", body)
        event = talk.world.answer(f"/_matrix/client/v3/rooms/{talk.room}/event/{sent['event_id']}", talk.bob)
        assert event["content"] == body and event["sender"] == "@alice:lowband.test"


async def is_limited(talk):
    """What is not among its routes is forbidden, and so is a token of its own"""
    code, body = await talk.ask("POST", "/_matrix/client/v3/account/password", {})
    assert (code, body["errcode"]) == ("4.03", "M_FORBIDDEN"), (code, body)
    code, body = await talk.ask("GET", "/_matrix/client/v3/account/whoami", token=talk.bob)
    assert (code, body["errcode"]) == ("4.01", "M_FORBIDDEN"), (code, body)


async def observes(talk):
    """The buoy observes /sync while bob speaks, the last time more than a block can hold"""
    since = (await talk.does("GET", f"/_matrix/client/v3/sync?{QUIET}"))["next_batch"]
    target = f"/7?since={since}"
    request = talk.context.request(Message(code=GET, uri=talk.world.gateway + target, accept=CBOR, observe=0))
    first = await asyncio.wait_for(request.response, PATIENCE)
    talk.read("GET (Observe)", target, None, first)
    assert first.code.dotted == "2.05" and first.opt.observe is not None
    notifications = request.observation.__aiter__()
    for number, text in enumerate(["one", "two", "three, long: " + "Absatz. " * 1_000]):
        talk.tell(f"o{number}", text)
        sent = time.monotonic()
        heard = []
        while not heard:
            answer = await asyncio.wait_for(anext(notifications), PATIENCE)
            heard = messages(talk.read("(notification)", target, None, answer), talk.room)
        assert heard == [text]
        assert number == 2 or time.monotonic() - sent < 1, "heard within a second"
    request.observation.cancel()


async def proves_that_it_is_fresh(talk):
    """The gateway is killed. After its start it asks for proof that the request is fresh (Echo), and aiocoap gives it by itself"""
    await asyncio.to_thread(talk.world.restart_gateway)
    message = Message(code=GET, uri=talk.world.gateway)
    keys = talk.context.client_credentials.credentials_from_request(message)
    before = keys.sender_sequence_number
    await talk.does("GET", "/_matrix/client/v3/account/whoami")
    assert keys.sender_sequence_number == before + 2, "asked, and asked again with the proof"
    sent = {"msgtype": "m.text", "body": "after the restart"}
    await talk.does("PUT", f"/9/{talk.room}/m.room.message/a9", sent)
    assert keys.sender_sequence_number == before + 3


async def is_revoked(talk):
    """The operator revokes the device: it is a stranger at once"""
    await talk.device("revoke", "buoy")
    try:
        code, body = await talk.ask("GET", "/_matrix/client/v3/account/whoami")
    except Exception as error:
        talk.transcript.block(f"buoy> GET /_matrix/client/v3/account/whoami\naiocoap: {type(error).__name__}")
    else:
        raise AssertionError(f"still served: {code} {body}")


STEPS = [
    is_added,
    is_somebody,
    nobody_else,
    sends,
    is_limited,
    observes,
    proves_that_it_is_fresh,
    is_revoked,
]
