"""Items on their way out: simple, and such that each string comes back exactly (docs/packed.md sections 4 to 10)."""

import base64
import binascii
import re
import struct

from aliases import DEVICE, EVENT, QUERY, RECENT, ROOM, SERVER, USER, is_remembered
from items import varint, zigzag
from strings import REFERENCES, encode_base64, encode_base64url
from tables import KEY_ROWS, METHODS, QUERY_TOKENS, ROUTES, SECRETS, VALUE_ROWS, is_token
from values import ABSENT, AGE, AS_IT_IS, NONE, Carried, Clock, Object

HASH = re.compile(r"[$!][A-Za-z0-9_-]{43}\Z")
NAMED = re.compile(r"([@!#])([^:\0]*):([A-Za-z0-9.:\[\]-]+)\Z")
MEDIA = re.compile(r"mxc://([^/\0]+)/([^\0]*)\Z", re.DOTALL)
CAPITALS = re.compile(r"[A-Z]{10}\Z")
PLAIN_BASE64 = re.compile(r"[A-Za-z0-9+/]{43}\Z|[A-Za-z0-9+/]{86}\Z")


class Items:
    """The items of one message, and what it gives."""

    def __init__(self, end, mark, ends):
        self.end = end
        self.ends = ends
        self.coded = bytearray()
        self.raws = []
        self.gift = end.mine.gift(end.mine.next(RECENT))
        self.has_base = False
        self.last_far = 0
        self.last_event = None
        self.clock = Clock(mark.time)

    def byte(self, *octets):
        self.coded.extend(octets)

    def varint(self, number):
        self.coded += varint(number)

    def zigzag(self, number):
        self.coded += zigzag(number)

    def text(self, text):
        self.coded += text.encode("utf-8") + b"\0"

    def raw(self, octets):
        self.raws.append(bytes(octets))

    def tail(self):
        """The raw items, the first last."""
        return b"".join(reversed(self.raws))

    def take_number(self):
        self.has_base = True
        return self.gift.take_number()

    def string(self, string):
        """A string in the first form that it has."""
        if string in VALUE_ROWS:
            return self._row(VALUE_ROWS[string])
        if (number := self.number_in(self.gift, EVENT, string)) is None:
            number = self.number_in(self.end.theirs, EVENT, string)
        if number is not None:
            self.last_event = number
            self.byte(0x7A)
            return self.varint(number)
        kind, write = self._identifier(string)
        if kind and is_remembered(kind, string):
            return self._told(kind, string, write)
        if self._recent(string):
            return None
        left, colon, right = string.partition(":")
        if colon and left in VALUE_ROWS and CAPITALS.match(right):
            self.byte(0x5E)
            self._row(VALUE_ROWS[left])
            return self.string(right)
        self._spell(string)
        if is_remembered(RECENT, string):
            self.has_base = True
            self.gift.give_recent(string)
        return None

    def secret(self, string):
        octets = string.encode("utf-8")
        self.byte(0x52)
        self.varint(len(octets))
        self.raw(octets)

    def _row(self, row):
        if row < 112:
            return self.byte(0x80 + row)
        return self.byte(0xF0 | row - 112 >> 8, row - 112 & 0xFF)

    def _identifier(self, string):
        """The kind of what is told with its number, and what spells it."""
        if HASH.match(string) and string[0] == "!" and (octets := bytes_of(string[1:], "-_")):
            return ROOM, lambda: (self.byte(0x54), self.raw(octets))
        if CAPITALS.match(string):
            return DEVICE, lambda: (self.byte(0x50), self.text(string))
        named = NAMED.match(string)
        if named and is_remembered(SERVER, named[3]) and named[1] != "#":
            return {"@": USER, "!": ROOM}[named[1]], lambda: self._named(named)
        return None, None

    def _named(self, named):
        self.byte({"@": 0x5A, "!": 0x5B, "#": 0x5C}[named[1]])
        self.text(named[2])
        self._server(named[3])

    def _server(self, server):
        self._told(SERVER, server, lambda: (self.byte(0x50), self.text(server)))

    def _told(self, kind, string, write):
        """A reference, or the string with its number."""
        place = REFERENCES.index(kind)
        if (number := self.number_in(self.gift, kind, string)) is not None:
            self.byte(0x63 + place)
            return self.varint(number)
        if (number := self.number_in(self.end.theirs, kind, string)) is not None:
            self.byte(0x67 + place)
            return self.varint(number)
        number = self.next_number(kind)
        self.byte(0x60)
        self.varint(number)
        write()
        return self.gift.give(kind, number, string)

    def next_number(self, kind):
        given = [number + 1 for one, number in self.gift.given if one == kind]
        return max([self.end.mine.next(kind), *given])

    def number_in(self, known, kind, string):
        """The number by which a string may be referred to: of its own, the receiver has to have read it."""
        if known is self.gift:
            for (one, number), given in known.given.items():
                if one == kind and given == string:
                    return number
            known = self.end.mine
        for number, given in known.items(kind):
            if given == string and self.end.may_refer(known, kind, number):
                return number
        return None

    def _recent(self, string):
        number = self.number_in(self.gift, RECENT, string)
        if number is not None:
            self.has_base = True
            self.byte(0x61)
            self.varint(self.gift.next_recent - number)
            return True
        number = self.number_in(self.end.theirs, RECENT, string)
        if number is None:
            return False
        self.byte(0x62)
        self.zigzag(number - self.last_far)
        self.last_far = number
        return True

    def _spell(self, string):
        if HASH.match(string) and string[0] == "$" and (octets := bytes_of(string[1:], "-_")):
            self.byte(0x53)
            return self.raw(octets)
        if PLAIN_BASE64.match(string) and (octets := bytes_of(string, "+/")):
            self.byte(0x55 if len(octets) == 32 else 0x56)
            return self.raw(octets)
        named, media = NAMED.match(string), MEDIA.match(string)
        if named and named[1] == "#" and is_remembered(SERVER, named[3]):
            return self._named(named)
        if media and is_remembered(SERVER, media[1]):
            self.byte(0x5D)
            self._server(media[1])
            return self.text(media[2])
        if "\0" not in string:
            self.byte(0x50)
            return self.text(string)
        octets = string.encode("utf-8")
        self.byte(0x51)
        self.varint(len(octets))
        self.coded += octets
        return None

    def body(self, body, places):
        """A body: `ABSENT`, bytes as they are, or a value, in which tokens stand at `places`."""
        if body is ABSENT:
            return self.byte(NONE)
        if isinstance(body, Carried):
            self.byte(AS_IT_IS)
            self.varint(len(body))
            return self.raw(body)
        return self.value(body, places, ())

    def value(self, value, places, path, age=False):
        match value:
            case None | False | True:
                self.byte({None: 0x28, False: 0x29, True: 0x2A}[value])
            case int():
                self._integer(value, age)
            case float():
                self.byte(0x25, *struct.pack(">d", value))
            case str():
                self._string_at(value, places, path)
            case Object():
                self._object(value, places, path)
            case list():
                self.byte(0x31 if value else 0x30)
                for element in value:
                    self.value(element, places, path)
                if value:
                    self.byte(0x7F)

    def _string_at(self, string, places, path):
        if is_token(places, path) and self.ends.token(self, string):
            return None
        if self.ends.transaction(self, string, path):
            return None
        if path and path[-1] in SECRETS:
            return self.secret(string)
        return self.string(string)

    def _object(self, members, places, path):
        self.byte(0x33 if members else 0x32)
        for name, value in members:
            row = KEY_ROWS.get(name)
            self._name(row, name)
            self.value(value, places, (*path, name), row == AGE)
        if members:
            self.byte(0x7F)

    def _name(self, row, name):
        if row is None:
            if name not in VALUE_ROWS:
                return self.string(name)
            self.byte(0x50)  # the rows of strings stand for no names
            self.text(name)
            if is_remembered(RECENT, name):
                self.has_base = True
                self.gift.give_recent(name)
            return None
        if row < 80:
            return self.byte(row)
        if row < 208:
            return self.byte(0x80 + row - 80)
        return self.byte(0x70 | row - 208 >> 8, row - 208 & 0xFF)

    def _integer(self, number, age):
        if age and 0 <= number < 2**40 and self.clock.now is not None:
            self.byte(0x27)
            expected = self.clock.now - self.clock.last
            self.clock.told_age(number)
            return self.zigzag(number - expected)
        if 10**12 <= number < 10**13:
            self.byte(0x26)
            last = self.clock.last
            self.clock.time(number - last)
            return self.zigzag(number - last)
        if age and 0 <= number < 2**40:
            self.clock.told_age(number)
        if number < 0:
            self.byte(0x24)
            number = -1 - number
        return self._unsigned(number)

    def _unsigned(self, number):
        if number < 32:
            return self.byte(number)
        for code, length in ((0x20, 1), (0x21, 2), (0x22, 4), (0x23, 8)):
            if number < 1 << 8 * length:
                return self.byte(code, *number.to_bytes(length, "big"))
        raise ValueError(number)


