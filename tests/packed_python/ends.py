"""The two ends: what each knows, and how it reads (docs/packed.md sections 4, 5, 9 and 10)."""

import re

import coders
from aliases import Aliases
from errors import DecodeError
from items import Reader
from message import Mark, Response, read_request_items, read_response_items
from roles import ALIAS, BASE
from roles import ROUTES as ROUTE_NAMES
from values import Object


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
            self.last_new = self.mark.number + items.zigzag(BASE)
        else:
            self.last_new += 1
        self.new.append(self.last_new)
        return self.end.token(self.last_new)

    def known_token(self, items, _first):
        return self.end.token(self.mark.number + items.zigzag(ALIAS))

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

    def begin(self, epoch):
        """A new epoch."""
        self.epoch = epoch
        self.mine.forget()
        self.theirs.forget()
        self.marks.clear()

    def read_request(self, message, sender=None, receiver=None):
        """A request that the other end made, or that this one made itself where the two are told."""
        head, source = coders.open_message(message, self.epoch, None)
        if head.has_status:
            raise DecodeError("Damaged", "a request with a status")
        items = Reader(source)
        asked = Asked(self)
        request, gift = read_request_items(head, items, sender or self.theirs, receiver or self.mine, asked)
        items.finish()
        request.transaction = asked.transaction
        request.mark = self._mark(asked.first_known)
        gift.commit()
        return request

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
        head, source = coders.open_message(message, self.epoch, request.route)
        items = Reader(source)
        items.at(BASE, ROUTE_NAMES + request.route, 1)
        status = items.varint(BASE) if head.has_status else None
        if status is not None and status >= 2**16:
            raise DecodeError("Damaged", f"status {status}")
        body = self._read_answer(head, items, request.mark, request.transaction, sender, receiver)
        return Response(status, body)

    def read_notification(self, message, request, sender=None, receiver=None):
        """What an observed request is told; its answer if it has no position."""
        head, source = coders.open_message(message, self.epoch, request.route)
        items = Reader(source)
        items.at(BASE, ROUTE_NAMES + request.route, 1)
        mark, position = request.mark, None
        if head.has_status:
            position = mark.number + items.zigzag(BASE)
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


class Proxy(End):
    """The end that has the client's transactions."""

    def __init__(self, *agreement):
        super().__init__(*agreement)
        self.chosen = {}

    def token(self, number):
        return f"lb{self.tokens:08x}_{number}"

    def number_of(self, token):
        """The number of a token that this agreement gave; None for any other string."""
        found = re.fullmatch(rf"lb{self.tokens:08x}_(0|[1-9][0-9]*)", token)
        return int(found[1]) if found else None

    def transaction(self, number):
        """What the client chose; if that is forgotten, what the homeserver was given."""
        return self.chosen.get(number, f"lb{self.transactions:08x}.{number}")
