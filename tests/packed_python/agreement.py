"""Hello and welcome (docs/packed.md section 2)."""

import struct

import tables

VERSION = 1


def hello(epoch, transactions):
    """What a proxy sends to begin."""
    return struct.pack(">BB8sII", 0x01, VERSION, tables.identity(), epoch, transactions)


def read_hello(payload):
    """Version, identity, epoch and transactions; None where it is no hello. What follows is passed over."""
    if len(payload) < 18 or payload[0] != 0x01:
        return None
    return struct.unpack(">B8sII", payload[1:18])


def welcome(version, epoch, tokens):
    """What the gateway answers: the highest version of its own that is not above the proxy's."""
    return struct.pack(">BII", min(version, VERSION), epoch, tokens)


def read_welcome(payload):
    """Version, epoch and tokens; None where it is no welcome of a version that is spoken here."""
    if len(payload) < 9 or payload[0] != VERSION:
        return None
    return struct.unpack(">BII", payload[:9])


def epoch_taken(proposed, known):
    """The epoch that a gateway takes: the proposal, or where its own has the same last three bits, the next one."""
    if known is not None and known % 8 == proposed % 8:
        return (proposed + 1) % 2**32
    return proposed
