"""The two ends: what each knows, and how it reads (docs/packed.md sections 4, 5, 9 and 10)."""

import re
import urllib.parse
from dataclasses import dataclass, field

import coders
from aliases import EVENT, QUERY, Aliases, Gift
from errors import DecodeError
from items import Reader
from strings import Strings
from tables import METHODS, ROUTES
from values import Clock, Object, Values

# The characters that stand for themselves in a segment of a path (RFC 3986 section 3.3).
SEGMENT_SAFE = "!$&'()*+,;=:@-._~"


@dataclass
class Mark:
    """What both ends know with a token: its number, the last time, the next recent number (section 10)."""

    number: int = 0
    time: int = 0
    recent: int = 0


@dataclass
class Request:
    """A request, and what the answer to it is read with."""

    route: int
    method: str
    target: str
    body: object
    transaction: int | None = None
    mark: Mark = field(default_factory=Mark)


@dataclass
class Response:
    """A response or a notification; a status that the code says is None."""

    status: int | None
    body: object
    position: int | None = None


class Asked:
    """Tokens and transactions in a request."""

    def __init__(self, end):
        self.end = end
        self.transaction = None
        self.first_known = None
        self.is_parameter = False

    def new_token(self, _items):
        raise DecodeError("Direction", "a new token in a request")

    def known_token(self, items, first):
        number = items.varint()
        if first == 0x6C and self.first_known is None:
            self.first_known = number
        return self.end.token(number)

    def new_transaction(self, gift):
        return self.known_transaction(gift.take_number())

    def known_transaction(self, number):
        if not self.is_parameter:
            raise DecodeError("Code", "a transaction that is no parameter")
        self.transaction = number
        return self.end.transaction(number)

    def event_number(self):
        raise DecodeError("Direction", "the event of a transaction in a request")


class Answered:
    """Tokens and transactions in a response."""

    def __init__(self, end, mark, transaction):
        self.end = end
        self.mark = mark
        self.transaction = transaction
        self.last_new = None
        self.new = []

    def new_token(self, items):
        if self.last_new is None:
            self.last_new = self.mark.number + items.zigzag()
        else:
            self.last_new += 1
        self.new.append(self.last_new)
        return self.end.token(self.last_new)

    def known_token(self, items, first):
        if first == 0x6D:
            raise DecodeError("Direction", "a token without a mark in a response")
        return self.end.token(self.mark.number + items.zigzag())

    def new_transaction(self, _gift):
        raise DecodeError("Direction", "a new transaction in a response")

    def known_transaction(self, number):
        return self.end.transaction(number)

    def event_number(self):
        if self.transaction is None:
            raise DecodeError("Code", "an event without a transaction")
        return self.transaction


