"""Values of JSON (docs/packed.md sections 6 and 10)."""

import json
import struct

from errors import DecodeError
from items import signed
from roles import LENGTH, NAME, NO_NAME, ROW, TIME, VALUE, spelled_name
from tables import KEY_ROWS, KEYS

DEEPEST = 126
AGE = KEY_ROWS["age"]
NONE, AS_IT_IS = 0x2B, 0x2C

# A body that is not there; `None` is null.
ABSENT = object()


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


def carried(body, text=None):
    """The body, or its text where that has to travel as it is."""
    if not is_carried_as_it_is(body):
        return body
    return Carried((text or render(body)).encode("utf-8"))


def is_carried_as_it_is(body, depth=0):
    """Whether a value is nested too deep, or has an integer of more than 64 bits."""
    if isinstance(body, int):
        return not -(2**63) <= body < 2**64
    if isinstance(body, Object):
        body = [value for _, value in body]
    if isinstance(body, list):
        return depth == DEEPEST or any(is_carried_as_it_is(value, depth + 1) for value in body)
    return False


class Clock:
    """The last time of a message, and what its ages say of now."""

    def __init__(self, last):
        self.last = last
        self.is_told = False
        self.now = None

    def time(self, difference):
        self.last = signed(self.last + difference)
        self.is_told = True
        return self.last

    def told_age(self, age):
        if self.is_told:
            self.now = signed(self.last + age)

    def age(self, difference):
        expected = 0 if self.now is None else self.now - self.last
        age = signed(expected + difference)
        self.told_age(age)
        return age


class Values:
    """Reads the values of one message."""

    def __init__(self, items, strings, clock, largest=2**24):
        self.items = items
        self.strings = strings
        self.clock = clock
        self.room = largest

    def body(self):
        """`ABSENT`, bytes that travelled as they are, or a value."""
        first = self.items.code()
        if first == NONE:
            return ABSENT
        if first == AS_IT_IS:
            length = self.items.varint(LENGTH)
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
        items = self.items
        outer = items.name, items.parent
        values = []
        while (first := items.code()) != 0x7F:
            values.append(self.value(first, depth, None))
            items.at(VALUE, *outer)
        return values

    def _object(self, depth):
        items = self.items
        outer = items.name, items.parent
        name, members = NO_NAME, Object()
        while True:
            items.at(NAME, name, outer[0])
            first = items.code()
            if first == 0x7F:
                break
            string, name = self._name(first)
            items.at(VALUE, name, outer[0])
            members.append((string, self.value(items.code(), depth, name)))
        items.at(VALUE, *outer)
        return members

    def _name(self, first):
        """The name, and its row, or what stands for that."""
        if 0x50 <= first <= 0x6F or 0x78 <= first <= 0x7A:
            return self._string(first), spelled_name(first)
        if first < 0x50:
            row = first
        elif first >= 0x80:
            row = first - 0x80 + 80
        elif 0x70 <= first <= 0x77:
            row = 208 + ((first & 7) << 8 | self.items.byte(ROW))
        else:
            raise DecodeError("Code", f"{first:#04x} begins no name")
        if row >= len(KEYS):
            raise DecodeError("UnknownRow", f"key {row}")
        self._spend(len(KEYS[row]) + 3)
        return KEYS[row], row

    def _number(self, first, name):
        if first == 0x25:
            (number,) = struct.unpack(">d", self.items.unsigned(8).to_bytes(8, "big"))
            if number - number != 0:
                raise DecodeError("Damaged", "a float that is no number")
            return number
        if first == 0x26:
            return self.clock.time(self.items.zigzag(TIME))
        if first == 0x27:
            return self.clock.age(self.items.zigzag(TIME))
        number = self._integer(first)
        if name == AGE and 0 <= number < 2**40:
            self.clock.told_age(number)
        return number

    def _integer(self, first):
        if first < 0x20:
            return first
        if first <= 0x23:
            return self.items.unsigned(1 << (first - 0x20))
        if first == 0x24:
            following = self.items.code()
            if following > 0x23:
                raise DecodeError("Code", f"{following:#04x} is no unsigned integer")
            return -1 - self._integer(following)
        raise DecodeError("Code", f"{first:#04x} begins no value")
