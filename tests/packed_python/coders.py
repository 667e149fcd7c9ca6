"""The first byte of a message, and its coders (docs/packed.md sections 3 and 11)."""

import zlib

import items
import model
import samples
from errors import DecodeError
from head import Head

LARGEST = 2**24
DICTIONARY_WINDOW = 32506


def _deflate_dictionary():
    return b"".join(sample.items for sample in samples.read())[-DICTIONARY_WINDOW:]


DICTIONARY = _deflate_dictionary()


def open_message(message, epoch, route):
    """Head and source of a message; `route` is that of the request for a response, None for a request."""
    if not message:
        raise DecodeError("Truncated")
    if message[0] >= 0x40:
        head, source = model.open_message(samples.taught(), message, route)
    else:
        first, rest = message[0], message[1:]
        head = Head(first >> 2 & 7, bool(first & 2), bool(first & 1))
        source = inflate(rest) if first & 0x20 else items.Plain(rest)
    if head.epoch != epoch & 7:
        raise DecodeError("UnknownEpoch", f"{head.epoch}")
    return head, source


class Traced:
    """A source that notes what it gives, so that the message can be written by any coder."""

    def __init__(self, head, source, route):
        self.head = head
        self.source = source
        self.route = route
        self.trace = []
        self.tail = b""
        self.finish = source.finish

    def byte(self, *place):
        byte = self.source.byte(*place)
        self.trace.append((byte, place))
        return byte

    def raw(self, length):
        octets = self.source.raw(length)
        self.tail = octets + self.tail
        return octets

    def message(self, coder):
        """The message that was read, by one of the coders."""
        if coder == 2:
            return model.encode(samples.taught(), self.head, self.route, self.trace, self.tail)
        coded = bytes(byte for byte, _ in self.trace)
        return bytes([self.head.byte(coder)]) + (deflate(coded) if coder else coded) + self.tail


def inflate(octets):
    """Items of coder 1."""
    stream = zlib.decompressobj(-15, zdict=DICTIONARY)
    try:
        coded = stream.decompress(octets, LARGEST + 1)
    except zlib.error as error:
        raise DecodeError("Damaged", str(error)) from None
    if len(coded) > LARGEST:
        raise DecodeError("Output")
    if not stream.eof:
        raise DecodeError("Truncated")
    return items.Split(coded, stream.unused_data)


def deflate(coded):
    stream = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=DICTIONARY)
    return stream.compress(coded) + stream.flush()
