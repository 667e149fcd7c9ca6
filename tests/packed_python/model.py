"""Coder 2: each bit is guessed, and coded in as many bits as it is a surprise (docs/packed.md section 13)."""

from array import array

from errors import DecodeError
from head import Head
from roles import HEADER, NAME, ROUTES, TEXT, VALUE

WORD = 0xFFFFFFFF
CONTEXTS = 12
LINE_BITS = 18
PLACE_BITS = 18
# Bytes of items, of a request and of a response.
LARGEST = (8192, 65536)
EVEN = 1 << 15
FIRST = 0x40000000
HEAVIEST = 8 << 16

SQUASHED = [
    1, 2, 3, 6, 10, 16, 27, 45, 73, 120, 194, 310, 488, 747, 1101, 1546, 2047, 2549, 2994, 3348, 3607,
    3785, 3901, 3975, 4022, 4050, 4068, 4079, 4085, 4089, 4092, 4093, 4094,
]  # fmt: skip


def _squash(odds):
    place, part = odds + 2048 >> 7, odds + 2048 & 127
    return (SQUASHED[place] * (128 - part) + SQUASHED[place + 1] * part + 64) >> 7


def _stretched():
    """The inverse of `SQUASH`, for all 4096 probabilities."""
    table = []
    for odds in range(-2047, 2048):
        while len(table) <= _squash(odds) and len(table) < 4096:
            table.append(odds)
    return table + [2047] * (4096 - len(table))


# By odds and 2047: odds in units of 1/256 of a logarithm become probabilities, of 4096.
SQUASH = [_squash(odds) for odds in range(-2047, 2048)]
STRETCH = _stretched()


class Mixers:
    """The weights of the guesses: three sets of sets, of which each bit has one of each."""

    def __init__(self):
        inputs = 2 * CONTEXTS + 3
        self.by_role = [[20 << 10] * inputs for _ in range(16 * 4)]
        self.by_bits = [[20 << 10] * inputs for _ in range(256)]
        self.by_name = [[20 << 10] * inputs for _ in range(1024)]

    def copy(self):
        copy = Mixers.__new__(Mixers)
        for name, sets in vars(self).items():
            setattr(copy, name, [list(weights) for weights in sets])
        return copy


