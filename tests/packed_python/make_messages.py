"""Writes tests/vectors/packed/messages.tsv anew; tests/packed_vectors.rs says whether it is right.

    python3 tests/packed_python/make_messages.py

To be done when there are more rows here, and with another dictionary.
"""

import copy

import coders
import model
import replay
import samples
from head import Head
from items import varint, zigzag

HEAD = """\
# Messages that stand by themselves, each read by ends that have read the exchanges of coder 0 in exchanges.tsv: what
# it is, with the number of the request that it answers; bytes, of several messages where they are read one after the
# other; what comes of the last: the request as the homeserver has it, status and body as the client has them, or the
# error (docs/packed.md section 14).
"""

EVENT = bytes(range(32))
TIME = zigzag(1795468377411)
BASE = "0664"  # of a request: base 100


def text(string):
    return string.encode("utf-8") + b"\0"


def parts(*given):
    """Bytes, of which some stand in hexadecimal digits."""
    return b"".join(part if isinstance(part, bytes) else bytes.fromhex(part) for part in given)


def string(head, *given, raw=b""):
    """A request with a string for the parameter of route 20."""
    return "request", parts(head, "14", *given, "2b2b", raw)


def path(*given):
    """A request of route 0."""
    return "request", parts("0400", *given)


def query(*given):
    """A request of route 1 without a base."""
    return "request", parts("0401", *given)


def body(*given):
    """A request of route 8 with a body."""
    return "request", parts("04082b", *given)


def request(*given):
    return "request", parts(*given)


def response(*given):
    """A response to the request of route 0."""
    return "response 6", parts(*given)


def answer(number, *given):
    return f"response {number}", parts(*given)


def notification(*given):
    """A notification of the request that had the first token."""
    return "notification 3", parts(*given)


STRINGS = [
    *(string("04", row) for row in ("80", "ef", "f000", "f18d", "ff00", "ffff")),
    string("04", "50", text("")),
    string(BASE, "50", text("text")),
    string("04", "50", text("longer")),
    string(BASE, "50", text("a longer text")),
    string("04", "50", text("a/b;c+d ä")),
    string("04", "50ff00"),
    string("04", "50", text(".")),
    string("04", "50", text("..")),
    string(BASE, "51", varint(6), b"a\0b\xc3\xa4c"),
    string("04", "52", varint(6), raw=b"secret"),
    string("04", "52", varint(2), raw=b"\xff\xfe"),
    string(BASE, "53", raw=EVENT),
    string(BASE, "54", raw=EVENT),
    string(BASE, "55", raw=EVENT),
    string(BASE, "56", raw=2 * EVENT),
    *(string(BASE, code, varint(4), raw=b"\xff" * 4) for code in ("57", "58", "59")),
    string(BASE, "57", varint(0)),
    string(BASE, "5a", text("eve"), "6900"),
    string(BASE, "5b", text("hall"), "600050", text("new.example")),
    string(BASE, "5c", text("hall"), "600750", text("new.example")),
    string(BASE, "5d6900", text("media")),
    string("04", "5e8a50", text("x")),
    string(BASE, "5ef00050", text("longer")),
    string(BASE, "5e8a53", raw=EVENT),
    string("04", "5e50", text("x"), "80"),
    string("04", "5e8a5e8a80"),
    string("04", "5f", text("a "), "5f", text("x"), "7f", text(""), "7f"),
    string(BASE, "5f", text("to "), "53", text(" and "), "6800", text(""), "7f", raw=EVENT),
    string(BASE, "5f", text("nothing"), "7f"),
    string("04", "60325a", text("eve"), "6900"),
    string("04", "60325b", text("hall"), "6900"),
    string("04", "603254", raw=EVENT),
    string("04", "600054", raw=EVENT),
    string("04", "603250", text("DEV")),
    string("04", "60325103", b"DEV"),
    string("04", "60325c", text("hall"), "6900"),
    string("04", "603250", text("x" * 256)),
    string("04", b"\x60" + varint(2**62), "50", text("DEV")),
    *(string("04", f"{code:02x}00") for code in range(0x63, 0x6B)),
    *(string("04", reference) for reference in ("6200", "6201", "6202", "7a00", "7a02", "7a63")),
    *(string(*reference) for reference in (("0602", "6100"), ("0602", "6101"), ("0603", "6101"), ("0600", "6101"))),
    string("0601", "50", text("Hello World")),
    string("0601", "50", text("Hello Moon")),
    *(string("04", token) for token in ("6c00", "6d01", "6c63", "6d63", "6b00")),
    string(BASE, "6e"),
    *(string("04", transaction) for transaction in ("6e", "6f02", "6f63", "78")),
    string("04", "79", raw=EVENT),
    *(string("04", code) for code in ("00", "4f", "70", "77", "7b00", "7c", "7f")),
]

