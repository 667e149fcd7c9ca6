"""The conversation by aiocoap's Python interface. cbor2 reads and writes the bodies, so of ours there is nothing on this side
but the table of integer keys.
"""

import asyncio
import time

import cbor2
from aiocoap import Context
from aiocoap import Message
from aiocoap.numbers import ContentFormat
from aiocoap.numbers import OptionNumber
from aiocoap.numbers.codes import DELETE
from aiocoap.numbers.codes import GET
from aiocoap.numbers.codes import POST
from aiocoap.numbers.codes import PUT
from aiocoap.optiontypes import OpaqueOption

from transcript import compact
from transcript import cut
from world import PATIENCE
from world import ROOT
from world import login
from world import messages
from world import registration
from world import same

TITLE = "aiocoap 0.4.17"

METHODS = {"GET": GET, "POST": POST, "PUT": PUT, "DELETE": DELETE}
ACCESS_TOKEN = OptionNumber(256)
CBOR_VERSION = OptionNumber(257)
CBOR = ContentFormat(60)
QUIET = "set_presence=offline&timeout=0"


class Conversation:
    """The two users, each with a socket of their own: a peer of the gateway's is a socket."""

    def __init__(self, world, transcript):
        self.world = world
        self.transcript = transcript
        self.runner = asyncio.Runner()
        self.alice = self.runner.run(User.new(self, "alice"))
        self.bob = self.runner.run(User.new(self, "bob"))
        self.room = self.event = self.since = None

    def take(self, step):
        self.runner.run(asyncio.wait_for(step(self), 90))

    def close(self):
        self.runner.run(self.alice.context.shutdown())
        self.runner.run(self.bob.context.shutdown())
        self.runner.close()


class User:
    @classmethod
    async def new(cls, talk, name):
        user = cls()
        user.talk, user.name, user.token = talk, name, None
        user.context = await Context.create_client_context()
        return user

    async def call(self, method, target, body=None, *, token=None, encode=None):
        """The code, the body and the message of an answer; `token` is sent only if it is given."""
        message = Message(code=METHODS[method], uri=self.talk.world.gateway + target, accept=CBOR)
        if token:
            message.opt.add_option(OpaqueOption(ACCESS_TOKEN, token.encode()))
        if body is not None:
            message.opt.content_format = CBOR
            message.payload = (encode or to_cbor)(body)
        answer = await asyncio.wait_for(self.context.request(message).response, PATIENCE)
        return answer.code.dotted, self.read(method, target, body, message, answer), answer

    async def does(self, method, target, body=None, **more):
        """The body of an answer that must be a success."""
        code, body, _ = await self.call(method, target, body, **more)
        assert code.startswith("2."), (code, body)
        return body

    def read(self, method, target, sent, message, answer):
        """What came, once it is written down."""
        token = message.opt.get_option(ACCESS_TOKEN)
        said = f"{self.name}> {method} {target}" + (f"   option 256: {token[0].value.decode()}" if token else "")
        if sent is not None:
            said += f"\n{cut(compact(sent))}   ({len(message.payload)} bytes of CBOR)"
        body = from_cbor(answer.payload) if answer.payload else None
        bytes_ = f"   ({len(answer.payload)} bytes of CBOR)" if answer.payload else ""
        self.talk.transcript.block(f"{said}\n< {answer.code}\n{cut(compact(body))}{bytes_}")
        assert not answer.payload or answer.opt.content_format == CBOR
        return body

    async def compare(self, target):
        """Makes a GET; the homeserver says the same. Returns it."""
        loop = asyncio.get_running_loop()

        def ask():
            return asyncio.run_coroutine_threadsafe(self.does("GET", target), loop).result(PATIENCE)

        ours, theirs = await asyncio.to_thread(self.talk.world.steady, target, self.token, ask)
        same(ours, theirs)
        return ours

    def expects(self, target):
        """What the homeserver says itself."""
        return self.talk.world.answer(target, self.token)


async def registers(talk):
    """Two users register: bodies in CBOR with integer keys"""
    for user in talk.alice, talk.bob:
        answer = await user.does("POST", "/4", registration(user.name))
        assert answer["user_id"] == f"@{user.name}:lowband.test"
        user.token = answer["access_token"]
        assert user.expects("/_matrix/client/v3/account/whoami")["user_id"] == answer["user_id"]


async def says_the_token_once(talk):
    """The token is said once on each socket; the next call has none"""
    for user in talk.alice, talk.bob:
        target = "/_matrix/client/v3/account/whoami"
        code, body, _ = await user.call("GET", target)
        assert (code, body["errcode"]) == ("4.01", "M_MISSING_TOKEN")
        with_token = await user.does("GET", target, token=user.token)
        assert await user.does("GET", target) == with_token == user.expects(target)


