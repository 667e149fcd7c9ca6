"""Reads `tests/vectors/packed/exchanges.tsv` in order, as both ends would."""

import pathlib

import tables
import values
from ends import Gateway, Proxy

VECTORS = pathlib.Path(__file__).resolve().parents[1] / "vectors" / "packed" / "exchanges.tsv"
AGREEMENT = (1, 7, 9)


def same(one, other):
    """Whether two values are one: an integer is no float, and members have an order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def body_of(text):
    return values.parse(text) if text else None


class Association:
    """The two ends of one association, whose every message is acknowledged."""

    def __init__(self):
        self.proxy = Proxy(*AGREEMENT)
        self.gateway = Gateway(*AGREEMENT)
        self.request = None

    def request_vector(self, message, asked, passed_on):
        """The gateway reads a request of the vectors'; what comes of it is what the homeserver gets."""
        method, target, body = asked.split(" ", 2)
        read = self.gateway.read_request(message)
        self._learn_transaction(read, target)
        own = self.proxy.read_request(message, self.proxy.mine, self.proxy.theirs)
        expect((own.method, own.target, own.body), (method, target, body_of(body)))
        method, target, body = passed_on.split(" ", 2)
        expect((read.method, read.target, read.body), (method, target, body_of(body)))
        self.request = read, own

    def _learn_transaction(self, read, target):
        if read.transaction is not None:
            self.proxy.chosen[read.transaction] = target.rsplit("/", 1)[1]

    def response_vector(self, message, answered, told):
        """The proxy reads a response; what comes of it is what the client gets."""
        read, own = self.request
        response = self.proxy.read_response(message, own)
        expect(response.body, body_of(told))
        self._number_tokens(body_of(answered), read.route)
        own = self.gateway.read_response(message, read, self.gateway.mine, self.gateway.theirs)
        expect(own.body, body_of(answered))

    def _number_tokens(self, body, route, path=()):
        """The homeserver's tokens get their numbers, in the order in which they stand."""
        places = tables.ROUTES[route - 1].answer if route else []
        if isinstance(body, values.Object):
            for name, member in body:
                if isinstance(member, str) and tables.is_token(places, (*path, name)):
                    self.gateway.number_of(member)
                self._number_tokens(member, route, (*path, name))
        elif isinstance(body, list):
            for element in body:
                self._number_tokens(element, route, path)


def expect(found, expected):
    if not same(found, expected):
        raise AssertionError(f"expected {expected!r}\n   found {found!r}")


def vectors():
    """The rows: number of the line, coder, kind, bytes, and the other two columns."""
    for number, line in enumerate(VECTORS.read_text(encoding="utf-8").split("\n"), 1):
        if line and not line.startswith("#"):
            coder, kind, octets, first, second = line.split("\t")
            yield number, coder, kind, bytes.fromhex(octets), first, second


def replay():
    """Reads all of them; the number of messages read."""
    count, last = 0, None
    for number, coder, kind, message, first, second in vectors():
        if coder != last:
            association, last = Association(), coder
        try:
            if kind == "request":
                association.request_vector(message, first, second)
            else:
                association.response_vector(message, first, second)
        except Exception as error:
            error.add_note(f"{VECTORS}:{number}")
            raise
        count += 1
    return count


if __name__ == "__main__":
    print(replay())