PATHS = [
    *(path(f"{method:02x}50", text("v"), "50", text(""), "7f2b2b") for method in range(8)),
    path("007f2b2b"),
    path("00502e007f2b2b"),
    path("0052027f2b2b", b"\x01\0"),
]

QUERIES = [
    *(query(given, "2b") for given in ("2b", "82", "7b00", "7b016c00", "7b016d00", "7b63", "7b016b00", "7b01", "6401")),
    query("50", text("a=b"), "2b"),
    request(BASE, "0150", text("a=%20b&c"), "2b"),
    query("7b0150", text("s1"), "2b"),
    query("7b0150", text("a b"), "2b"),
    query("600850", text("from=\x01&to=\x01"), "6c006d012b"),
    query("600050", text("other"), "2b"),
    query("60085101612b"),
    *(query("50", text(refused), "2b") for refused in ("a b", "a#b", "a\x7fb")),
]

VALUES = [
    *(body(given) for given in "00 1f 20ff 21ffff 22ffffffff 23ffffffffffffffff 2000 21ff".split()),
    *(body(given) for given in "2400 241f 2420ff 24237fffffffffffffff 2424 2428 243000".split()),
    *(body(given) for given in "25bff8000000000000 258000000000000000 257ff0000000000000 257ff8000000000001".split()),
    *(body(given) for given in "28 29 2a 2b 2c00 2d 2e 2f 30 317f 3100317f327f 32 337f 33000100027f".split()),
    *(body(given) for given in "34 4f 7b 7c 7d 7e 7f 31 3300 33007f 2b00 0000".split()),
    body("2c03", b"\xff{}"),
    body("2c04", b"abc"),
    body("2c", varint(2**24 + 1)),
    body("2c", varint(2**63)),
    body("334f008000ff0070000070ff007100007f"),
    body("33717d007f"),
    body("3377ff007f"),
    body("3350", text("n"), "005b", text("n"), "6900006401007f"),
    *(body(given) for given in "3378007f 337b007f 336800007f 337a00007f".split()),
    body("335e8a50", text("x"), "007f"),
    body(b"\x31" * 126, b"\x7f" * 126),
    body(b"\x31" * 126, "30", b"\x7f" * 126),
    body(b"\x31" * 127, b"\x7f" * 127),
    body(b"\x33\0" * 126, "00", b"\x7f" * 126),
    body(b"\x33\0" * 127, "00", b"\x7f" * 127),
]

TIMES = [
    body("3126", TIME, "260226017f"),
    body("3126", zigzag(-5), "26067f"),
    body("26", zigzag(2**63 - 1)),
    body("3126", zigzag(2**63 - 1), "26027f"),
    body("313304057f330427027f7f"),
    body("3126", TIME, "3304057f330427027f2602330427007f330427017f7f"),
    body("3126", TIME, "3350", text("age"), "057f330427027f7f"),
    body("3126", TIME, "330431057f7f27027f"),
    body("3126", TIME, "330424007f27027f"),
    body("3126", TIME, "330422ffffffff7f27027f"),
    body("3126", TIME, "330423000000ffffffffff7f27027f"),
    body("3126", TIME, "33042300000100000000007f27027f"),
    body("3123000001a20a54d4833304057f330427027f26027f"),
    body("3126", TIME, "27037f"),
]

DEFLATED = coders.deflate(b"\x01\x2b\x2b")
NO_MESSAGES = [
    *(request(given) for given in ("", "04", "0401", "08012b2b", "00012b2b", "05002b2b", "07002b2b", "0481002b2b")),
    request("04012b2b00"),
    request("04", varint(175), "2b2b"),
    request("04", varint(2**64 - 1), "2b2b"),
    request("04", b"\xff" * 9, "022b2b"),
    request("04", b"\x80" * 10, "002b2b"),
    *(request(given) for given in ("24", "24ff", "240102")),
    request("24", DEFLATED),
    request("24", DEFLATED[:-1]),
    request("24", DEFLATED, "00"),
    request("28", DEFLATED),
    request("24", coders.deflate(b"\x01\x2b\x2b\x2b")),
    request("24", coders.deflate(b"\x08\x2b\x2c\x02"), b"{}"),
    request("24", coders.deflate(b"\x08\x2b\x2c\x02"), b"{"),
]

