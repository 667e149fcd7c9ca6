"""Messages of every shape, written and read again."""

import copy
import random

from ends import Gateway, Proxy
from replay import AGREEMENT, expect
from tables import KEYS, ROUTES, VALUES
from values import ABSENT, Carried, Object, carried

LETTERS = "abcXYZ019 .:_-=+/@!#$%\0\n\x01\x7fäß漢🙂"
SERVERS = ["hs.example", "elsewhere.example:8448", "[::1]"]


class Shapes:
    """Bodies, targets and strings by chance; one seed gives the same each time."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.before = ["Hello World"]

    def string(self):
        chance = self.chance
        server = chance.choice(SERVERS)
        made = chance.choice(
            [
                lambda: "".join(chance.choices(LETTERS, k=chance.choice([0, 1, 4, 5, 30, 1200]))),
                lambda: chance.choice(VALUES),
                lambda: chance.choice(KEYS),
                lambda: chance.choice(self.before),
                lambda: chance.choice(self.before),
                lambda: chance.choice("@!#") + chance.choice(["alice", "", "x" * 300]) + ":" + server,
                lambda: chance.choice("$!") + "".join(chance.choices("abcABC012-_", k=43)),
                lambda: "".join(chance.choices("abcABC012+/", k=chance.choice([43, 86]))),
                lambda: "mxc://" + server + "/" + chance.choice(["media", "", "a/b"]),
                lambda: chance.choice(["", "ed25519:"]) + "".join(chance.choices("ABC", k=10)),
            ]
        )()
        self.before = [*self.before[-50:], made]
        return made

    def number(self):
        chance = self.chance
        return chance.choice(
            [
                lambda: chance.randrange(-40, 40),
                lambda: chance.randrange(-(2**63), 2**64),
                lambda: chance.choice([-1, 1]) << chance.randrange(63),
                lambda: 1795468377411 + chance.randrange(-5000, 5000),
                lambda: chance.choice([0.0, -0.0, 1.0, 1.5e300, 5e-324]),
                lambda: 2**64,
            ]
        )()

    def value(self, depth):
        chance = self.chance
        kind = chance.randrange(4 if depth else 8)
        if kind < 2:
            return self.string()
        if kind < 4:
            return chance.choice([self.number(), self.number(), None, True, False])
        length = chance.randrange(6)
        if kind < 6:
            return [self.value(depth + chance.randrange(2)) for _ in range(length)]
        names = (chance.choice([self.string(), chance.choice(KEYS), "age"]) for _ in range(length))
        return Object((name, self.value(depth + chance.randrange(2))) for name in names)

    def body(self):
        chance = self.chance
        made = chance.choice([ABSENT, Carried(b"\xff\0{}"), Object(), self.value(0), self.value(0), self.value(0)])
        return made if made is ABSENT or isinstance(made, Carried) else carried(made)

    def asked(self, tokens):
        """Method and path, of which each segment is one that needs no percent-encoding; and the query."""
        chance = self.chance
        route = chance.choice(ROUTES)
        spelled = ["_matrix", "client", "v9", chance.choice(["", "things"])]
        segments = chance.choice([route.segments, route.segments, spelled])
        filled = [f"t{chance.randrange(5)}" if s.startswith("{") else s for s in segments]
        query = [f"{name}={chance.choice(['b', *tokens])}" for name in ("dir", "from", "to")]
        query = "?" + "&".join(chance.sample(query, chance.randrange(4)))
        return route.method, "/" + "/".join(filled) + chance.choice(["", query])


def notify(shapes, proxy, gateway, request, read):
    """A notification of a request to `/sync`, from any position that the proxy has."""
    position = shapes.chance.choice([*proxy.marks] or [None])
    if position is None:
        return
    body = shapes.value(1)
    message, given = gateway.write_notification(read, position, carried(Object([("events", body)])))
    response = proxy.read_notification(message, request)
    expect(response.position, position)
    expect(response.body, carried(Object([("events", body)])))
    gateway.acknowledge(given)


def check(seed, messages):
    """A conversation of some messages; an exception says what was not read as it was written."""
    shapes = Shapes(seed)
    proxy, gateway = Proxy(*AGREEMENT), Gateway(*AGREEMENT)
    tokens = []
    for number in range(messages):
        coder = shapes.chance.randrange(2)
        method, target = shapes.asked(tokens)
        body = shapes.body()
        message, given, request = proxy.write_request(method, target, body)
        read = gateway.read_request(message)
        expect((read.method, read.body), (method, body))
        again = gateway.trace.message(coder)
        expect(copy.deepcopy(gateway).read_request(again).target, read.target)
        if shapes.chance.random() < 0.8:
            proxy.acknowledge(given)
        answer = shapes.body()
        if request.route == 1:
            events = [] if answer is ABSENT or isinstance(answer, Carried) else [answer]
            answer = carried(Object([("next_batch", f"s{number}"), ("events", events)]))
        status = shapes.chance.choice([None, None, 418])
        message, given = gateway.write_response(read, answer, status)
        response = proxy.read_response(message, request)
        expect(response.status, status)
        if request.route == 1 and isinstance(answer, Object):
            tokens.append(response.body[0][1])
            expect(response.body[1:], answer[1:])
        else:
            expect(response.body, answer)
        if given and shapes.chance.random() < 0.8:
            gateway.acknowledge(given)
        if request.route == 1:
            notify(shapes, proxy, gateway, request, read)
        if shapes.chance.random() < 0.01:
            proxy.begin(proxy.epoch + 1)
            gateway.begin(proxy.epoch)