def same_object(body):
    """Whether a body is `{}`."""
    return isinstance(body, Object) and not body


def bytes_of(string, letters):
    """The bytes of base64 without padding, if they give it again."""
    try:
        octets = base64.b64decode(string + "=" * (-len(string) % 4), letters.encode(), validate=True)
    except binascii.Error:
        return None
    again = encode_base64(octets) if letters == "+/" else encode_base64url(octets)
    return octets if again == string else None


def path_items(items, method, segments, transaction):
    """The route and its parameters, or the path spelled out; the route's number."""
    for route in ROUTES:
        if route.method == method and len(segments) == len(route.segments):
            pairs = list(zip(route.segments, segments))
            if all(own == segment or own.startswith("{") for own, segment in pairs):
                break
    else:
        items.varint(0)
        items.byte(METHODS.index(method))
        for segment in segments:
            items.string(segment)
        items.byte(0x7F)
        return 0
    items.varint(route.number)
    for own, segment in pairs:
        if own == "{txnId}":
            transaction(segment)
        elif own.startswith("{"):
            items.string(segment)
    return route.number


def query_items(items, query, number_of, token):
    """The query, and the tokens that were in it."""
    if query is None:
        return items.byte(NONE)
    parts, numbers = [], []
    for part in query.split("&"):
        name, equals, value = part.partition("=")
        number = number_of(value) if equals and name in QUERY_TOKENS else None
        parts.append(part if number is None else f"{name}=\x01")
        numbers += [] if number is None else [number]
    _template(items, "&".join(parts))
    for number in numbers:
        token(number)
    return None


def _template(items, template):
    if not is_remembered(QUERY, template):
        return items.string(template)
    if (number := items.number_in(items.gift, QUERY, template)) is not None:
        items.byte(0x7B)
        return items.varint(number)
    number = items.next_number(QUERY)
    items.byte(0x60)
    items.varint(number)
    items.byte(0x50)
    items.text(template)
    return items.gift.give(QUERY, number, template)