RESPONSES = [
    *(
        response(given)
        for given in ("", "04", "05", "0432", "042b", "05c80132", "0598033301007f", "0580800432", "05ffff0332")
    ),
    *(response(given) for given in ("060032", "0794030432", "0832")),
    response("0450", text("x")),
    response("0450", text("fresh")),
    *(response(given) for given in ("046b00", "046b02", "04316b026b6b7f", "04316c026c007f", "046d02")),
    *(response(given) for given in ("046e", "06006e", "046f00", "046f02", "046f63", "0478", "04317a00787a02787f")),
    response("0479", EVENT),
    *(response(given) for given in ("046200", "046201", "0431620262027f")),
    *(response(f"04{code:02x}{number:02x}") for code, number in zip(range(0x63, 0x6B), (0, 1, 1, 0, 0, 0, 0, 0))),
    response("047b00"),
    response("060231610150", text("fresh"), "61017f"),
    response("06643150", text("fresh"), "50", text("fresher"), "610161027f"),
]

SENT = bytes.fromhex("0df795342b4e87d750dd04f4be7d335dd8cff10335223d92f546f383a8c9e346")
ALSO_SENT = bytes.fromhex("d95aab176120ec1b4b48981fb537b7b780e0d775957442cb90e22b44b9554c84")
ANSWERS = [
    answer(0, "043301797f", EVENT),
    answer(0, "043301797f", SENT),
    answer(1, "04330179017a027f", ALSO_SENT),
    answer(3, "04316b066c006c01260026027f"),
    answer(3, "060050", text("at the base of the mark")),
    answer(3, "060150", text("before it")),
]

NOTIFICATIONS = [
    *(
        notification(given)
        for given in ("", "050032", "0504331c6b060826027f", "050232", "050132", "056432", "0704026102")
    ),
    notification("0704003150", text("fresh"), "61017f"),
    notification("04331c6b0a7f"),
    notification("05043301797f", EVENT),
    ("notification 2", parts("050032")),
    ("notification 2", parts("05083126006c007f")),
]


def recent(number, given):
    """A request that gives a recent string this number."""
    return parts("06", varint(number), "1450", text(given), "2b2b")


def recall(number, base=9000):
    return parts("06", varint(base), "1461", varint(base - number), "2b2b")


def device(number, given):
    return parts("041460", varint(number), "50", text(given), "2b2b")


def recall_device(number):
    return parts("041466", varint(number), "2b2b")


def many(kind, base, *values):
    """A request with an array, by coder 1."""
    items = parts(base, "082b31", *values, "7f")
    return parts("26" if kind == "recent" else "24", coders.deflate(items))


DEVICES = many("device", "", *(parts("60", varint(100 + n), "50", text(f"{n:03}" * 85)) for n in range(65)))
RECENTS = many("recent", varint(8000), *(parts("50", text(f"{n:04}" * 256)) for n in range(65)))
FIRST = recent(8000, "first string")


def window(give, refer):
    """A number, then one that is as far from it as may be, or one further: whether the first may be referred to."""
    for later in (1255, 1256):
        yield "request", give(1000), give(later), refer(1000)


def introduced(spelled):
    return lambda number: parts("041460", varint(number), spelled, "2b2b")


def referred(code):
    return lambda number: parts("0414", code, varint(number), "2b2b")


