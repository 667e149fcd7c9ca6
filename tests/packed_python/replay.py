"""The vectors, in order, as both ends would read them, and as they would write them."""

import copy
import pathlib
import struct

import agreement
import tables
import values
from ends import Gateway, Proxy
from errors import DecodeError
from values import ABSENT, Carried, Object

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors" / "packed"
AGREEMENT = (1, 7, 9)


def rows(name):
    """The rows of a file of vectors, with their places."""
    text = (VECTORS / name).read_text(encoding="utf-8")
    for number, line in enumerate(text.split("\n"), 1):
        if line and not line.startswith("#"):
            yield f"{name}:{number}", line.split("\t")


def same(one, other):
    """Whether two values are one: an integer is no float, a zero has a sign, and members have an order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other)
    return one == other


def expect(found, expected):
    if not same(found, expected):
        raise AssertionError(f"\nexpected {expected!r}\n   found {found!r}")


def body_of(text):
    """A body that stands in a vector, as a message carries it."""
    if not text:
        return ABSENT
    try:
        value = values.parse(text)
    except ValueError:
        return Carried(text.encode("utf-8"))
    return values.carried(value, text)


def request_of(text):
    method, target, body = text.split(" ", 2)
    return method, target, body_of(body)


class Association:
    """The two ends of one association, whose every message is acknowledged."""

    def __init__(self):
        self.proxy = Proxy(*AGREEMENT)
        self.gateway = Gateway(*AGREEMENT)
        self.asked = []

    def read_request(self, message, asked, passed_on):
        """The gateway reads a request, which becomes what the homeserver gets; the proxy knows what it said."""
        read = self.gateway.read_request(message)
        method, target, body = request_of(asked)
        if read.transaction is not None:
            self.proxy.chosen[read.transaction] = target.split("?")[0].rsplit("/", 1)[1]
        own = self.proxy.read_request(message, self.proxy.mine, self.proxy.theirs)
        expect((own.method, own.target, own.body), (method, target, body))
        expect((read.method, read.target, read.body), request_of(passed_on))
        self.asked.append((read, own))

    def read_response(self, message, answered, told):
        """The proxy reads a response, which becomes what the client gets."""
        read, own = self.asked[-1]
        response = self.proxy.read_response(message, own)
        expect(response.body, body_of(told))
        self._number_tokens(body_of(answered), read.route)
        own = self.gateway.read_response(message, read, self.gateway.mine, self.gateway.theirs)
        expect(own.body, body_of(answered))

    def _number_tokens(self, body, route, path=()):
        """The homeserver's tokens get their numbers, in the order in which they stand."""
        places = tables.ROUTES[route - 1].answer if route else []
        if isinstance(body, Object):
            for name, member in body:
                if isinstance(member, str) and tables.is_token(places, (*path, name)):
                    self.gateway.number_of(member)
                self._number_tokens(member, route, (*path, name))
        elif isinstance(body, list):
            for element in body:
                self._number_tokens(element, route, path)


def shortest(trace):
    """A message that was read, by the coder that makes the fewest bytes."""
    return min((trace.message(coder) for coder in (0, 1, 2)), key=len)


def read_exchanges(only=None):
    """Reads the exchanges by each coder, or those of one; gives the association of coder 0, and the number of messages.

    What was read by coder 0 is written again by all: coder 2 makes the vectors' bytes, and DEFLATE some that are read.
    """
    associations = {coder: Association() for coder in ("0", "1", "2", "deflated again")}
    counts, recoded = {}, []
    for place, (coder, kind, octets, first, second) in rows("exchanges.tsv"):
        if only not in (None, coder):
            continue
        message = bytes.fromhex(octets)
        try:
            _read(associations[coder], kind, message, first, second)
            if only is None and coder == "0":
                trace = associations["0"].proxy.trace
                recoded.append(shortest(trace) if message else b"")
                expect(trace.message(0) if message else b"", message)
                _read(associations["deflated again"], kind, trace.message(1) if message else b"", first, second)
            elif coder == "2":
                expect(recoded[counts.get(coder, 0)], message)
        except Exception as error:
            error.add_note(place)
            raise
        counts[coder] = counts.get(coder, 0) + 1
    return associations["0"], counts


def _read(association, kind, message, first, second):
    if kind == "request":
        association.read_request(message, first, second)
    else:
        association.read_response(message, first, second)


def write_exchanges():
    """Writes the exchanges and reads them again; how many there were, and which are not the vectors' bytes."""
    proxy, gateway = Proxy(*AGREEMENT), Gateway(*AGREEMENT)
    count, others = 0, []
    for place, (coder, kind, octets, first, second) in rows("exchanges.tsv"):
        if coder != "0":
            continue
        try:
            if kind == "request":
                message, items, request = proxy.write_request(*request_of(first))
                read = gateway.read_request(message)
                proxy.acknowledge(items)
                expect((read.method, read.target, read.body), request_of(second))
            else:
                message, items = gateway.write_response(read, body_of(first))
                response = proxy.read_response(message, request)
                if items:
                    gateway.acknowledge(items)
                expect(response.body, body_of(second))
        except Exception as error:
            error.add_note(place)
            raise
        count += 1
        if message.hex() != octets:
            others.append((place, message.hex(), octets))
    return count, others


def read_messages(association):
    """Reads messages that stand by themselves, after the exchanges; how many there were."""
    count = 0
    for place, (kind, octets, expected) in rows("messages.tsv"):
        try:
            own = copy.deepcopy(association)
            found = [outcome(own, kind, bytes.fromhex(message)) for message in octets.split(" ")]
            expect(found[-1], expected)
        except Exception as error:
            error.add_note(place)
            raise
        count += 1
    return count


def outcome(association, kind, message):
    """What comes of a message: the request, the status and the body, or the error's name."""
    kind, _, number = kind.partition(" ")
    try:
        if kind == "request":
            read = association.gateway.read_request(message)
            return f"{read.method} {read.target} {shown(read.body)}"
        asked = association.asked[int(number)][1]
        if kind == "notification":
            return shown(association.proxy.read_notification(message, asked).body)
        response = association.proxy.read_response(message, asked)
        return f"{response.status} {shown(response.body)}" if response.status else shown(response.body)
    except DecodeError as error:
        return error.name


def shown(body):
    if body is ABSENT:
        return ""
    return body.decode("utf-8", "replace") if isinstance(body, Carried) else values.render(body)


def check_agreement():
    """Hellos and welcomes, both ways; how many there were."""
    count = 0
    for place, (kind, octets, *numbers) in rows("agreement.tsv"):
        message, (version, epoch, last) = bytes.fromhex(octets), map(int, numbers)
        if kind == "hello":
            found = agreement.hello(epoch, last), agreement.read_hello(message + b"more")
            expected = message, (version, tables.identity(), epoch, last)
        else:
            found = agreement.welcome(version, epoch, last), agreement.read_welcome(message + b"more")
            expected = message, (version, epoch, last)
        if found != expected:
            raise AssertionError(f"{place}: {found}")
        count += 1
    return count