class Predictor:
    """The probability of each bit of a message, and what is learned from it."""

    def __init__(self, taught=None):
        if taught:
            self.lines = taught.lines[:]
            self.mixers = taught.mixers.copy()
            self.places = taught.places[:]
            self.history = taught.history[:]
        else:
            self.lines = array("I", bytes(64 << LINE_BITS))
            self.mixers = Mixers()
            self.places = array("I", bytes(4 << PLACE_BITS))
            self.history = bytearray()
        self.last = (0,) * 6
        self._begin()

    def _begin(self):
        self.codes = self.word = 0
        self.expected, self.agreed = None, 0

    def learn_sample(self, trace):
        """Learns the bytes of a sample, each with its role, name and parent."""
        self._begin()
        self.history += bytes(4)
        self.last = (0, 0, 0, 0, *self.last[:2])
        for byte, place in trace:
            self.at(*place)
            for shift in range(7, -1, -1):
                self.predict()
                self.learn(byte >> shift & 1)
            self.end_byte()

    def at(self, role, name, parent):
        """Begins a byte."""
        one, two, three, four, five, six = self.last
        codes = self.codes
        is_text = role == TEXT
        contexts = (
            (role,),
            (role, name),
            (role, name, parent),
            (role, name, one),
            (role, name, one, two),
            (role, name, parent, codes & 0xFFFFFF),
            (role, one, two, three),
            (role, one, two, three, four),
            (one, two, three, four, five, six),
            (self.word if is_text else codes, role),
            (role, name, self.word ^ one if is_text else codes & 0xFFFF),
            (role, one, two),
        )
        self.hashes = [_hash(number, parts) for number, parts in enumerate(contexts, 1)]
        self.role, self.name = role, name
        self.partial = 1
        self._open_lines()

    def _open_lines(self):
        """Takes out the lines of the next four bits."""
        salt = self.partial * 0x9E3779B1 & WORD
        self.open = []
        for hashed in self.hashes:
            mixed = (hashed ^ salt) * 0x2C1B3C6D & WORD
            mixed ^= mixed >> 15
            start = mixed >> (32 - LINE_BITS) << 4
            self.open.append((start, mixed & 0xFF, self.lines[start : start + 16]))

    def _close_lines(self):
        for start, _, line in self.open:
            self.lines[start : start + 16] = line

    def predict(self):
        """The probability that the next bit is 1, of 65536."""
        partial = self.partial
        place = partial if partial < 16 else 0
        if not place:
            seen = partial.bit_length() - 5
            place = partial & (1 << seen) - 1 | 1 << seen
        self.place = place
        guesses = []
        for number, (_, check, line) in enumerate(self.open):
            slot = line[place]
            if slot & 0xFF == check and slot & 0xFF00:
                guesses.append((number, STRETCH[slot >> 20]))
                guesses.append((number + CONTEXTS, (slot >> 16) - 0x8000 >> 5))
        strength, bucket = self._match()
        if strength:
            guesses.append((2 * CONTEXTS, strength))
            if bucket == 3:
                guesses.append((2 * CONTEXTS + 1, strength))
        guesses.append((2 * CONTEXTS + 2, 256))
        self.guesses = guesses
        self.used, odds = [], 0
        mixers = self.mixers
        for weights in (
            mixers.by_role[self.role * 4 + bucket],
            mixers.by_bits[partial],
            mixers.by_name[self.name & 0x3FF],
        ):
            mixed = 0
            for place, guess in guesses:
                mixed += weights[place] * guess >> 8
            mixed = min(max(mixed >> 8, -2047), 2047)
            self.used.append((weights, SQUASH[mixed + 2047]))
            odds += mixed
        # Towards zero, as in the definition.
        mean = odds // 3 if odds >= 0 else -(-odds // 3)
        return min(max(SQUASH[mean + 2047] << 4, 16), 0xFFFF - 16)

    def _match(self):
        """How much the byte after the same bytes before speaks for a 1, and how many were the same: 0 to 3."""
        if self.expected is None or self.expected >= len(self.history):
            return 0, 0
        seen = self.partial.bit_length() - 1
        expected = self.history[self.expected] | 0x100
        if expected >> (8 - seen) != self.partial:
            return 0, 0
        strength = 64 * min(self.agreed, 24)
        bucket = 3 if self.agreed > 15 else 2 if self.agreed > 7 else 1
        return (strength if expected >> (7 - seen) & 1 else -strength), bucket

    def learn(self, bit):
        """Learns what the bit was."""
        for weights, output in self.used:
            error = ((bit << 12) - output) * 6
            for place, guess in self.guesses:
                weight = weights[place] + (guess * error + 0x8000 >> 16)
                if -HEAVIEST <= weight <= HEAVIEST:
                    weights[place] = weight
                else:
                    weights[place] = HEAVIEST if weight > 0 else -HEAVIEST
        place, target = self.place, 0xFFFF if bit else 0
        for _, check, line in self.open:
            slot = line[place]
            count = slot >> 8 & 0xFF
            if slot & 0xFF != check or not count:
                probability, count = 0x8000, 0
            else:
                probability = slot >> 16
            part = 2 * count + 3
            if bit:
                probability += (target - probability) * 2 // part
            else:
                probability -= probability * 2 // part
            line[place] = probability << 16 | min(count + 1, 255) << 8 | check
        self.partial = self.partial << 1 | bit
        if 0x10 <= self.partial < 0x20:
            self._close_lines()
            self._open_lines()
        elif self.partial >= 0x100:
            self._close_lines()

    def end_byte(self):
        """Ends the byte whose eight bits were learned."""
        byte = self.partial & 0xFF
        expected = self.expected
        if expected is not None and expected < len(self.history) and self.history[expected] == byte:
            self.expected, self.agreed = expected + 1, self.agreed + 1
        else:
            self.expected, self.agreed = None, 0
        self.history.append(byte)
        self.last = (byte, *self.last[:5])
        if self.role in (VALUE, NAME):
            self.codes, self.word = (self.codes << 8 | byte) & WORD, 0
        elif self.role == TEXT and (byte >= 0x80 or chr(byte).isalnum()):
            lower = byte | 0x20 if 0x41 <= byte <= 0x5A else byte
            word = (self.word ^ lower) * 0x01000193 & WORD
            self.word = (word << 5 | word >> 27) & WORD
        else:
            self.word = 0
        self._find()

    def _find(self):
        """Looks for the last four bytes further back."""
        one, two, three, four = self.last[:4]
        hashed = ((one | two << 8 | three << 16 | four << 24) * 0x9E3779B1 & WORD) >> (32 - PLACE_BITS)
        here = len(self.history)
        place = self.places[hashed]
        if self.expected is None and place:
            agreed = self._agreement(place, here)
            if agreed >= 4:
                self.expected, self.agreed = place, agreed
        self.places[hashed] = here

    def _agreement(self, one, other):
        """How many bytes before two places are the same, up to 32."""
        history = self.history
        for back in range(1, 33):
            if back > one or history[one - back] != history[other - back]:
                return back - 1
        return 32