WINDOWS = [
    *window(introduced(parts("5b", text("hall"), "6900")), referred("63")),
    *window(introduced(parts("5a", text("eve"), "6900")), referred("64")),
    *window(lambda number: parts("04145c", text("a"), "60", varint(number), "50", text("b"), "2b2b"), referred("65")),
    *window(introduced(parts("50", text("DEV"))), referred("66")),
    *window(
        lambda number: parts("040160", varint(number), "50", text("a=b"), "2b"),
        lambda number: parts("04017b", varint(number), "2b"),
    ),
]
SEVERAL = [
    ("request", FIRST, recall(8000)),
    ("request", FIRST, recent(9023, "second string"), recall(8000)),
    ("request", FIRST, recent(9024, "second string"), recall(8000)),
    ("request", recent(9024, "second string"), FIRST, recall(8000)),
    ("request", recent(9024, "second string"), recent(8001, "first string"), recall(8001)),
    ("request", FIRST, FIRST, recall(8000)),
    ("request", FIRST, recent(8000, "another string"), recall(8000)),
    ("request", FIRST + b"\0", recall(8000)),
    *(
        ("request", recent(8000, given), recall(8000))
        for given in ("x" * 1024, "x" * 1025, "xxxx", "xxxxx", "ää", "ääx")
    ),
    *WINDOWS,
    ("request", device(5, "ONE"), recall_device(5)),
    ("request", device(5, "ONE"), device(260, "TWO"), recall_device(5)),
    ("request", device(5, "ONE"), device(261, "TWO"), recall_device(5)),
    ("request", device(6, "x" * 255), recall_device(6)),
    ("request", device(6, "x" * 256), recall_device(6)),
    ("request", DEVICES, recall_device(100)),
    ("request", DEVICES, recall_device(101)),
    ("request", RECENTS, recall(8000, 8065)),
    ("request", RECENTS, recall(8001, 8065)),
    ("request", parts("06", varint(8000), "146e2b2b"), parts("04146f", varint(8000), "2b2b")),
    ("request", parts("06", varint(8000), "146e2b2b"), recall(8000)),
    ("notification 3", parts("0504331c6b060826027f"), parts("050c3126026b007f")),
    ("notification 3", parts("070402331c6b0600", "50", text("given anew"), "7f"), parts("070a003161017f")),
]


def modelled(association):
    """Messages of coder 2, and the same with bytes changed, cut off or put in."""
    taught = samples.taught()
    association.gateway.read_request(parts("04082b33506e003304057f5061005078007f"))
    trace = association.gateway.trace
    plain = trace.message(2)
    association.gateway.read_request(string(BASE, "53", raw=EVENT)[1])
    hashed = association.gateway.trace.message(2)
    association.proxy.read_response(parts("0598033301007f"), association.asked[6][1])
    answered = association.proxy.trace.message(2)
    with_status = model.encode(taught, Head(1, False, True), None, trace.trace, b"")
    of_another_epoch = model.encode(taught, Head(2, False, False), None, trace.trace, b"")
    changed = [
        plain[:place] + bytes([plain[place] ^ bit]) + plain[place + 1 :]
        for place in range(len(plain))
        for bit in (1, 128)
    ]
    requests = [
        *(plain, plain + b"\0", plain + b"\1", plain[:-1], plain[:3], plain[:1]),
        *(hashed, hashed[:-1], hashed[:20], hashed[:3] + b"\0" + hashed[3:]),
        *(with_status, of_another_epoch, answered),
        *changed,
        *(b"\xff" * 40, b"\x40" * 3, b"\x40", b"\xff"),
    ]
    return [("response 6", answered), ("response 0", answered), *(("request", message) for message in requests)]


def main():
    association, _ = replay.read_exchanges(only="0")
    sections = [
        ("Strings: the parameter of route 20, then no query and no body.", STRINGS),
        ("Paths that are spelled out.", PATHS),
        ("Queries.", QUERIES),
        ("Values: the body of a request of route 8.", VALUES),
        ("Times and ages.", TIMES),
        ("What is no message of this epoch, or none at all.", NO_MESSAGES),
        ("Responses to the request of route 0.", RESPONSES),
        ("Responses to requests that had a transaction or a token.", ANSWERS),
        ("Notifications.", NOTIFICATIONS),
        (
            "Several messages: windows by number and by bytes, what comes late, what is refused and teaches nothing.",
            SEVERAL,
        ),
        ("Coder 2: messages with bytes changed, cut off or put in.", modelled(copy.deepcopy(association))),
    ]
    lines = [HEAD.rstrip()]
    for title, cases in sections:
        lines.append(f"# {title}")
        for kind, *messages in cases:
            own = copy.deepcopy(association)
            found = [replay.outcome(own, kind, message) for message in messages][-1]
            lines.append("\t".join([kind, " ".join(message.hex() for message in messages), found]))
    (replay.VECTORS / "messages.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
