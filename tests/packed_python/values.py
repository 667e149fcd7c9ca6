"""Values of JSON (docs/packed.md sections 6 and 10)."""

import json
import struct

from errors import DecodeError
from tables import KEYS

DEEPEST = 126
NONE, AS_IT_IS = 0x2B, 0x2C


class Object(list):
    """An object: names and values in pairs, in order, also those of one name."""

    def __repr__(self):
        return f"Object({super().__repr__()})"


class Carried(bytes):
    """A body that travels as it is."""


def parse(text):
    """JSON text as values, with nothing lost."""
    return json.loads(text, object_pairs_hook=Object)


def render(value):
    """Values as JSON text without blanks."""
    if isinstance(value, Object):
        return "{" + ",".join(f"{render(name)}:{render(member)}" for name, member in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(render, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


class Clock:
    """The last time of a message, and what its ages say of now."""

    def __init__(self, last):
        self.last = last
        self.is_told = False
        self.now = None

    def time(self, difference):
        self.last = self.last + difference & 2**64 - 1
        self.is_told = True
        return self.last

    def told_age(self, age):
        if self.is_told:
            self.now = self.last + age & 2**64 - 1

    def age(self, difference):
        if self.now is None:
            raise DecodeError("Code", "an age of which nothing is known")
        age = self.now - self.last + difference & 2**64 - 1
        self.now = self.last + age & 2**64 - 1
        return age


class Values:
    """Reads the values of one message."""

    def __init__(self, items, strings, clock, largest=2**24):
        self.items = items
        self.strings = strings
        self.clock = clock
        self.room = largest

    def body(self):
        """None, bytes that travelled as they are, or a value."""
        first = self.items.byte()
        if first == NONE:
            return None
        if first == AS_IT_IS:
            length = self.items.varint()
            return Carried(self.items.raw(self._spend(length)))
        return self.value(first, 0, None)

    def _spend(self, length):
        self.room -= length
        if self.room < 0:
            raise DecodeError("Output")
        return length

    def value(self, first, depth, name):
        if first in (0x31, 0x33) and depth == DEEPEST:
            raise DecodeError("Depth")
        self._spend(1)
        match first:
            case 0x28 | 0x29 | 0x2A:
                return (None, False, True)[first - 0x28]
            case 0x30:
                return []
            case 0x31:
                return self._array(depth + 1)
            case 0x32:
                return Object()
            case 0x33:
                return self._object(depth + 1)
        if first < 0x30:
            return self._number(first, name)
        if first < 0x50:
            raise DecodeError("Code", f"{first:#04x} begins no value")
        return self._string(first)

    def _string(self, first):
        string = self.strings.read(first)
        self._spend(len(string.encode("utf-8")) + 2)
        return string

    def _array(self, depth):
        values = []
        while (first := self.items.byte()) != 0x7F:
            values.append(self.value(first, depth, None))
        return values

    def _object(self, depth):
        members = Object()
        while (first := self.items.byte()) != 0x7F:
            name = self._name(first)
            members.append((name, self.value(self.items.byte(), depth, name)))
        return members

    def _name(self, first):
        if 0x50 <= first <= 0x6F or first == 0x7A:
            return self._string(first)
        if first < 0x50:
            row = first
        elif first >= 0x80:
            row = first - 0x80 + 80
        elif 0x70 <= first <= 0x77:
            row = 208 + ((first & 7) << 8 | self.items.byte())
        else:
            raise DecodeError("Code", f"{first:#04x} begins no name")
        if row >= len(KEYS):
            raise DecodeError("UnknownRow", f"key {row}")
        self._spend(len(KEYS[row]) + 3)
        return KEYS[row]

    def _number(self, first, name):
        if first == 0x25:
            (number,) = struct.unpack(">d", bytes(self.items.byte() for _ in range(8)))
            if number - number != 0:
                raise DecodeError("Code", "a float that is no number")
            return number
        if first == 0x26:
            return self.clock.time(self.items.zigzag())
        if first == 0x27:
            return self.clock.age(self.items.zigzag())
        number = self._integer(first)
        if name == "age" and 0 <= number < 2**40:
            self.clock.told_age(number)
        return number

    def _integer(self, first):
        if first < 0x20:
            return first
        if first <= 0x23:
            return self.items.unsigned(1 << (first - 0x20))
        if first == 0x24:
            following = self.items.byte()
            if following > 0x23:
                raise DecodeError("Code", f"{following:#04x} is no unsigned integer")
            number = self._integer(following)
            if number >= 2**63:
                raise DecodeError("Code", "an integer of more than 64 bits")
            return -1 - number
        raise DecodeError("Code", f"{first:#04x} begins no value")