def _hash(number, parts):
    hashed = number * 0x9E3779B1 & WORD
    for part in parts:
        hashed = (hashed ^ part) * 0x85EBCA6B & WORD
        hashed = (hashed << 13 | hashed >> 19) + 0x27D4EB2F & WORD
    return hashed


class Interval:
    """The 32-bit numbers that a code may still become."""

    def __init__(self):
        self.low, self.high = FIRST, WORD

    def middle(self, probability):
        """The last number that means 1."""
        return self.low + ((self.high - self.low) * probability >> 16)

    def narrow(self, middle, bit):
        """Goes on with one part; the bytes that are settled by it."""
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        settled = bytearray()
        while not (self.low ^ self.high) >> 24:
            settled.append(self.high >> 24)
            self.low = self.low << 8 & WORD
            self.high = self.high << 8 & WORD | 0xFF
        return settled

    def finish(self, is_last):
        """The fewest bytes that lead into it, whatever follows; or zeros, if nothing does."""
        for length in range(4):
            unsaid = WORD >> 8 * length
            first = self.low + unsaid & ~unsaid
            if first <= WORD and (first if is_last else first | unsaid) <= self.high:
                return first.to_bytes(4, "big")[:length]
        return self.low.to_bytes(4, "big")


class Source:
    """Items of coder 2, and the raw ones behind them."""

    def __init__(self, taught, message):
        self.predictor = Predictor(taught)
        self.interval = Interval()
        self.message = message
        self.end = len(message)
        self.settled = 0
        self.taken = 4
        self.value = int.from_bytes(message[:4].ljust(4, b"\0"), "big")
        self.left = LARGEST[1] + 1

    def bit(self, probability):
        """The next bit, given the probability of a 1."""
        middle = self.interval.middle(probability)
        bit = int(self.value <= middle)
        for _ in self.interval.narrow(middle, bit):
            self.settled += 1
            following = self.message[self.taken] if self.taken < len(self.message) else 0
            self.value = (self.value << 8 | following) & WORD
            self.taken += 1
        return bit

    def byte(self, role, name, parent):
        if self.left == 0:
            raise DecodeError("Model")
        if self.settled > len(self.message):
            raise DecodeError("Truncated")
        self.left -= 1
        predictor = self.predictor
        predictor.at(role, name, parent)
        for _ in range(8):
            predictor.learn(self.bit(predictor.predict()))
        predictor.end_byte()
        return predictor.history[-1]

    def raw(self, length):
        if length > self.end:
            raise DecodeError("Truncated", "raw items")
        self.end -= length
        return self.message[self.end : self.end + length]

    def finish(self):
        """Expects that the sender put out just these bytes."""
        rest = self.interval.finish(self.end == len(self.message))
        length = self.settled + len(rest)
        if length != self.end:
            raise DecodeError("Trailing" if length < self.end else "Truncated")
        if self.message[self.settled : length] != rest:
            raise DecodeError("Damaged")


def header_place(route):
    """Role, name and parent of b and s: `route` is that of the request for a response, None for a request."""
    return HEADER, 0 if route is None else ROUTES + route, 0


def open_message(taught, message, route):
    """Head and source of a message."""
    source = Source(taught, message)
    epoch = 0
    for _ in range(3):
        epoch = epoch << 1 | source.bit(EVEN)
    flags = source.byte(*header_place(route))
    source.left = LARGEST[route is not None]
    if flags > 3:
        raise DecodeError("Damaged", "b and s")
    return Head(epoch, bool(flags & 2), bool(flags & 1)), source


def encode(taught, head, route, trace, raw):
    """A message of coder 2: the items in `trace` with their roles, names and parents, then the raw ones."""
    predictor, interval = Predictor(taught), Interval()
    out = bytearray()
    for shift in (2, 1, 0):
        out += interval.narrow(interval.middle(EVEN), head.epoch >> shift & 1)
    for byte, place in [(head.flags(), header_place(route)), *trace]:
        predictor.at(*place)
        for shift in range(7, -1, -1):
            bit = byte >> shift & 1
            out += interval.narrow(interval.middle(predictor.predict()), bit)
            predictor.learn(bit)
        predictor.end_byte()
    return bytes(out) + interval.finish(not raw) + raw