async def makes_a_room(talk):
    """A room is made, bob is invited and joins by its alias"""
    body = {"name": "Funkloch", "room_alias_name": "radio"}
    talk.room = (await talk.alice.does("POST", "/G", body))["room_id"]
    await talk.alice.does("POST", f"/J/{talk.room}", {"user_id": "@bob:lowband.test"})
    joined = await talk.bob.does("POST", "/_matrix/client/v3/join/%23radio:lowband.test", {})
    assert joined["room_id"] == talk.room
    assert talk.bob.expects("/_matrix/client/v3/joined_rooms") == {"joined_rooms": [talk.room]}


async def sends(talk):
    """A message in the path's full form, and again in its short form: the same event; then a long one by Block1"""
    hello = {"msgtype": "m.text", "body": "Hello World 🌍"}
    full = f"/_matrix/client/v3/rooms/{talk.room}/send/m.room.message/t1"
    talk.event = (await talk.alice.does("PUT", full, hello))["event_id"]
    again = await talk.alice.does("PUT", f"/9/{talk.room}/m.room.message/t1", hello)
    assert again["event_id"] == talk.event
    base = f"/_matrix/client/v3/rooms/{talk.room}/event"
    assert talk.bob.expects(f"{base}/{talk.event}")["content"] == hello
    letter = {"msgtype": "m.text", "body": "Brief. " * 1_000}
    sent = await talk.alice.does("PUT", f"/9/{talk.room}/m.room.message/t2", letter)
    assert talk.bob.expects(f"{base}/{sent['event_id']}")["content"] == letter


async def sends_numbers_as_others_do(talk):
    """Every number as a 64-bit float and every object of indefinite length, as deployed peers send them: integers arrive"""
    body = {"numbers": [0, 1, -1, 255, 9007199254740991], "deep": {"count": 3}, "8": "text"}
    target = "/_matrix/client/v3/user/@alice:lowband.test/account_data/org.example.numbers"
    await talk.alice.does("PUT", target, body, encode=lambda body: indefinite(floats(body)))
    same(talk.alice.expects(target), body)
    same(await talk.alice.does("GET", target), body)


async def redacts(talk):
    """The first message is redacted"""
    await talk.alice.does("PUT", f"/F/{talk.room}/{talk.event}/t3", {"reason": "slip"})
    assert talk.bob.expects(f"/_matrix/client/v3/rooms/{talk.room}/event/{talk.event}")["content"] == {}


async def sets_what_is_read_again(talk):
    """State, profile and a filter are set, and read again"""
    user = "/_matrix/client/v3/user/@alice:lowband.test"
    filter_ = {"room": {"timeline": {"limit": 60}}}
    made = await talk.alice.does("POST", f"{user}/filter", filter_)
    talk.filter = made["filter_id"]
    topic = f"/_matrix/client/v3/rooms/{talk.room}/state/m.room.topic"
    name = "/_matrix/client/v3/profile/@alice:lowband.test/displayname"
    await talk.alice.does("PUT", topic, {"topic": "100 bit/s"})
    await talk.alice.does("PUT", name, {"displayname": "Алиса"})
    for target, expected in [
        (topic, {"topic": "100 bit/s"}),
        (name, {"displayname": "Алиса"}),
        (f"{user}/filter/{talk.filter}", filter_),
    ]:
        assert await talk.alice.does("GET", target) == talk.alice.expects(target) == expected


async def reads_the_room(talk):
    """What is read of a room is what the homeserver says itself"""
    for what in "messages?dir=b&limit=3", "members?membership=join", "state", "joined_members", f"event/{talk.event}":
        target = f"/_matrix/client/v3/rooms/{talk.room}/{what}"
        await talk.bob.compare(target)


async def syncs_in_blocks(talk):
    """An initial sync of more than 20 kB comes by Block2, then one from there"""
    for number in range(40):
        body = {"msgtype": "m.text", "body": f"{number}: " + "Sätze, " * 60}
        target = f"/_matrix/client/v3/rooms/{talk.room}/send/m.room.message/b{number}"
        assert talk.world.http("PUT", target, talk.alice.token, body)[0] == 200
    whole = await talk.alice.compare(f"/_matrix/client/v3/sync?{QUIET}&filter={talk.filter}")
    assert len(to_cbor(whole)) > 20_000 and len(messages(whole, talk.room)) == 42
    talk.since = whole["next_batch"]
    await talk.bob.does("PUT", f"/9/{talk.room}/m.room.message/t4", {"msgtype": "m.text", "body": "one more"})
    part = await talk.alice.compare(f"/_matrix/client/v3/sync?{QUIET}&since={talk.since}")
    assert messages(part, talk.room) == ["one more"]
    talk.since = part["next_batch"]


