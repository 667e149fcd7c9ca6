"""The dictionary's samples, and what coder 2 learns from them (docs/packed.md sections 12 and 13)."""

import functools
from dataclasses import dataclass

import items
import model
from aliases import QUERY
from head import Head
from message import Mark, read_request_items, read_response_items
from roles import ALIAS, BASE, LENGTH, ROUTES
from tables import SAMPLES


@dataclass
class Sample:
    """A message without its raw items; `route` is that of the request that a response answers, else None."""

    route: int | None
    head: Head
    items: bytes

    def trace(self):
        """All bytes, each with its role, name and parent; b and s come first."""
        source = Bare(self.items)
        reader = items.Reader(source)
        nothing = Nothing(source)
        if self.route is None:
            read_request_items(self.head, reader, nothing, nothing, nothing)
        else:
            reader.at(BASE, ROUTES + self.route, 1)
            if self.head.has_status:
                reader.varint(BASE)
            read_response_items(self.head, reader, nothing, nothing, nothing)
        source.finish()
        return [(self.head.flags(), model.header_place(self.route)), *source.trace]


class Bare(items.Plain):
    """Items without their raw ones, which read as zeros; what each byte is, is noted."""

    def __init__(self, octets):
        super().__init__(octets)
        self.trace = []

    def byte(self, *place):
        byte = super().byte()
        self.trace.append((byte, place))
        return byte

    def raw(self, length):
        return bytes(length)

    def holes(self):
        """How many tokens stand here."""
        count, position = 0, self.position
        while self.octets[position : position + 1] in (b"\x6c", b"\x6d"):
            position += 1
            while self.octets[position] >= 0x80:
                position += 1
            count, position = count + 1, position + 1
        return count


class Nothing:
    """What a sample refers to, and gives: nobody knows, and it does not matter."""

    mark = Mark()
    base = None
    next_recent = 0

    def __init__(self, source):
        self.source = source
        self.has_new = False

    def gift(self, _base):
        return self

    def get(self, kind, _number):
        """A string; of a query only the tokens in it matter."""
        return "\x01" * self.source.holes() if kind == QUERY else kind

    def give(self, _kind, _number, _string):
        pass

    def give_recent(self, _string):
        pass

    def new_token(self, reader):
        if not self.has_new:
            reader.zigzag(BASE)
        self.has_new = True
        return ""

    def known_token(self, reader, _first):
        reader.varint(ALIAS)
        return ""

    def new_transaction(self, _gift):
        return ""

    def known_transaction(self, _number):
        return ""

    def event_number(self):
        return 0


def read():
    """The samples, in order."""
    plain = items.Plain(SAMPLES)
    reader = items.Reader(plain)
    while plain.position < plain.end:
        length = reader.varint(LENGTH)
        is_response, flags, route = reader.code(), reader.code(), reader.varint(LENGTH)
        head = Head(0, bool(flags & 2), bool(flags & 1))
        octets = bytes(reader.code() for _ in range(length))
        yield Sample(route if is_response else None, head, octets)


@functools.cache
def taught():
    """What coder 2 knows before any message; it takes a minute to learn it."""
    predictor = model.Predictor()
    for sample in read():
        predictor.learn_sample(sample.trace())
    return predictor
