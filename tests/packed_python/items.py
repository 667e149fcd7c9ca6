"""The items of a message: what a coder sees from the front, raw ones from the end (docs/packed.md section 3)."""

from errors import DecodeError
from roles import LENGTH, NUMBER, TEXT, VALUE

MASK = 2**64 - 1


def varint(number):
    """Seven bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number):
    """A varint of a signed number, which is a difference modulo 2^64."""
    number = signed(number)
    return varint(2 * number if number >= 0 else -2 * number - 1)


def signed(number):
    """The number between -2^63 and 2^63 - 1 that is the same modulo 2^64."""
    number &= MASK
    return number - 2**64 if number >= 2**63 else number


class Reader:
    """Numbers and texts, byte by byte, over a source; what each byte is, the source may want to know (section 13)."""

    def __init__(self, source):
        self.source = source
        self.raw = source.raw
        self.finish = source.finish
        self.role, self.name, self.parent = VALUE, 0, 0

    def at(self, role, name, parent=0):
        """Says what the next codes are, and whose."""
        self.role, self.name, self.parent = role, name, parent

    def code(self):
        """The first byte of something."""
        return self.source.byte(self.role, self.name, self.parent)

    def byte(self, role):
        """A further byte."""
        return self.source.byte(role, self.name, self.parent)

    def varint(self, role):
        number = 0
        for shift in range(0, 70, 7):
            byte = self.byte(role)
            number |= (byte & 0x7F) << shift
            if number > MASK:
                break
            if byte < 0x80:
                return number
        raise DecodeError("Damaged", "a varint of more than 64 bits")

    def zigzag(self, role):
        number = self.varint(role)
        return -(number >> 1) - 1 if number & 1 else number >> 1

    def unsigned(self, length):
        number = 0
        for _ in range(length):
            number = number << 8 | self.byte(NUMBER)
        return number

    def text(self):
        """UTF-8 up to a byte of 0."""
        out = bytearray()
        while byte := self.byte(TEXT):
            out.append(byte)
        return utf8(out)

    def counted_text(self):
        """A varint, and as many bytes of UTF-8."""
        return utf8(bytearray(self.byte(TEXT) for _ in range(self.varint(LENGTH))))


def utf8(octets):
    try:
        return bytes(octets).decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError("Utf8", str(error)) from None


class Plain:
    """Items of coder 0: both kinds in one stretch of bytes, which they use up."""

    def __init__(self, octets):
        self.octets = octets
        self.position = 0
        self.end = len(octets)

    def byte(self, *_place):
        if self.position >= self.end:
            raise DecodeError("Truncated")
        self.position += 1
        return self.octets[self.position - 1]

    def raw(self, length):
        if length > self.end - self.position:
            raise DecodeError("Truncated", "raw items")
        self.end -= length
        return self.octets[self.end : self.end + length]

    def finish(self):
        if self.position != self.end:
            raise DecodeError("Trailing")


class Split:
    """Items that a coder gave as a whole, and the raw ones behind its bytes."""

    def __init__(self, items, raw):
        self.items = Plain(items)
        self.rest = Plain(raw)
        self.byte = self.items.byte
        self.raw = self.rest.raw

    def finish(self):
        self.items.finish()
        self.rest.finish()