async def observes(talk):
    """Alice observes /sync while bob sends over HTTP, the last time more than a block can hold"""
    target = f"/7?since={talk.since}"
    message = Message(code=GET, uri=talk.world.gateway + target, accept=CBOR, observe=0)
    request = talk.alice.context.request(message)
    first = await asyncio.wait_for(request.response, PATIENCE)
    talk.alice.read("GET (Observe)", target, None, message, first)
    assert first.code.dotted == "2.05" and first.opt.observe is not None
    notifications = request.observation.__aiter__()
    for number, text in enumerate(["one", "two", "three, long: " + "Absatz. " * 1_000]):
        sending = f"/_matrix/client/v3/rooms/{talk.room}/send/m.room.message/o{number}"
        body = {"msgtype": "m.text", "body": text}
        assert talk.world.http("PUT", sending, talk.bob.token, body)[0] == 200
        sent = time.monotonic()
        heard = []
        while not heard:
            answer = await asyncio.wait_for(anext(notifications), PATIENCE)
            sync = talk.alice.read("(notification)", target, None, message, answer)
            heard = messages(sync, talk.room)
        assert heard == [text]
        assert number == 2 or time.monotonic() - sent < 1, "heard within a second"
    request.observation.cancel()


async def goes_on_after_that(talk):
    """An observation that aiocoap has cancelled is over; the same socket goes on making calls"""
    body = {"msgtype": "m.text", "body": "not observed"}
    target = f"/_matrix/client/v3/rooms/{talk.room}/send/m.room.message/p1"
    assert talk.world.http("PUT", target, talk.bob.token, body)[0] == 200
    target = f"/_matrix/client/v3/rooms/{talk.room}/joined_members"
    await talk.alice.compare(target)


async def fails(talk):
    """What the homeserver refuses is refused with its own error and status"""
    cases = [
        ("4.00", "M_INVALID_PARAM", "GET", f"/_matrix/client/v3/rooms/{talk.room}/messages?dir=sideways", None),
        ("4.03", "M_FORBIDDEN", "GET", "/_matrix/client/v3/rooms/!other:lowband.test/members", None),
        ("4.04", "M_NOT_FOUND", "GET", "/_matrix/client/v3/directory/room/%23nobody:lowband.test", None),
        ("4.05", "M_UNRECOGNIZED", "DELETE", "/_matrix/client/v3/login", None),
        ("4.09", "M_UNKNOWN", "PUT", "/_matrix/client/v3/directory/room/%23radio:lowband.test", {"room_id": talk.room}),
    ]
    for expected, errcode, method, target, body in cases:
        code, ours, _ = await talk.alice.call(method, target, body)
        assert (code, ours["errcode"]) == (expected, errcode), (code, ours)
        status, theirs = talk.world.http(method, target, talk.alice.token, body)
        assert f"{status // 100}.{status % 100:02}" == expected
        same(ours, theirs)
    code, ours, _ = await talk.alice.call("GET", "/_matrix/client/v3/account/whoami", token="wrong")
    assert (code, ours["errcode"]) == ("4.01", "M_UNKNOWN_TOKEN"), (code, ours)
    await talk.alice.does("GET", "/_matrix/client/v3/account/whoami", token=talk.alice.token)


async def waits(talk):
    """A fourth login in a minute is one too many: 4.29, with Max-Age for how long to wait"""
    for _ in range(3):
        assert talk.world.http("POST", "/_matrix/client/v3/login", None, login("alice"))[0] == 200
    code, body, answer = await talk.alice.call("POST", "/1", login("alice"))
    assert (code, body["errcode"]) == ("4.29", "M_LIMIT_EXCEEDED"), (code, body)
    assert 1 <= answer.opt.max_age <= 61, answer.opt.max_age


def key_table():
    """The names that have a number in MSC3079's table."""
    rows = (ROOT / "dictionaries/keys-v1.tsv").read_text().splitlines()
    pairs = [row.split("\t") for row in rows if row and not row.startswith("#")]
    return {name: int(number) for number, name, *_ in pairs}


NUMBERS = key_table()
NAMES = {number: name for name, number in NUMBERS.items()}


def to_cbor(value):
    return cbor2.dumps(renamed(value, NUMBERS))


def from_cbor(payload):
    return renamed(cbor2.loads(payload), NAMES)


def renamed(value, names):
    if isinstance(value, dict):
        return {names.get(name, name): renamed(inner, names) for name, inner in value.items()}
    if isinstance(value, list):
        return [renamed(inner, names) for inner in value]
    assert not isinstance(value, bytes), "no byte strings in this profile"
    return value


def floats(value):
    if isinstance(value, dict):
        return {name: floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [floats(inner) for inner in value]
    return float(value) if isinstance(value, int) else value


def indefinite(value):
    """CBOR whose maps and arrays say their length by an end (RFC 8949 §3.2.2)."""
    if isinstance(value, dict):
        return b"\xbf" + b"".join(cbor2.dumps(name) + indefinite(inner) for name, inner in value.items()) + b"\xff"
    if isinstance(value, list):
        return b"\x9f" + b"".join(map(indefinite, value)) + b"\xff"
    return cbor2.dumps(value)


STEPS = [
    registers,
    says_the_token_once,
    makes_a_room,
    sends,
    sends_numbers_as_others_do,
    redacts,
    sets_what_is_read_again,
    reads_the_room,
    syncs_in_blocks,
    observes,
    goes_on_after_that,
    fails,
    waits,
]
