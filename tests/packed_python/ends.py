"""The two ends: what each knows, and how it reads (docs/packed.md sections 4, 5, 9 and 10)."""

import re
import urllib.parse

import coders
import write
from aliases import EVENT, RECENT, Aliases
from errors import DecodeError
from head import Head
from items import MASK, Reader, varint, zigzag
from message import Mark, Request, Response, read_request_items, read_response_items
from roles import ALIAS, BASE
from roles import ROUTES as ROUTE_NAMES
from tables import ROUTES
from values import Object, carried


class Asked:
    """Tokens and transactions in a request."""

    def __init__(self, end):
        self.end = end
        self.transaction = None
        self.first_known = None

    def new_token(self, _items):
        raise DecodeError("Direction", "a new token in a request")

    def known_token(self, items, first):
        number = items.varint(ALIAS)
        if first == 0x6C and self.first_known is None:
            self.first_known = number
        return self.end.token(number)

    def new_transaction(self, gift):
        return self.known_transaction(gift.take_number())

    def known_transaction(self, number):
        self.transaction = number
        return self.end.transaction(number)

    def event_number(self):
        raise DecodeError("Direction", "the event of a transaction in a request")


class Answered:
    """Tokens and transactions in a response."""

    def __init__(self, end, mark, transaction):
        self.end = end
        self.mark = mark
        self.transaction = transaction
        self.last_new = None
        self.new = []

    def new_token(self, items):
        if self.last_new is None:
            self.last_new = self.mark.number + items.zigzag(BASE) & MASK
        else:
            self.last_new += 1
        self.new.append(self.last_new)
        return self.end.token(self.last_new)

    def known_token(self, items, _first):
        return self.end.token(self.mark.number + items.zigzag(ALIAS) & MASK)

    def new_transaction(self, _gift):
        raise DecodeError("Direction", "a new transaction in a response")

    def known_transaction(self, number):
        return self.end.transaction(number)

    def event_number(self):
        if self.transaction is None:
            raise DecodeError("Direction", "an event without a transaction")
        return self.transaction


class End:
    """What the proxy and the gateway have in common: the aliases of both directions, and the marks."""

    def __init__(self, epoch, tokens, transactions):
        self.epoch = epoch
        self.tokens = tokens
        self.transactions = transactions
        self.mine = Aliases(2)
        self.theirs = Aliases(1)
        self.marks = {}
        self.read_by = {}
        self.trace = None

    def begin(self, epoch):
        """A new epoch."""
        self.epoch = epoch
        self.mine.forget()
        self.theirs = Aliases(1)
        self.read_by.clear()

    def read_request(self, message, sender=None, receiver=None):
        """A request that the other end made, or that this one made itself where the two are told."""
        # What a request says with s is for who acknowledges answers.
        head, source = self._open(message, None)
        items = Reader(source)
        asked = Asked(self)
        request, gift = read_request_items(head, items, sender or self.theirs, receiver or self.mine, asked)
        items.finish()
        request.transaction = asked.transaction
        request.mark = self._mark(asked.first_known)
        gift.commit()
        return request

    def _open(self, message, route):
        head, source = coders.open_message(message, self.epoch, route)
        self.trace = coders.Traced(head, source, route)
        return head, self.trace

    def may_refer(self, known, kind, number):
        """Whether a number may be referred to: those of the other end, and own ones that it has read, in the window."""
        if known is self.theirs:
            return True
        return number in self.read_by.get(kind, ()) and known.kinds[kind].is_near(number)

    def acknowledge(self, items):
        """The other end has read a message of this one."""
        for kind, number in items.gift.given:
            self.read_by.setdefault(kind, set()).add(number)

    def _sent(self, head, items):
        """The message of coder 0, and what this end has given with it."""
        items.gift.commit()
        kind = self.mine.kinds[RECENT]
        kind.next = max(kind.next, items.gift.next_recent)
        return bytes([head.byte(0)]) + bytes(items.coded) + items.tail()

    def _mark(self, number):
        if number is None:
            return Mark()
        if number not in self.marks:
            raise DecodeError("UnknownToken", f"no mark for {number}")
        return self.marks[number]

    def read_response(self, message, request, sender=None, receiver=None):
        """The response to a request."""
        if not message:
            return Response(None, Object())
        head, source = self._open(message, request.route)
        items = Reader(source)
        items.at(BASE, ROUTE_NAMES + request.route, 1)
        status = items.varint(BASE) if head.has_status else None
        if status is not None and status >= 2**16:
            raise DecodeError("Damaged", f"status {status}")
        body = self._read_answer(head, items, request.mark, request.transaction, sender, receiver)
        return Response(status, body)

    def read_notification(self, message, request, sender=None, receiver=None):
        """What an observed request is told; its answer if it has no position."""
        head, source = self._open(message, request.route)
        items = Reader(source)
        items.at(BASE, ROUTE_NAMES + request.route, 1)
        mark, position = request.mark, None
        if head.has_status:
            position = mark.number + items.zigzag(BASE) & MASK
            mark = self._mark(position)
        body = self._read_answer(head, items, mark, None, sender, receiver)
        return Response(None, body, position)

    def _read_answer(self, head, items, mark, transaction, sender, receiver):
        answered = Answered(self, mark, transaction)
        body, gift, last_time = read_response_items(
            head, items, sender or self.theirs, receiver or self.mine, answered
        )
        items.finish()
        gift.commit()
        recent = mark.recent if gift.base is None else gift.next_recent
        for number in answered.new:
            self.marks[number] = Mark(number, last_time, recent)
        return body


