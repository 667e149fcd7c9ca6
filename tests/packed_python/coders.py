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


def close_message(head, coder, writer):
    """A message of the items in `writer`, by coder 0 or 1."""
    coded = deflate(bytes(writer.coded)) if coder == 1 else bytes(writer.coded)
    return bytes([head.byte(coder)]) + coded + writer.tail()


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
