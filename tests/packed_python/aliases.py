"""The numbers of one direction (docs/packed.md section 8)."""

from errors import DecodeError
from items import MASK

RECENT, ROOM, USER, SERVER, DEVICE, QUERY, EVENT = "recent", "room", "user", "server", "device", "query", "event"

# How many numbers back, and how many bytes of strings together, a sender may refer to.
WINDOWS = {RECENT: (1024, 65536), EVENT: (2048, 16384)}
OTHERS = (256, 16384)
LONGEST = {RECENT: 1024, QUERY: 1024}
LONGEST_OTHER = 255
SHORTEST_RECENT = 5
GREATEST = 2**62


def is_remembered(kind, string):
    """Whether a string of this kind has a number: by its bytes of UTF-8."""
    length = len(string.encode("utf-8"))
    return length <= LONGEST.get(kind, LONGEST_OTHER) and (kind != RECENT or length >= SHORTEST_RECENT)


class Kind:
    """The strings of one kind by number, of which those behind the window are forgotten."""

    def __init__(self, window, room):
        self.window = window
        self.room = room
        self.strings = {}
        self.used = 0
        self.next = 0

    def give(self, number, string):
        if number in self.strings:
            return
        self.strings[number] = string
        self.used += len(string.encode("utf-8"))
        self.next = max(self.next, number + 1)
        for old in sorted(self.strings):
            if old + self.window >= self.next and self.used <= self.room:
                break
            self.used -= len(self.strings.pop(old).encode("utf-8"))

    def is_near(self, number):
        """Whether a sender may refer to a number of its own."""
        later = (string for other, string in self.strings.items() if other >= number)
        is_inside = sum(len(string.encode("utf-8")) for string in later) <= self.room // 2
        return number + self.window // 2 >= self.next and is_inside


class Aliases:
    """What one end has told, as one of the two knows it: `share` is 1 for who was told, 2 for who told it."""

    def __init__(self, share):
        self.kinds = {
            kind: Kind(*(share * bound for bound in WINDOWS.get(kind, OTHERS)))
            for kind in (RECENT, ROOM, USER, SERVER, DEVICE, QUERY, EVENT)
        }

    def gift(self, base):
        """What a message is about to give, of which `base` is the first recent number, if it has one."""
        return Gift(self, base)

    def get(self, kind, number):
        return self.kinds[kind].strings.get(number)

    def next(self, kind):
        return self.kinds[kind].next

    def items(self, kind):
        """Numbers and strings, the newest first."""
        return sorted(self.kinds[kind].strings.items(), reverse=True)

    def forget(self):
        """Another epoch: strings go, numbers go on."""
        for kind in self.kinds.values():
            kind.strings.clear()
            kind.used = 0


class Gift:
    """What one message gives, before and until all of it is read."""

    def __init__(self, known, base):
        self.known = known
        self.base = base if base is None else base & MASK
        self.next_recent = self.base
        self.given = {}

    def give(self, kind, number, string):
        if not is_remembered(kind, string):
            return
        if number >= GREATEST:
            raise DecodeError("Damaged", f"{kind} {number}")
        before = self.get(kind, number)
        if before is not None and before != string:
            raise DecodeError("Conflict", f"{kind} {number} is {before!r}, not {string!r}")
        self.given[kind, number] = string

    def give_recent(self, string):
        if is_remembered(RECENT, string):
            self.give(RECENT, self.take_number(), string)

    def take_number(self):
        """The next recent number, which a message without a base has not."""
        if self.next_recent is None:
            raise DecodeError("Damaged", "a recent string without a base")
        self.next_recent += 1
        return self.next_recent - 1

    def get(self, kind, number):
        return self.given.get((kind, number), self.known.get(kind, number))

    def commit(self):
        for (kind, number), string in self.given.items():
            self.known.kinds[kind].give(number, string)