class Gateway(End):
    """The end that has the homeserver's tokens."""

    def __init__(self, *agreement):
        super().__init__(*agreement)
        self.numbers = {}

    def number_of(self, token):
        """The old number of a token, or the next."""
        return self.numbers.setdefault(token, len(self.numbers))

    def token(self, number):
        for token, known in self.numbers.items():
            if known == number:
                return token
        raise DecodeError("UnknownToken", f"{number}")

    def transaction(self, number):
        return f"lb{self.transactions:08x}.{number}"

    def write_response(self, request, body, status=None):
        """A response, and its items; one that is read as nothing but `{}` is empty."""
        if status is None and write.same_object(body):
            return b"", None
        return self._write(request, request.mark, body, None if status is None else varint(status))

    def write_notification(self, request, position, body):
        """A notification that goes on from a position that the proxy has."""
        mark = self._mark(position)
        return self._write(request, mark, body, zigzag(position - request.mark.number))

    def _write(self, request, mark, body, front):
        answering = Answering(self, mark, request.transaction if front is None else None)
        items = write.Items(self, mark, answering)
        items.body(carried(body), ROUTES[request.route - 1].answer if request.route else [])
        base = b""
        if items.has_base:
            base = zigzag(items.gift.base - mark.recent)
        items.coded[:0] = (front or b"") + base
        recent = items.gift.next_recent if items.has_base else mark.recent
        for number in answering.new:
            self.marks[number] = Mark(number, items.clock.last, recent)
        return self._sent(Head(self.epoch, items.has_base, front is not None), items), items


class Answering:
    """Tokens and transactions of a response that is written."""

    def __init__(self, gateway, mark, transaction):
        self.gateway = gateway
        self.mark = mark
        self.unanswered = transaction
        self.new = []

    def token(self, items, string):
        """A token, whatever it is."""
        is_known = string in self.gateway.numbers
        number = self.gateway.number_of(string)
        items.byte(0x6C if is_known else 0x6B)
        if is_known or not self.new:
            items.zigzag(number - self.mark.number)
        if not is_known:
            self.new.append(number)
        return True

    def transaction(self, items, string, path):
        """The event that came of the request's transaction, or an id that the homeserver repeats; if it is one."""
        is_event = path == ("event_id",) and write.HASH.match(string) and string[0] == "$"
        if is_event and self.unanswered is not None and items.number_in(items.gift, EVENT, string) is None:
            items.byte(0x79)
            items.raw(write.bytes_of(string[1:], "-_"))
            items.gift.give(EVENT, self.unanswered, string)
            return True
        if path[-2:] != ("unsigned", "transaction_id") or "content" in path:
            return False
        found = re.fullmatch(rf"lb{self.gateway.transactions:08x}\.(0|[1-9][0-9]*)", string)
        if not found:
            return False
        if int(found[1]) == items.last_event:
            items.byte(0x78)
        else:
            items.byte(0x6F)
            items.varint(int(found[1]))
        return True


class Proxy(End):
    """The end that has the client's transactions."""

    def __init__(self, *agreement):
        super().__init__(*agreement)
        self.chosen = {}
        self.begun = {}

    def begin(self, epoch):
        super().begin(epoch)
        self.marks.clear()

    def token(self, number):
        return f"lb{self.tokens:08x}_{number}"

    def number_of(self, token):
        """The number of a token that this agreement gave; None for any other string."""
        found = re.fullmatch(rf"lb{self.tokens:08x}_(0|[1-9][0-9]*)", token)
        return int(found[1]) if found else None

    def transaction(self, number):
        """What the client chose; if that is forgotten, what the homeserver was given."""
        return self.chosen.get(number, f"lb{self.transactions:08x}.{number}")

    def write_request(self, method, target, body):
        """A request, its items, and what its answer is read with."""
        path, mark, query = target.partition("?")
        segments = [urllib.parse.unquote(segment) for segment in path.split("/")[1:]]
        asking = Asking(self, path)
        items = write.Items(self, Mark(), asking)
        route = write.path_items(items, method, segments, lambda chosen: asking.begin(items, chosen))
        number_of = self.number_of
        write.query_items(items, query if mark else None, number_of, lambda number: asking.number(items, number))
        items.body(carried(body), ROUTES[route - 1].request if route else [])
        if items.has_base:
            items.coded[:0] = varint(items.gift.base)
        request = Request(route, method, target, body, asking.transaction_number)
        request.mark = self._mark(asking.first_known)
        return self._sent(Head(self.epoch, items.has_base, False), items), items, request


class Asking:
    """Tokens and transactions of a request that is written."""

    def __init__(self, proxy, path):
        self.proxy = proxy
        self.path = path
        self.first_known = None
        self.transaction_number = None

    def token(self, items, string):
        number = self.proxy.number_of(string)
        if number is not None:
            self.number(items, number)
        return number is not None

    def number(self, items, number):
        is_marked = number in self.proxy.marks
        items.byte(0x6C if is_marked else 0x6D)
        items.varint(number)
        if is_marked and self.first_known is None:
            self.first_known = number

    def begin(self, items, chosen):
        """The transaction of the request, which the client may repeat."""
        proxy = self.proxy
        number = proxy.begun.get((self.path, chosen))
        if number is None:
            items.byte(0x6E)
            number = proxy.begun[self.path, chosen] = items.take_number()
            proxy.chosen[number] = chosen
        else:
            items.byte(0x6F)
            items.varint(number)
        self.transaction_number = number

    def transaction(self, _items, _string, _path):
        return False
