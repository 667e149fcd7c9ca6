"""Strings, as a message has them (docs/packed.md sections 7 to 9)."""

import base64

from aliases import DEVICE, EVENT, RECENT, ROOM, SERVER, USER
from errors import DecodeError
from items import MASK, utf8
from roles import ALIAS, LENGTH, ROW
from tables import VALUES

REFERENCES = [ROOM, USER, SERVER, DEVICE]


def encode_base64(octets):
    return base64.b64encode(octets).rstrip(b"=").decode()


def encode_base64url(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


class Strings:
    """Reads the strings of one message: `gift` is what it gives, `receiver` what its reader has given."""

    def __init__(self, items, gift, receiver, ends):
        self.items = items
        self.gift = gift
        self.receiver = receiver
        self.ends = ends
        self.last_far = 0
        self.last_event = None

    def read(self, first=None):
        """A string; of its first byte the caller may have taken it for one."""
        first = self.items.code() if first is None else first
        if first == 0x5E:
            return self._in_two()
        if first == 0x5F:
            return self._text_with_identifiers()
        return self._simple(first)

    def _simple(self, first):
        if first >= 0x80:
            return self._of_the_table(first)
        if first == 0x52:
            return utf8(self.items.raw(self.items.varint(LENGTH)))
        if 0x50 <= first <= 0x5D:
            string = self._spelled(first)
            self.gift.give_recent(string)
            return string
        if first == 0x60:
            return self._introduced()
        if 0x61 <= first <= 0x6A or first == 0x7A:
            return self._reference(first)
        if 0x6B <= first <= 0x6F or first in (0x78, 0x79):
            return self._of_the_ends(first)
        raise DecodeError("Code", f"{first:#04x} begins no string here")

    def _of_the_table(self, first):
        row = first - 0x80 if first < 0xF0 else 112 + ((first & 0x0F) << 8 | self.items.byte(ROW))
        if row >= len(VALUES):
            raise DecodeError("UnknownRow", f"value {row}")
        return VALUES[row]

    def _spelled(self, first):
        items = self.items
        match first:
            case 0x50:
                return items.text()
            case 0x51:
                return items.counted_text()
            case 0x53:
                return "$" + encode_base64url(items.raw(32))
            case 0x54:
                return "!" + encode_base64url(items.raw(32))
            case 0x55 | 0x56:
                return encode_base64(items.raw(32 if first == 0x55 else 64))
            case 0x57:
                return encode_base64(items.raw(items.varint(LENGTH)))
            case 0x58:
                return base64.b64encode(items.raw(items.varint(LENGTH))).decode()
            case 0x59:
                return encode_base64url(items.raw(items.varint(LENGTH)))
            case 0x5A | 0x5B | 0x5C:
                return "@!#"[first - 0x5A] + items.text() + ":" + self._server()
            case _:
                return "mxc://" + self._server() + "/" + items.text()

    def _server(self):
        first = self.items.code()
        if first in (0x65, 0x69):
            return self._reference(first)
        if first != 0x60:
            raise DecodeError("Code", f"{first:#04x} begins no server")
        number = self.items.varint(ALIAS)
        if self.items.code() != 0x50:
            raise DecodeError("Code", "a server that is no text")
        string = self.items.text()
        self.gift.give(SERVER, number, string)
        return string

    def _introduced(self):
        number = self.items.varint(ALIAS)
        first = self.items.code()
        kind = {0x5A: USER, 0x5B: ROOM, 0x54: ROOM, 0x50: DEVICE}.get(first)
        if kind is None:
            raise DecodeError("Code", f"{first:#04x} is not introduced")
        string = self._spelled(first)
        self.gift.give(kind, number, string)
        return string

    def _reference(self, first):
        items = self.items
        if first == 0x61:
            back = items.varint(ALIAS)
            return known(self.gift, RECENT, (self.gift.next_recent or 0) - back & MASK)
        if first == 0x62:
            self.last_far = self.last_far + items.zigzag(ALIAS) & MASK
            return known(self.receiver, RECENT, self.last_far)
        number = items.varint(ALIAS)
        if first == 0x7A:
            self.last_event = number
            string = self.gift.get(EVENT, number)
            return known(self.receiver, EVENT, number) if string is None else string
        if first <= 0x66:
            return known(self.gift, REFERENCES[first - 0x63], number)
        return known(self.receiver, REFERENCES[first - 0x67], number)

    def _of_the_ends(self, first):
        """Tokens and transactions; which of them may stand in a message its direction says."""
        match first:
            case 0x6B:
                return self.ends.new_token(self.items)
            case 0x6C | 0x6D:
                return self.ends.known_token(self.items, first)
            case 0x6E:
                return self.ends.new_transaction(self.gift)
            case 0x6F:
                return self.ends.known_transaction(self.items.varint(ALIAS))
            case 0x78:
                if self.last_event is None:
                    raise DecodeError("Code", "no event of a transaction before")
                return self.ends.known_transaction(self.last_event)
        event = "$" + encode_base64url(self.items.raw(32))
        self.gift.give(EVENT, self.ends.event_number(), event)
        return event

    def _in_two(self):
        first = self.items.code()
        if first < 0x80:
            raise DecodeError("Code", f"{first:#04x} is no string of the table")
        left = self._of_the_table(first)
        return left + ":" + self._simple(self.items.code())

    def _text_with_identifiers(self):
        parts = [self.items.text()]
        while (first := self.items.code()) != 0x7F:
            parts += [self._simple(first), self.items.text()]
        string = "".join(parts)
        self.gift.give_recent(string)
        return string


def known(aliases, kind, number):
    """The string of a number, which has to be known."""
    string = aliases.get(kind, number)
    if string is None:
        raise DecodeError("UnknownAlias", f"{kind} {number}")
    return string