class End:
    """What the proxy and the gateway have in common: the aliases of both directions, and the marks."""

    def __init__(self, epoch, tokens, transactions):
        self.epoch = epoch
        self.tokens = tokens
        self.transactions = transactions
        self.mine = Aliases(2)
        self.theirs = Aliases(1)
        self.marks = {}

    def begin(self, epoch):
        """A new epoch."""
        self.epoch = epoch
        self.mine.forget()
        self.theirs.forget()
        self.marks.clear()

    def read_request(self, message, sender=None, receiver=None):
        """A request that the other end made, or that this one made itself where the two are told."""
        head, source = coders.open_message(message, self.epoch, 0)
        if head.has_status:
            raise DecodeError("Code", "a request with a status")
        items = Reader(source)
        gift = Gift(sender or self.theirs, items.varint() if head.has_base else None)
        asked = Asked(self)
        strings = Strings(items, gift, receiver or self.mine, asked)
        route = items.varint()
        asked.is_parameter = True
        method, path = _read_path(items, strings, route)
        asked.is_parameter = False
        query = _read_query(items, strings)
        body = Values(items, strings, Clock(0)).body()
        items.finish()
        mark = self._mark(asked.first_known)
        gift.commit()
        target = path if query is None else f"{path}?{query}"
        return Request(route, method, target, body, asked.transaction, mark)

    def _mark(self, number):
        if number is None:
            return Mark()
        if number not in self.marks:
            raise DecodeError("UnknownToken", f"no mark for {number}")
        return self.marks[number]

    def read_response(self, message, request, sender=None, receiver=None):
        """The response to a request."""
        if not message:
            return Response(None, Object())
        head, source = coders.open_message(message, self.epoch, request.route)
        items = Reader(source)
        status = items.varint() if head.has_status else None
        body = self._read_answer(head, items, request.mark, request.transaction, sender, receiver)
        return Response(status, body)

    def read_notification(self, message, request, registered=0, sender=None, receiver=None):
        """What an observed request is told; `registered` is the number of the token that it went on from."""
        head, source = coders.open_message(message, self.epoch, request.route)
        items = Reader(source)
        mark, position = request.mark, None
        if head.has_status:
            position = registered + items.zigzag()
            mark = self._mark(position)
        body = self._read_answer(head, items, mark, None, sender, receiver)
        return Response(None, body, position)

    def _read_answer(self, head, items, mark, transaction, sender, receiver):
        base = mark.recent + items.zigzag() if head.has_base else None
        gift = Gift(sender or self.theirs, base)
        answered = Answered(self, mark, transaction)
        clock = Clock(mark.time)
        body = Values(items, Strings(items, gift, receiver or self.mine, answered), clock).body()
        items.finish()
        gift.commit()
        for number in answered.new:
            recent = mark.recent if base is None else gift.next_recent
            self.marks[number] = Mark(number, clock.last, recent)
        return body


class Gateway(End):
    """The end that has the homeserver's tokens."""

    def __init__(self, *agreement):
        super().__init__(*agreement)
        self.numbers = {}

    def number_of(self, token):
        """The old number of a token, or the next."""
        return self.numbers.setdefault(token, len(self.numbers))

    def token(self, number):
        for token, known in self.numbers.items():
            if known == number:
                return token
        raise DecodeError("UnknownToken", f"{number}")

    def transaction(self, number):
        return f"lb{self.transactions:08x}.{number}"


class Proxy(End):
    """The end that has the client's transactions."""

    def __init__(self, *agreement):
        super().__init__(*agreement)
        self.chosen = {}

    def token(self, number):
        return f"lb{self.tokens:08x}_{number}"

    def number_of(self, token):
        """The number of a token that this agreement gave; None for any other string."""
        found = re.fullmatch(rf"lb{self.tokens:08x}_(0|[1-9][0-9]*)", token)
        return int(found[1]) if found else None

    def transaction(self, number):
        if number not in self.chosen:
            raise DecodeError("UnknownAlias", f"transaction {number}")
        return self.chosen[number]


def _read_path(items, strings, number):
    if number > len(ROUTES):
        raise DecodeError("UnknownRoute", f"{number}")
    if number:
        route = ROUTES[number - 1]
        method = route.method
        segments = [encode(strings.read()) if s.startswith("{") else s for s in route.segments]
    else:
        method = items.byte()
        if method >= len(METHODS):
            raise DecodeError("Code", f"method {method}")
        method, segments = METHODS[method], []
        while (first := items.byte()) != 0x7F:
            segments.append(encode(strings.read(first)))
    if "." in segments or ".." in segments:
        raise DecodeError("Path")
    return method, "/" + "/".join(segments)


def encode(segment):
    return urllib.parse.quote(segment, safe=SEGMENT_SAFE)


def _read_query(items, strings):
    """The query, with its tokens where they were; None for none."""
    first = items.byte()
    if first == 0x2B:
        return None
    if first == 0x7B:
        number = items.varint()
        query = strings.gift.get(QUERY, number)
        if query is None:
            raise DecodeError("UnknownAlias", f"query {number}")
    elif first == 0x60:
        number = items.varint()
        if items.byte() != 0x50:
            raise DecodeError("Code", "a query that is no text")
        query = items.text()
        strings.gift.give(QUERY, number, query)
    else:
        query = strings.read(first)
    first, *parts = query.split("\x01")
    return first + "".join(strings.read() + part for part in parts)
